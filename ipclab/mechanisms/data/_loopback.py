"""What tcp, udp and zmq-tcp share: this machine's own address, and being sure of who is on the other side of it.

Everybody on a machine may connect to 127.0.0.1. A port of ours is bound before its number is told to anybody, so nobody
else can have it; what remains is to refuse everybody but the one we mean.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from ipclab.errors import IpclabError, Unavailable, from_os_error
from ipclab.records import Limit, Probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: How long a connection within one machine may take to be made. Chosen, only reached when something is badly wrong.
CONNECT_S = 30.0
DOWN_HINT = "bring the loopback interface up (ip link set lo up)"


def address(family: int) -> tuple[str, int]:
    """The loopback address of a family with a port of the kernel's choice."""
    return ("127.0.0.1" if family == socket.AF_INET else "::1", 0)


def bound_socket(kind: int, what: str) -> socket.socket:
    """A socket bound to a free port of 127.0.0.1, or of ::1 where this machine has no IPv4. Raises Unavailable."""
    first: OSError | None = None
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock = socket.socket(family, kind)
        except OSError as err:
            if err.errno != errno.EAFNOSUPPORT:
                raise from_os_error(err, what, syscall="socket") from err
            first = first or err
            continue
        try:
            sock.bind(address(family))
            _check_reachable(sock)
        except OSError as err:
            sock.close()
            if err.errno in (errno.EMFILE, errno.ENFILE):
                raise from_os_error(err, what, syscall="socket") from err
            first = first or err
            continue
        return sock
    number = first.errno if first else None
    raise Unavailable(f"{what}: no loopback address", hint=DOWN_HINT, errno=number, syscall="bind") from first


def _check_reachable(sock: socket.socket) -> None:
    """Raise ENETUNREACH when the interface is down, which bind(2) does not mind. Nothing is sent."""
    with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
        probe.connect(sock.getsockname())


def tcp_pair(
    what: str, prepare: Callable[[socket.socket], object] | None = None
) -> tuple[socket.socket, socket.socket]:
    """Two TCP sockets connected to each other over loopback; (the one that accepted, the one that connected).

    The listener is open only for that moment. Whoever else connects in it is refused: a connection is known by its two
    ports, and ours was bound, by this process, before it connected. `prepare` is called on both kinds before.
    """
    with bound_socket(socket.SOCK_STREAM, what) as listener:
        try:
            connecting = socket.socket(listener.family, socket.SOCK_STREAM)
        except OSError as err:
            raise from_os_error(err, what, syscall="socket") from err
        try:
            for sock in (listener, connecting):
                if prepare:
                    prepare(sock)  # buffers are part of the handshake: they have to be set before it
                sock.settimeout(CONNECT_S)
            listener.listen(8)
            connecting.bind(address(listener.family))
            connecting.connect(listener.getsockname())
            accepted = _accept_from(listener, connecting.getsockname())
        except OSError as err:
            connecting.close()
            raise from_os_error(err, f"{what}: connecting over loopback", syscall="connect") from err
        except BaseException:
            connecting.close()
            raise
    for sock in (accepted, connecting):
        sock.settimeout(None)
    return accepted, connecting


def _accept_from(listener: socket.socket, expected: object) -> socket.socket:
    """Accept until the connection from `expected` comes; every other one is closed (it is reset)."""
    for _ in range(64):
        sock, peer = listener.accept()
        if peer == expected:
            return sock
        sock.close()
    raise IpclabError("tcp: somebody else keeps connecting to our port", hint="see who: ss -tnp")


def probe_loopback(make: Callable[[], object]) -> Probe:
    """Whether `make` works here; what it raises becomes the reason."""
    try:
        made = make()
    except IpclabError as err:
        return Probe(works=False, reason=err.message, remedy=err.hint or "")
    if isinstance(made, tuple):
        for sock in made:
            sock.close()
    return Probe(works=True)


def number_limits(path: Path, names: tuple[str, ...], unit: str) -> tuple[Limit, ...]:
    """Limits from a file of several numbers: net/ipv4/tcp_wmem has three, ip_local_port_range two."""
    try:
        values: list[int | None] = [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        values = [None] * len(names)
    return tuple(
        Limit(name=name, value=value, unit=unit, source=str(path) if value is not None else f"{path} cannot be read")
        for name, value in zip(names, values, strict=False)
    )

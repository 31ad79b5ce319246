"""tcp: a two-way stream of bytes with the whole network protocol in between, here over the loopback interface.

    process a  send buffer --[ segments, acknowledgements, a window ]--> receive buffer  process b        and back

What it is. AF_INET sockets of type SOCK_STREAM, connected by address and port. Nothing changes for the program when the
other side moves to another machine; in return every byte passes the TCP and IP layers, even on loopback. The link makes
its connection at `open`: a listener on 127.0.0.1 (::1 where there is no IPv4) with a port of the kernel's choice, open
for that moment alone. Anybody on this machine may connect to such a port, so the connecting socket is bound first and
only the connection from exactly its port is accepted.

Lifetime. As long as a descriptor of the socket is open, and then on in the kernel: what was sent is still delivered,
and the side that closed first keeps the pair of ports in TIME-WAIT for a minute, so that late segments meet nobody new.

Boundaries. None, and none to rely on by chance: the protocol cuts and joins as it likes. TCP_NODELAY is set here; else
Nagle's algorithm holds a small write back until what is under way is acknowledged, and a request in two writes waits
for the other side's delayed acknowledgement, 40 ms at worst.

Order. First in, first out, in each direction by itself; lost segments are sent again, unseen.

Capacity and limits. The sender's send buffer and the receiver's receive buffer together. Both grow by themselves
between the limits in tcp_wmem and tcp_rmem. `open` leaves that alone unless the messages asked for need more than the
buffers start with: SO_SNDBUF and SO_RCVBUF, once set, are fixed and at most wmem_max and rmem_max. Ports to connect
from come out of ip_local_port_range; the loopback interface carries packets of its MTU.

Blocking. recv(2) sleeps while nothing is there, send(2) while the send buffer is full, which it becomes when the
receiver's window is closed: back-pressure across machines. A sender asleep is woken when a third of the buffer is free.
`finish()` half-closes: the other side reads to the end and can still answer.

When an end dies. The kernel closes its sockets: a FIN, and the other side reads to the end and gets 0; or, when the
dead one had unread data, a RST: what had reached the other side is still received, then ECONNRESET, and what had not
left the dead one's send buffer is lost. A send after that fails with EPIPE. `close` here reads and drops what has come
before it closes, so that an orderly end sends no RST. A dead machine, unlike a dead process, sends nothing at all: that
takes keep-alives, or timeouts of one's own.

Use it when the other side may be on another machine some day, or is somebody else's program that speaks it.

Not when both sides are on this machine for good: unix-stream costs a fraction and knows its peer's uid. Not when
messages must stay apart.

Man pages. tcp(7), ip(7), socket(7), listen(2), accept(2), connect(2), shutdown(2).
"""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ipclab.mechanisms.base import Link
from ipclab.mechanisms.data._loopback import number_limits, probe_loopback, tcp_pair
from ipclab.mechanisms.data._sockets import (
    RECEIVE_BUFFER,
    SEND_BUFFER,
    SocketStreamEnd,
    enlarge,
    fetch,
    put_away,
    sysctl_limits,
)
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom

MECHANISM = Mechanism(
    name="tcp",
    family="data transfer",
    summary="a two-way stream of bytes through the network protocols, here on loopback",
    lifetime="process",
    go='net.Dial("tcp")',
    boundaries=False,
    duplex=True,
    man_pages=("tcp(7)", "ip(7)", "socket(7)", "listen(2)", "accept(2)", "connect(2)", "shutdown(2)"),
)

_NET = Path("/proc/sys/net")
#: What a close reads away at most, lest a peer that never stops sending hold it up.
_DRAIN_BYTES = 64 << 20


def probe() -> Probe:
    """Connect two sockets over loopback and close them."""
    return probe_loopback(partial(tcp_pair, "tcp"))


def limits() -> tuple[Limit, ...]:
    """What bounds TCP here."""
    return (
        *number_limits(_NET / "ipv4/tcp_wmem", _three("send buffer"), "bytes"),
        *number_limits(_NET / "ipv4/tcp_rmem", _three("receive buffer"), "bytes"),
        *sysctl_limits((SEND_BUFFER[1], RECEIVE_BUFFER[1])),
        *sysctl_limits((("connections waiting for accept", "net.core.somaxconn", "connections"),)),
        *number_limits(_NET / "ipv4/ip_local_port_range", ("first port to connect from", "last port"), "port number"),
        *number_limits(Path("/sys/class/net/lo/mtu"), ("packet on the loopback interface",), "bytes"),
    )


def _three(what: str) -> tuple[str, ...]:
    return f"{what}, least under pressure", f"{what}, at the start", f"{what}, grown by itself"


class TcpEnd(SocketStreamEnd):
    """One end of a connection."""

    def _close_fds(self) -> None:
        """Read what has come and drop it, then close: closing on unread data sends RST and drops what we sent last."""
        scrap = bytearray(65536)
        left = _DRAIN_BYTES
        try:
            while left > 0 and (size := self._sock.recv_into(scrap, 0, socket.MSG_DONTWAIT)):
                left -= size
        except OSError:
            pass  # nothing there, or the connection is gone: both are the end of reading
        self._sock.close()


class TcpLink(Link):
    """A connection over loopback, made at `open`, with TCP_NODELAY on both sides."""

    name = "tcp"

    def __init__(self, cloakroom: Cloakroom) -> None:
        self._cloakroom = cloakroom

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Connect; buffers are set only where `depth` messages need more than they start with.

        Raises Unavailable (no loopback), NoRoom.
        """
        accepted, connecting = tcp_pair(cls.name, partial(_size_buffers, wanted_bytes=message_bytes * depth))
        for sock in (accepted, connecting):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(put_away(cls.name, accepted, connecting))

    def take(self, side: Side) -> TcpEnd:
        """This side's socket; never blocks."""
        return TcpEnd(fetch(self._cloakroom, side), self.name)

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


def _size_buffers(sock: socket.socket, wanted_bytes: int) -> None:
    """Half of the room in the sender's buffer, half in the receiver's."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        enlarge(sock, option, wanted_bytes // 2)


LINK = TcpLink

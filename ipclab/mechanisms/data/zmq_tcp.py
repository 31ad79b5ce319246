"""zmq-tcp: ZeroMQ messages over TCP, here on the loopback interface.

    send -> [ queue, SNDHWM ] -> I/O thread --[ TCP on 127.0.0.1 ]--> I/O thread -> [ queue, RCVHWM ] -> recv

What it is. What zmq-ipc is, over a TCP connection: the same program works between machines by changing one string. The
listening socket is made at `open`, on 127.0.0.1 (::1 where there is no IPv4) with a port of the kernel's choice, and
handed to a's Context after the fork (ZMQ_USE_FD), so b knows the port from the start.

Anybody on this machine may connect to that port, which a path in a 0700 folder does not have to fear. So b must show a
random word that `open` made (the PLAIN mechanism; a's side of it is the ZAP protocol, answered inside a's send and
recv). Strangers are refused, and after b nobody is let in. A stranger can still keep a connection open that shows
nothing: then a learns of b's end only by `watch`. Over a real network PLAIN is readable by all: use CURVE.

Lifetime. The queues live in the processes and die with them; the port is free again at once.

Boundaries. Kept: a message arrives whole or not at all.

Order. First in, first out.

Capacity and limits. As zmq-ipc: high-water marks count messages (the link sets both to `depth`), the kernel's socket
buffers come on top, `message_bytes` is the largest message. Ports come out of ip_local_port_range.

Blocking. send waits at the high-water mark, and on side a also until b has connected; recv waits for a message.
libzmq sets TCP_NODELAY by itself. ZMQ_FD is edge-triggered: see `fileno`.

When an end dies. As zmq-ipc: libzmq would reconnect silently; the link listens to the monitor instead, and close and
death end a wait with PeerGone. What a killed sender had only queued is lost. `close` waits up to 5 s for the peer.

Use it when the other side may be on another machine, and ZeroMQ's patterns fit.

Not when both are on this machine for good: zmq-ipc needs no port and no password; or speed between two processes is
what counts.

Man pages. zmq_tcp(7), zmq_plain(7), zmq_socket(3), zmq_setsockopt(3), zmq_socket_monitor(3), tcp(7).
"""

from __future__ import annotations

import hmac
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ipclab.errors import from_os_error
from ipclab.mechanisms.base import Deadline
from ipclab.mechanisms.data._loopback import CONNECT_S, bound_socket, number_limits, probe_loopback
from ipclab.mechanisms.data._zmq import ZmqEnd, ZmqLink, probe_zmq, put_away_listener, zmq_limits
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    import zmq

    from ipclab.mechanisms.base import Side

MECHANISM = Mechanism(
    name="zmq-tcp",
    family="data transfer",
    summary="ZeroMQ messages over TCP, here on loopback",
    lifetime="process",
    boundaries=True,
    duplex=True,
    man_pages=("zmq_tcp(7)", "zmq_plain(7)", "zmq_socket(3)", "zmq_setsockopt(3)", "zmq_socket_monitor(3)", "tcp(7)"),
)

#: Where libzmq asks who may come in: RFC 27/ZAP.
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_USER = b"ipclab"


def probe() -> Probe:
    """Whether pyzmq is installed and a loopback port can be had."""
    found = probe_zmq()
    return probe_loopback(lambda: (bound_socket(socket.SOCK_STREAM, "zmq-tcp"),)) if found.works else found


def limits() -> tuple[Limit, ...]:
    """What bounds ZeroMQ over TCP here."""
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return (*zmq_limits(), *number_limits(ports, ("first port given out", "last port given out"), "port number"))


class ZmqTcpServerEnd(ZmqEnd):
    """Side a: lets in whoever shows the word, and only the first."""

    def __init__(self, what: str, message_bytes: int, depth: int, word: bytes) -> None:
        super().__init__(what, message_bytes, depth)
        self._word = word
        self._invited = False
        self._door: zmq.Socket[bytes] | None = self._context.socket(self._zmq.REP)
        self._door.setsockopt(self._zmq.LINGER, 0)
        self._door.bind(_ZAP_ENDPOINT)
        self._socket.setsockopt(self._zmq.PLAIN_SERVER, 1)
        self._socket.setsockopt(self._zmq.ZAP_DOMAIN, b"ipclab")

    def fileno(self) -> int:
        """As in ZmqEnd; waits up to CONNECT_S for the other side to be let in, since no descriptor tells of that."""
        self._check()
        deadline = Deadline(CONNECT_S)
        while not self._met and not self._gone:
            self._wait(self._zmq.POLLIN, deadline)
            self._read_monitor()
        return super().fileno()

    def _doorbell(self) -> zmq.Socket[bytes] | None:
        return self._door

    def _answer_door(self) -> None:
        """Answer the requests there are: [version, id, domain, address, identity, mechanism, user, password]."""
        while self._door is not None and self._door.poll(0):
            version, number, _domain, _address, _identity, mechanism, *shown = self._door.recv_multipart()
            known = mechanism == b"PLAIN" and len(shown) == 2 and shown[0] == _USER
            welcome = known and not self._invited and hmac.compare_digest(shown[1], self._word)
            self._invited = self._invited or welcome
            verdict = (b"200", b"welcome") if welcome else (b"400", b"not invited")
            self._door.send_multipart([version, number, *verdict, b"", b""])

    def _close_door(self) -> None:
        """Answer nobody any more: libzmq then refuses whoever comes."""
        if self._door is not None:
            self._door.close()
            self._door = None


class ZmqTcpLink(ZmqLink):
    """A port of 127.0.0.1: a serves it, b connects to it and shows the word."""

    name = "zmq-tcp"

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make the listening socket on a port of the kernel's choice. Raises Unavailable (no loopback), NoRoom."""
        listener = bound_socket(socket.SOCK_STREAM, cls.name)
        host, port = listener.getsockname()[:2]
        try:
            listener.listen(8)
        except OSError as err:
            listener.close()
            raise from_os_error(err, cls.name, syscall="listen") from err
        endpoint = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        link = cls(put_away_listener(cls.name, listener), endpoint, message_bytes, depth)
        link._word = secrets.token_hex(16).encode()
        return link

    _word = b""

    def _make_end(self, side: Side) -> ZmqEnd:
        if side == "a":
            end: ZmqEnd = ZmqTcpServerEnd(self.name, self._message_bytes, self._depth, self._word)
        else:
            end = super()._make_end(side)
            end.introduce(_USER, self._word)
        if "[" in self.endpoint:
            end.use_ipv6()
        return end


LINK = ZmqTcpLink

"""udp: separate messages through the network protocols, each one delivered or dropped without a word.

    process a  --[ datagram ]--> b's receive buffer  process b       full? dropped, and the sender hears nothing

What it is. AF_INET sockets of type SOCK_DGRAM: IP packets with two port numbers and a checksum. The link binds one on
each side to 127.0.0.1 (::1 where there is no IPv4) and connects them to each other, so that the kernel drops what comes
from any other port; what strangers sent between bind and connect is read away at `open`.

Lifetime. As long as a descriptor of the socket is open; what lies unread in it then is gone.

Boundaries. Kept: one send, one datagram, one receive, also with 0 bytes. A buffer that is too small cuts the datagram
off; the end here keeps it and raises BufferTooSmall.

Order. Not promised, not even on loopback, where a sender that moves to another CPU may, rarely, overtake itself. The
end here delivers in order: what was overtaken counts as lost, and is dropped when it comes after all.

Capacity and limits. 65507 bytes fit an IPv4 packet (65535 less 20 and 8 of headers), 65527 with IPv6; larger ones fail
with EMSGSIZE. Every datagram of the link has 8 bytes of header, its number, so 65499 are left. Room is the receiver's
SO_RCVBUF, bookkeeping included, at most net.core.rmem_max; over an Ethernet a datagram beyond about 1470 bytes travels
in fragments, and one fragment lost loses it whole. /proc/net/snmp (Udp: RcvbufErrors) counts what was dropped.

Blocking. recv sleeps while no datagram is there. send never blocks on loopback: a sender that is faster than the
receiver fills its buffer and goes on, and the kernel drops every datagram that finds no room. That is the price of the
missing flow control, and the link does not hide it (`lossy` is True): the number in each datagram lets the receiver
raise DatagramsLost, which says how many are missing; the datagram that showed the gap comes with the next receive.
Whoever needs them all must have them acknowledged, or keep no more under way than fit.

When an end dies. Nobody tells a receiver: `watch(pid)` ends its wait. A sender is told late: the datagram that finds no
socket makes the kernel answer with ICMP "port unreachable", and the *next* call says ECONNREFUSED; the first was lost.
An orderly `close` says goodbye in a last datagram, with the number of all it sent; it may be dropped like any other.

Use it when a late message is worth nothing (sound, games, clocks), one message goes to many (multicast), or a question
and an answer fit one datagram each (DNS).

Not when every message counts: tcp; or within one machine unix-datagram, which loses nothing and makes the sender wait.

Man pages. udp(7), ip(7), socket(7), connect(2), recvmsg(2), send(2).
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from ipclab.errors import IpclabError, PeerGone, from_os_error
from ipclab.mechanisms.base import Link, NativeSpec
from ipclab.mechanisms.data._loopback import bound_socket, number_limits, probe_loopback
from ipclab.mechanisms.data._sockets import (
    CLOSED,
    RECEIVE_BUFFER,
    SEND_BUFFER,
    MessageEnd,
    enlarge,
    fetch,
    granted,
    put_away,
    sysctl_limits,
)
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom

MECHANISM = Mechanism(
    name="udp",
    family="data transfer",
    summary="separate messages through the network protocols, dropped when there is no room",
    lifetime="process",
    go='net.Dial("udp")',
    boundaries=True,
    duplex=True,
    man_pages=("udp(7)", "ip(7)", "socket(7)", "connect(2)", "recvmsg(2)", "send(2)"),
)

#: The number of a datagram, counted from 0 on each side; with GOODBYE in it, how many there were.
HEADER = struct.Struct("!Q")
GOODBYE = 1 << 63
#: Largest payload of an IP packet after the UDP header: RFC 768, RFC 791, RFC 8200.
PAYLOAD_BYTES = {socket.AF_INET: 65507, socket.AF_INET6: 65527}
#: What the kernel charges for a datagram beyond its bytes, roughly: a struct sk_buff, rounding to pages.
_OVERHEAD_BYTES = 4096


class DatagramsLost(IpclabError):
    """The kernel dropped datagrams: the receive buffer was full. `lost` is how many are missing before the next one."""

    def __init__(self, lost: int) -> None:
        super().__init__(
            f"udp: {lost} datagram{'s' if lost != 1 else ''} dropped by the kernel, the receive buffer was full",
            hint="send slower, or open the link with more depth",
        )
        self.lost = lost


def probe() -> Probe:
    """Connect two sockets over loopback and close them."""
    return probe_loopback(partial(udp_pair, "udp"))


def limits() -> tuple[Limit, ...]:
    """What bounds UDP here."""
    largest = PAYLOAD_BYTES[socket.AF_INET]
    return (
        Limit(name="payload of a datagram over IPv4", value=largest, unit="bytes", source="65535 - 20 - 8, udp(7)"),
        *sysctl_limits((*RECEIVE_BUFFER, *SEND_BUFFER)),
        *number_limits(
            Path("/proc/sys/net/ipv4/ip_local_port_range"),
            ("first port given out", "last port given out"),
            "port number",
        ),
        *number_limits(Path("/sys/class/net/lo/mtu"), ("packet on the loopback interface",), "bytes"),
    )


def udp_pair(what: str) -> tuple[socket.socket, socket.socket]:
    """Two sockets on loopback, each connected to the other alone, both empty. Raises Unavailable, NoRoom."""
    with ExitStack() as undo:
        a, b = (undo.enter_context(bound_socket(socket.SOCK_DGRAM, what)) for _ in range(2))
        try:
            a.connect(b.getsockname())
            b.connect(a.getsockname())
        except OSError as err:
            raise from_os_error(err, f"{what}: connecting over loopback", syscall="connect") from err
        for sock in (a, b):
            _empty(sock)
        undo.pop_all()
        return a, b


def _empty(sock: socket.socket) -> None:
    """Read away what strangers sent before the socket was connected."""
    try:
        while True:
            sock.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return


class UdpEnd(MessageEnd):
    """One end. Numbers what it sends, and says what is missing of what it receives."""

    def __init__(self, sock: socket.socket, what: str, limit_bytes: int, limit_source: str) -> None:
        super().__init__(sock, what, limit_bytes, limit_source)
        self._sent = 0
        self._expected = 0
        self._header = bytearray(HEADER.size)

    @property
    def buffer_bytes(self) -> int:
        """SO_RCVBUF as the kernel counts it: where datagrams wait, and are dropped."""
        self._check()
        return granted(self._sock, socket.SO_RCVBUF)

    def native(self) -> NativeSpec:
        """By send(2) and recv(2), without the numbers: the loop's own tell what is missing.

        One way it keeps no more under way than the receive buffer holds, and has that acknowledged, so that none is.
        """
        spec = super().native()
        return spec._replace(numbers={**spec.numbers, "window_bytes": self.buffer_bytes})

    def _transmit(self, data: Buffer, flags: int) -> int:
        size = self._sock.sendmsg((HEADER.pack(self._sent), data), (), flags)
        self._sent += 1
        return size

    def _receive(self, view: memoryview, timeout_s: float | None) -> int:
        while True:
            size, _ = self._recvmsg([self._header, view, self._spill], timeout_s)
            word = int.from_bytes(self._header, "big")
            number = word & ~GOODBYE
            lost = number - self._expected
            if lost >= 0:
                break
            # Overtaken on its way and counted as lost already: too late. The wait starts anew, which is rare enough.
        size -= HEADER.size
        if word & GOODBYE:
            self._gone, self._expected = CLOSED, number
            if not lost:
                raise PeerGone(f"{self._what}: {CLOSED}")
        else:
            self._expected = number + 1
            if lost:
                self._held = self._joined(view, size)
        if lost:
            raise DatagramsLost(lost)
        return self._deliver(view, size)

    def close(self) -> None:
        """Say goodbye, with the number of all that was sent, and close. Twice is allowed."""
        if not self._closed and not self._gone:
            with suppress(OSError):  # nobody there to hear it
                self._sock.send(HEADER.pack(self._sent | GOODBYE), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        super().close()


class UdpLink(Link):
    """Two sockets on loopback, connected to each other. Lossy: see the module's text."""

    name = "udp"
    lossy: ClassVar[bool] = True

    def __init__(self, cloakroom: Cloakroom, limit_bytes: int, limit_source: str) -> None:
        self._cloakroom = cloakroom
        #: Largest message.
        self.limit_bytes = limit_bytes
        self.limit_source = limit_source

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Bind and connect; receive buffers are enlarged for `depth` messages, up to net.core.rmem_max.

        `limit_bytes` is what a datagram has room for, whatever `message_bytes` asks. Raises Unavailable, NoRoom.
        """
        a, b = udp_pair(cls.name)
        limit = PAYLOAD_BYTES[socket.AddressFamily(a.family)] - HEADER.size
        source = f"a UDP datagram has at most {limit + HEADER.size} bytes, {HEADER.size} of them the link's header"
        try:
            size = min(message_bytes, limit) + _OVERHEAD_BYTES
            for sock in (a, b):
                enlarge(sock, socket.SO_RCVBUF, size * depth)
                enlarge(sock, socket.SO_SNDBUF, size)
        except BaseException:
            a.close()
            b.close()
            raise
        return cls(put_away(cls.name, a, b), limit, source)

    def take(self, side: Side) -> UdpEnd:
        """This side's socket; never blocks."""
        return UdpEnd(fetch(self._cloakroom, side), self.name, self.limit_bytes, self.limit_source)

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


LINK = UdpLink

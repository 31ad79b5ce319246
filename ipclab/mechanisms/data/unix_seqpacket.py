"""unix-seqpacket: a connection that carries messages: their borders kept, none lost, and an end that is seen.

    process a  <--[ message ][ message ]   [ message ]-->  process b        one descriptor each, both ways

What it is. AF_UNIX sockets of type SOCK_SEQPACKET: connected like a stream (listen, accept, or socketpair(2) as the
link here does), with messages like datagrams. Names and credentials are those of unix-stream.

Lifetime. As long as a descriptor of it is open; a bound path stays in the file system until somebody unlinks it.

Boundaries. Kept. One receive gives one message; a message may have 0 bytes, and that is where recv(2) fails its reader:
0 is also what it returns at the end. Linux sets no MSG_EOR that would tell the two apart. The way out used here: with
SO_PASSCRED on, every message carries its sender's credentials, and a recvmsg(2) without room for them is told so by
MSG_CTRUNC. The end carries nothing: 0 bytes with MSG_CTRUNC is an empty message, 0 bytes without is the end. A message
larger than the buffer is cut off by the kernel; the end here keeps it and raises BufferTooSmall.

Order. First in, first out, in each direction by itself.

Capacity and limits. A message may have SO_SNDBUF - 32 bytes, where SO_SNDBUF is at most twice net.core.wmem_max; above
some megabytes the kernel also needs one piece of memory that large (ENOBUFS). `open` tries what passes. Messages that
wait are charged to the sender's SO_SNDBUF with their bookkeeping; net.unix.max_dgram_qlen does not apply.

Blocking. send(2) sleeps while the buffer is full, and is woken when three quarters of it are free again; recv(2) sleeps
while no message is there.

When an end dies. The other side receives what was sent, then the end. If the dead one had unread messages, the first
receive says ECONNRESET - ahead of messages that are still there, unlike in a stream; whoever gives up then loses them,
so the end here receives on. A send fails with EPIPE. Close and death are the same thing to the kernel.

Use it when two processes of one machine exchange messages: requests and answers, descriptors with a word about them.
It saves the length prefix a stream needs, and the timeouts a datagram needs.

Not when a message may be larger than the buffer (unix-stream with a length in front), or the peer may be on another
machine (tcp: SOCK_SEQPACKET over IP is SCTP's, which few have).

Man pages. unix(7), socket(7), socketpair(2), recvmsg(2), send(2).
"""

from __future__ import annotations

import socket

from ipclab.mechanisms.data._sockets import MessageEnd, probe_socket
from ipclab.mechanisms.data._unix import Credentials, MessagePairLink, peer_credentials, unix_limits
from ipclab.records import Limit, Mechanism, Probe

__all__ = ["LINK", "MECHANISM", "Credentials", "UnixSeqpacketLink", "limits", "peer_credentials", "probe"]

MECHANISM = Mechanism(
    name="unix-seqpacket",
    family="data transfer",
    summary="a connection that carries messages within one machine",
    lifetime="process",
    go='net.Dial("unixpacket")',
    boundaries=True,
    duplex=True,
    man_pages=("unix(7)", "socket(7)", "socketpair(2)", "recvmsg(2)", "send(2)"),
)


def probe() -> Probe:
    """Make a socket and close it."""
    return probe_socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def limits() -> tuple[Limit, ...]:
    """What bounds seqpacket sockets here."""
    return unix_limits()


class SeqpacketEnd(MessageEnd):
    """One end of the connection; tells an empty message from the end."""

    def _is_end(self, msg_flags: int) -> bool:
        return not msg_flags & socket.MSG_CTRUNC


class UnixSeqpacketLink(MessagePairLink):
    """A nameless pair of connected seqpacket sockets."""

    name = "unix-seqpacket"
    kind = socket.SOCK_SEQPACKET
    end_class = SeqpacketEnd

    @classmethod
    def prepare(cls, a: socket.socket, b: socket.socket) -> None:
        """Have every message labelled with its sender, so that an empty one differs from the end."""
        for sock in (a, b):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


LINK = UnixSeqpacketLink

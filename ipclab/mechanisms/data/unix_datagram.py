"""unix-datagram: separate messages within one machine, which are neither lost nor reordered.

    process a  --[ message ][ message ]-->  b's receive queue        process b

What it is. AF_UNIX sockets of type SOCK_DGRAM. Each send is one message for one receiver; there is no connection to
accept, though connect(2) may fix whom one sends to. The link uses a socketpair(2), where each side has the other fixed
and the kernel refuses messages from anybody else. A server binds a name instead (see unix-stream), and a client that
wants answers must bind one too. `recv_with_credentials` shows who sent a message (SCM_CREDENTIALS).

Lifetime. As long as a descriptor of it is open; a bound path stays in the file system until somebody unlinks it.

Boundaries. Kept. One receive gives one message, also one of 0 bytes. recv(2) into a buffer that is too small cuts the
message off and throws the rest away, telling so only by MSG_TRUNC; the end here keeps such a message and raises
BufferTooSmall.

Order. First in, first out. This is not UDP: unix(7) promises on Linux that nothing is lost and nothing overtakes.

Capacity and limits. A message may have SO_SNDBUF - 32 bytes, where SO_SNDBUF is at most twice net.core.wmem_max; above
some megabytes the kernel also needs one piece of memory that large (ENOBUFS). `open` tries what passes. The messages
waiting are bounded by the sender's SO_SNDBUF, bookkeeping included (about 280 of 1 byte in the default buffer); between
sockets that are not each other's peer also by net.unix.max_dgram_qlen, 10 by default, which many a logger has met.

Blocking. send(2) sleeps while the queue is full, and is woken when three quarters of the buffer are free again; recv(2)
sleeps while no message is there.

When an end dies. There is no end-of-file: a receiver that waits is told nothing, whether the other side closed or was
killed. Only a sender learns it, by ECONNREFUSED (a sender that sleeps is woken with it; a second send says ENOTCONN).
So a receiver needs `watch(pid)`, which ends the wait when that process ends. An orderly end has to be a message of the
program's own. What was sent before a death is delivered.

Use it when short independent messages go to one receiver from several processes: syslog, systemd's notify socket.

Not when the end of the other side must be seen (unix-seqpacket has the same messages and an end-of-file), or messages
of many megabytes go through (shared memory, or a descriptor of it).

Man pages. unix(7), socket(7), socketpair(2), send(2), recvmsg(2).
"""

from __future__ import annotations

import socket

from ipclab.mechanisms.data._sockets import probe_socket, sysctl_limits
from ipclab.mechanisms.data._unix import Credentials, MessagePairLink, recv_with_credentials, unix_limits
from ipclab.records import Limit, Mechanism, Probe

__all__ = ["LINK", "MECHANISM", "Credentials", "UnixDatagramLink", "limits", "probe", "recv_with_credentials"]

MECHANISM = Mechanism(
    name="unix-datagram",
    family="data transfer",
    summary="separate messages within one machine, none lost",
    lifetime="process",
    go='net.ListenUnixgram("unixgram")',
    boundaries=True,
    duplex=True,
    man_pages=("unix(7)", "socket(7)", "socketpair(2)", "send(2)", "recvmsg(2)"),
)


def probe() -> Probe:
    """Make a socket and close it."""
    return probe_socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def limits() -> tuple[Limit, ...]:
    """What bounds Unix datagrams here."""
    queue = (
        ("messages waiting at a socket, from senders it is not connected to", "net.unix.max_dgram_qlen", "messages"),
    )
    return (*unix_limits(), *sysctl_limits(queue))


class UnixDatagramLink(MessagePairLink):
    """A nameless pair of datagram sockets, each the other's only peer."""

    name = "unix-datagram"
    kind = socket.SOCK_DGRAM


LINK = UnixDatagramLink

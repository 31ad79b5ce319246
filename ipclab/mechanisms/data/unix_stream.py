"""unix-stream: a two-way stream of bytes between two processes of this machine.

    process a  <--[ a's receive queue | b's receive queue ]-->  process b        one descriptor each, both ways

What it is. A connected pair of AF_UNIX sockets of type SOCK_STREAM: what one sends goes straight into the other's
receive queue, without any network protocol. socketpair(2) makes a nameless pair for a process and its children; it is
what the link here uses. Strangers meet by a name: one binds and listens, the other connects. A name is a path (an
inode; permissions of the file system decide who may connect) or abstract (no file, gone with its socket, but every
local user may connect). `listen`, `connect`, `path_name` and `abstract_name` do both.

Lifetime. The sockets live as long as a descriptor of them is open, or on its way in another socket. A path stays in the
file system after its socket has died: connect(2) then says ECONNREFUSED, bind(2) EADDRINUSE, until somebody unlinks it.

Boundaries. None. Two sends may be received as one and one send as two. The exception: bytes sent along with descriptors
or credentials (SCM_RIGHTS, SCM_CREDENTIALS) are not mixed with those before them.

Order. First in, first out, in each direction by itself.

Capacity and limits. The sender's SO_SNDBUF counts: from net.core.wmem_default up to wmem_max, doubled by the kernel,
and its bookkeeping for every piece is charged too, so many small sends fill it long before their bytes do. The receive
buffer does not matter. A path has at most 107 bytes; net.core.somaxconn bounds the connections that wait for accept(2).

Blocking. recv(2) sleeps while nothing is there, send(2) while the buffer is full. A sender once asleep is not woken by
the first byte read, but when three quarters of its buffer are free again (unix_write_space in the kernel): that saves
context switches. `finish()` ends sending and keeps receiving, which a pipe pair can only do by closing a descriptor.

When an end dies. The other side receives what was sent, then end-of-file (0 bytes), or ECONNRESET once if the dead one
had not read everything sent to it. A send fails with EPIPE (and SIGPIPE, unless MSG_NOSIGNAL is given as here). Death
and close are the same thing to the kernel. SO_PEERCRED tells at any time who the other side was when the connection was
made: pid, uid and gid by the kernel's own record (`peer_credentials`), which no network protocol can offer.

Use it when two processes of one machine need a conversation, a server must know its clients' uid, or descriptors have
to travel with the data (see fd-passing). It is the usual choice of local servers.

Not when messages must stay apart (unix-seqpacket), the other side may be on another machine (tcp), or megabytes go
round often: every byte is copied twice (shared memory).

Man pages. unix(7), socket(7), socketpair(2), send(2), recv(2), shutdown(2).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Self

from ipclab.mechanisms.base import Link
from ipclab.mechanisms.data._sockets import SocketStreamEnd, enlarge, fetch, probe_socket, put_away
from ipclab.mechanisms.data._unix import (
    Credentials,
    abstract_name,
    connect,
    listen,
    make_pair,
    path_name,
    peer_credentials,
    unix_limits,
)
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom

__all__ = [
    "LINK",
    "MECHANISM",
    "Credentials",
    "UnixStreamLink",
    "abstract_name",
    "connect",
    "limits",
    "listen",
    "path_name",
    "peer_credentials",
    "probe",
]

MECHANISM = Mechanism(
    name="unix-stream",
    family="data transfer",
    summary="a two-way stream of bytes within one machine",
    lifetime="process",
    go='net.Dial("unix")',
    boundaries=False,
    duplex=True,
    man_pages=("unix(7)", "socket(7)", "socketpair(2)", "send(2)", "recv(2)", "shutdown(2)"),
)


def probe() -> Probe:
    """Make a socket and close it."""
    return probe_socket(socket.AF_UNIX, socket.SOCK_STREAM)


def limits() -> tuple[Limit, ...]:
    """What bounds a Unix stream here."""
    return unix_limits()


class UnixStreamLink(Link):
    """A nameless pair of connected stream sockets; one does for both directions."""

    name = "unix-stream"

    def __init__(self, cloakroom: Cloakroom, buffer_bytes: int) -> None:
        self._cloakroom = cloakroom
        #: SO_SNDBUF of each side as the kernel counts it.
        self.buffer_bytes = buffer_bytes

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make the pair; send buffers are enlarged for `depth` messages, up to net.core.wmem_max. Raises NoRoom."""
        a, b = make_pair(socket.SOCK_STREAM, cls.name)
        buffer_bytes = min(enlarge(sock, socket.SO_SNDBUF, message_bytes * depth) for sock in (a, b))
        return cls(put_away(cls.name, a, b), buffer_bytes)

    def take(self, side: Side) -> SocketStreamEnd:
        """This side's socket; never blocks."""
        return SocketStreamEnd(fetch(self._cloakroom, side), self.name)

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


LINK = UnixStreamLink

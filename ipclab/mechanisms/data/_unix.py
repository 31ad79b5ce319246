"""What the three Unix socket mechanisms share: pairs, names, and who is on the other side (unix(7)).

A Unix socket has one of three names, or none:

  path       an inode in the file system: needs write permission to connect, stays behind until somebody unlinks it
  abstract   a name of its own kind, no file: gone with the socket; *every* local user may connect, so ask who it is
  unnamed    what socketpair(2) makes: reachable only through its descriptors, hence what the links here use
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from ipclab.errors import IpclabError, UsageError, from_os_error
from ipclab.mechanisms.base import Link
from ipclab.mechanisms.data._sockets import (
    FILES_HINT,
    SEND_BUFFER,
    MessageEnd,
    enlarge,
    fetch,
    granted,
    put_away,
    sysctl_limits,
)
from ipclab.records import Limit

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom

#: sun_path has 108 bytes, the last of a path is a NUL.
PATH_LIMIT_BYTES = 107
_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
#: What the kernel keeps of a send buffer for itself when it checks a message's length (unix_dgram_sendmsg).
_KEPT_BYTES = 32


class Credentials(NamedTuple):
    """Who: as the kernel recorded it, not as somebody claims."""

    pid: int
    uid: int
    gid: int


def path_name(path: Path) -> str:
    """A path as bind and connect take it. Raises UsageError when it is longer than sun_path has room for."""
    size = len(os.fsencode(path))
    if size > PATH_LIMIT_BYTES:
        raise UsageError(
            f"socket path of {size} bytes is over the limit of {PATH_LIMIT_BYTES} (sun_path, unix(7)): {path}",
            hint="use a shorter folder, or bind from inside it by a relative path",
        )
    return os.fspath(path)


def abstract_name(name: str) -> str:
    """An abstract name: a NUL, then any bytes. ss(8) and /proc/net/unix show the NUL as @."""
    return "\0" + name


def listen(name: str, kind: int, backlog: int = 8) -> socket.socket:
    """A listening socket (stream or seqpacket) under a name; the caller closes it, and unlinks a path.

    A path is made with mode 0600 from the start: bind(2) obeys the umask, and chmod afterwards leaves a gap.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    old = os.umask(0o177)
    try:
        sock.bind(name)
        sock.listen(backlog)
    except OSError as err:
        sock.close()
        raise from_os_error(err, f"Unix socket {shown(name)}", syscall="bind") from err
    finally:
        os.umask(old)
    return sock


def connect(name: str, kind: int) -> socket.socket:
    """A socket connected to a name. A path whose listener is dead says ECONNREFUSED: the file outlived it."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.connect(name)
    except OSError as err:
        sock.close()
        hint = "nobody listens there: a file left behind may be unlinked" if err.errno == errno.ECONNREFUSED else None
        raise from_os_error(err, f"Unix socket {shown(name)}", syscall="connect", hint=hint) from err
    return sock


def shown(name: str) -> str:
    """A name as ss(8) shows it."""
    return "@" + name[1:] if name.startswith("\0") else name


def peer_credentials(sock: socket.socket) -> Credentials:
    """Who called connect(2), listen(2) or socketpair(2) on the other side, at that time (SO_PEERCRED).

    Fixed at that moment: a process that inherited the socket since is not seen. The pid may be reused by now.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(raw))


def recv_with_credentials(sock: socket.socket, size: int) -> tuple[bytes, Credentials | None]:
    """One receive, and who sent it (SCM_CREDENTIALS). Switches SO_PASSCRED on; None for what was sent before that."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(_UCRED.size))
    for level, kind, raw in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            found = Credentials(*_UCRED.unpack(raw[: _UCRED.size]))
            return data, found if found.pid else None
    return data, None


def make_pair(kind: int, what: str) -> tuple[socket.socket, socket.socket]:
    """socketpair(2), close-on-exec. Raises NoRoom."""
    try:
        return socket.socketpair(socket.AF_UNIX, kind)
    except OSError as err:
        raise from_os_error(err, what, syscall="socketpair", hint=FILES_HINT) from err


class MessagePairLink(Link):
    """A socketpair that keeps boundaries; kinds say which, and what their ends are."""

    kind: ClassVar[int]
    end_class: ClassVar[type[MessageEnd]] = MessageEnd

    def __init__(self, cloakroom: Cloakroom, limit_bytes: int, limit_source: str) -> None:
        self._cloakroom = cloakroom
        #: Largest message, as tried at `open`.
        self.limit_bytes = limit_bytes
        self.limit_source = limit_source

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make the pair; the send buffers are enlarged for `depth` messages as far as net.core.wmem_max allows.

        Where that is not enough for even one, `limit_bytes` is what passes. Raises NoRoom.
        """
        a, b = make_pair(cls.kind, cls.name)
        try:
            limit = size_buffers(a, b, message_bytes, depth) - _KEPT_BYTES
            buffer_bytes = limit + _KEPT_BYTES
            source = f"SO_SNDBUF of {buffer_bytes} bytes, from net.core.wmem_max"
            cls.prepare(a, b)
        except BaseException as err:
            a.close()
            b.close()
            if isinstance(err, OSError) and not isinstance(err, IpclabError):
                raise from_os_error(err, cls.name, syscall="setsockopt") from err
            raise
        return cls(put_away(cls.name, a, b), limit, source)

    @classmethod
    def prepare(cls, a: socket.socket, b: socket.socket) -> None:
        """Socket options of the kind; none by default."""

    def take(self, side: Side) -> MessageEnd:
        """This side's socket; never blocks."""
        return self.end_class(fetch(self._cloakroom, side), self.name, self.limit_bytes, self.limit_source)

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


def size_buffers(a: socket.socket, b: socket.socket, message_bytes: int, depth: int) -> int:
    """Enlarge both send buffers for `depth` messages, as far as the largest message then really passes; the size given.

    The buffer's size is the first limit of a message (EMSGSIZE). From some megabytes on it is the allocator, since most
    of a message has to lie in one piece of kernel memory (ENOBUFS): then a smaller buffer is the honest one.
    """
    least = message_bytes + _KEPT_BYTES
    size = min(enlarge(sock, socket.SO_SNDBUF, max(message_bytes * depth, least)) for sock in (a, b))
    while not _passes(a, b, size - _KEPT_BYTES):
        size = max(least, size // 2) if size > least else size // 2
        for sock in (a, b):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, (size + 1) // 2)  # the kernel doubles it
        size = granted(a, socket.SO_SNDBUF)
    return size


def _passes(a: socket.socket, b: socket.socket, size: int) -> bool:
    """Whether the kernel takes a message of that size; it is sent from a to b and thrown away."""
    try:
        a.send(bytes(size), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError as err:
        if err.errno in (errno.ENOBUFS, errno.ENOMEM):
            return False
        raise
    b.recv_into(bytearray(1))  # cuts the rest off
    return True


def unix_limits() -> tuple[Limit, ...]:
    """What bounds every Unix socket here."""
    path = Limit(name="path of a socket", value=PATH_LIMIT_BYTES, unit="bytes", source="sun_path, unix(7)")
    backlog = (("connections waiting for accept", "net.core.somaxconn", "connections"),)
    return (*sysctl_limits((*SEND_BUFFER, *backlog)), path)

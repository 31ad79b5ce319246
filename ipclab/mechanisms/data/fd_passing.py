"""fd-passing: the sender does not send the data but the right to it, a file descriptor (SCM_RIGHTS).

    sender: memfd, written and sealed --sendmsg(2) + SCM_RIGHTS--> [ unix socket ] --recvmsg(2)--> receiver: a new
    descriptor of the same file

What it is. A message on a Unix socket may carry descriptors as ancillary data. The kernel takes a reference to the
open file behind each and gives the receiver new descriptors of it, as dup(2) would, numbers and all their own. That
works for anything open: files, sockets, pipes, pidfds, even Unix sockets. Here each message is a memfd, a file in
memory without a name, sealed so that neither side can change or shorten it any more: the receiver could also map it
instead of reading it.

Lifetime. The socket pair lives as long as its descriptors; a file in flight as long as the socket it is in. The
kernel collects even sockets that were sent into one another.

Boundaries. Kept: the socket is a SEQPACKET one, one message, one file. (On a stream socket ancillary data sticks to
one of the bytes it was sent with, and a receive never reads past it.)

Order. First in, first out.

Capacity and limits. SCM_MAX_FD, 253 descriptors in a message; RLIMIT_NOFILE bounds what the receiver may hold open
and also how many one user may have in flight (ETOOMANYREFS). A message is as large as a file in memory may be:
memory, RLIMIT_FSIZE; here also 2 GiB - 4 KiB, what one read(2) moves. The socket's own buffer counts only the one
byte of text.

Blocking. As with unix-seqpacket. The copy into the memfd is made before, by the sender alone.

When an end dies. The other one reads what is left, then end-of-file, or EPIPE when it sends. Descriptors that nobody
received are closed by the kernel.

Use it when a server hands out connections, files, memfds or eventfds (systemd, Wayland, D-Bus, browsers), or a
process drops its privileges after somebody else opened a file for it.

Not when the data are small: a memfd costs some microseconds. Careful: a receiver that offers no room for descriptors
loses them (MSG_CTRUNC), one that does not ask for MSG_CMSG_CLOEXEC leaks them into its children's programs, and one
that maps an unsealed file can be killed by SIGBUS when the sender truncates it.

Man pages. unix(7), cmsg(3), sendmsg(2), recvmsg(2), memfd_create(2), fcntl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import socket
from typing import TYPE_CHECKING, Self

from ipclab.errors import BufferTooSmall, IpclabError, MessageTooLarge, NoRoom, PeerGone, from_os_error
from ipclab.mechanisms.base import Deadline, End, Link, NativeSpec, Peer, watched
from ipclab.mechanisms.data._pipes import fd_limit
from ipclab.mechanisms.data._rights import recv_rights, send_rights
from ipclab.mechanisms.data._sockets import FILES_HINT, fetch, put_away
from ipclab.mechanisms.data._streams import byte_view, wait_ready
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom

MECHANISM = Mechanism(
    name="fd-passing",
    family="data transfer",
    summary="a message is a sealed memfd whose descriptor is sent over a Unix socket",
    lifetime="process",
    go="syscall.UnixRights, net.UnixConn.WriteMsgUnix",
    boundaries=True,
    duplex=True,
    man_pages=("unix(7)", "cmsg(3)", "sendmsg(2)", "recvmsg(2)", "memfd_create(2)"),
)

#: Most bytes of one read(2) or write(2) (MAX_RW_COUNT, write(2)).
MAX_RW_BYTES = 0x7FFFF000
#: Most descriptors in one message (SCM_MAX_FD, unix(7)).
SCM_MAX_FD = 253
#: Nobody can write to, shorten or lengthen the file, nor take these seals off.
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
#: What a message of one byte and one descriptor takes of the socket's buffer, about (its skb's truesize).
_MESSAGE_COST_BYTES = 1024
_NOFILE_HINT = "raise RLIMIT_NOFILE (ulimit -n), or receive and close faster"


def probe() -> Probe:
    """Make a memfd and a socket pair, and close them."""
    try:
        os.close(os.memfd_create("ipclab-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
            sock.close()
    except OSError as err:
        remedy = FILES_HINT if err.errno in (errno.EMFILE, errno.ENFILE) else ""
        return Probe(works=False, reason=f"memfd_create, socketpair: {err.strerror}", remedy=remedy)
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """What bounds the descriptors and the files behind them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = None if soft == resource.RLIM_INFINITY else soft
    return (
        Limit(name="descriptors in a message", value=SCM_MAX_FD, unit="descriptors", source="SCM_MAX_FD, unix(7)"),
        fd_limit(),
        Limit(name="bytes in a file", value=size, unit="bytes", source="getrlimit(RLIMIT_FSIZE)"),
        Limit(name="bytes in one read(2)", value=MAX_RW_BYTES, unit="bytes", source="MAX_RW_COUNT, read(2)"),
    )


# --- the two calls everything else is made of ---------------------------------------------------------------------


def send_fd(sock: socket.socket, fd: int, note: bytes = b"fd", flags: int = 0) -> None:
    """Send one descriptor with a note of at least one byte; the caller's stays open and stays the caller's.

    Raises PeerGone, NoRoom (too many in flight), BlockingIOError as the socket and `flags` have it.
    """
    try:
        send_rights(sock, note, [fd], flags)
    except BlockingIOError:
        raise
    except OSError as err:
        if err.errno == errno.ETOOMANYREFS:
            text = "too many descriptors of this user are in flight"
            raise NoRoom(text, hint=_NOFILE_HINT, errno=err.errno, syscall="sendmsg") from err
        raise from_os_error(err, "sending a descriptor", syscall="sendmsg") from err


def recv_fd(sock: socket.socket, note_bytes: int = 256, flags: int = 0) -> tuple[int, bytes]:
    """Receive one descriptor, close-on-exec, and its note; the caller closes it.

    Raises PeerGone at the end, NoRoom when this process may open no more (the descriptor is lost: the kernel has
    dropped it), IpclabError when a message came without one, BlockingIOError as the socket and `flags` have it.
    """
    try:
        note, fds, lost = recv_rights(sock, note_bytes, 1, flags)
    except BlockingIOError:
        raise
    except OSError as err:
        raise from_os_error(err, "receiving a descriptor", syscall="recvmsg") from err
    if fds and not lost:
        return fds[0], note
    for fd in fds:  # more than one was sent: we made room for one, the kernel dropped the others
        os.close(fd)
    if lost:
        text = "a descriptor was lost: no room for it in this process, or more than one was sent (MSG_CTRUNC)"
        raise NoRoom(text, hint=_NOFILE_HINT, syscall="recvmsg")
    if not note:
        raise PeerGone("fd-passing: the other side has closed its end", syscall="recvmsg")
    raise IpclabError(f"a message of {len(note)} bytes came without a descriptor", syscall="recvmsg")


def sealed_memfd(view: memoryview) -> int:
    """A memfd with these bytes, sealed for good; the caller closes it. Raises NoRoom, MessageTooLarge."""
    fd = -1
    try:
        fd = os.memfd_create("ipclab-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        done = 0
        while done < len(view):
            done += os.write(fd, view[done:])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException as err:
        if fd >= 0:
            os.close(fd)
        if not isinstance(err, OSError):
            raise
        if err.errno == errno.EFBIG:
            raise _too_large(len(view)) from err
        raise from_os_error(err, "fd-passing: no file in memory", syscall="memfd_create") from err
    return fd


def _limit() -> tuple[int, str]:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY and soft < MAX_RW_BYTES:
        return soft, "RLIMIT_FSIZE (ulimit -f)"
    return MAX_RW_BYTES, "MAX_RW_COUNT, the most one read(2) moves"


def _too_large(size_bytes: int) -> MessageTooLarge:
    limit_bytes, source = _limit()
    return MessageTooLarge(size_bytes, limit_bytes, source, syscall="write")


# --- the link -------------------------------------------------------------------------------------------------------


class FdPassingEnd(End):
    """One end of a SEQPACKET pair over which memfds travel. Owns the socket, and a received file not yet read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.limit_bytes, self.limit_source = _limit()
        self._peer: Peer | None = None
        self._held = -1  # the file of a message that did not fit

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Copy `data` into a sealed memfd and send its descriptor; blocks while the socket's buffer is full."""
        self._check_open()
        with byte_view(data) as view:
            if len(view) > _limit()[0]:
                raise _too_large(len(view))
            fd = sealed_memfd(view)
        try:
            self._send(fd, timeout_s)
        finally:
            os.close(fd)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Receive a file and read it whole into `buffer`; one that is larger is kept for the next call."""
        self._check_open()
        with byte_view(buffer, writable=True) as view:
            if self._held < 0:
                self._held = self._receive(timeout_s)
            size = os.fstat(self._held).st_size
            if size > len(view):
                raise BufferTooSmall(f"fd-passing: a message of {size} bytes, a buffer of {len(view)} bytes")
            _read_whole(self._held, view[:size])
            fd, self._held = self._held, -1
            os.close(fd)
            return size

    def recv_memfd(self, timeout_s: float | None = None) -> int:
        """Receive a message as the file it is, to be mapped or passed on; the caller closes it."""
        self._check_open()
        fd, self._held = self._held, -1
        return fd if fd >= 0 else self._receive(timeout_s)

    def fileno(self) -> int:
        """The socket."""
        self._check_open()
        return self._sock.fileno()

    def watch(self, pid: int) -> None:
        """Also notice the end of `pid`: needed only where a third process keeps the other end open."""
        self._check_open()
        self._peer = Peer.instead_of(self._peer, pid)

    def native(self) -> NativeSpec:
        """By the same calls: a sealed memfd for each message, and sendmsg(2)."""
        self._check_open()
        return NativeSpec("fd-passing", (self._sock.fileno(),), None, watched(self._peer))

    def close(self) -> None:
        """Close the socket and a received file that nobody has fetched."""
        if self._peer is not None:
            self._peer.close()
        fd, self._held = self._held, -1
        if fd >= 0:
            os.close(fd)
        self._sock.close()

    def _check_open(self) -> None:
        if self._sock.fileno() < 0:
            raise IpclabError("fd-passing: this end is closed")

    def _send(self, fd: int, timeout_s: float | None) -> None:
        deadline = Deadline(timeout_s)
        peer_gone = False
        while True:
            try:
                send_fd(self._sock, fd, b"m", self._flags(timeout_s))
                return
            except BlockingIOError:
                if peer_gone:
                    raise PeerGone("fd-passing: the process on the other side has ended") from None
            peer_gone = not wait_ready(self._sock.fileno(), select.POLLOUT, deadline, self._peer, "fd-passing: send")

    def _receive(self, timeout_s: float | None) -> int:
        deadline = Deadline(timeout_s)
        peer_gone = False
        while True:
            try:
                fd, _ = recv_fd(self._sock, 8, self._flags(timeout_s))
            except BlockingIOError:
                if peer_gone:
                    raise PeerGone("fd-passing: the process on the other side has ended") from None
            else:
                return _checked(fd)
            peer_gone = not wait_ready(self._sock.fileno(), select.POLLIN, deadline, self._peer, "fd-passing: recv")

    def _flags(self, timeout_s: float | None) -> int:
        """Sleep in the call itself only with neither deadline nor watched peer."""
        return 0 if timeout_s is None and self._peer is None else socket.MSG_DONTWAIT


def _checked(fd: int) -> int:
    """The descriptor, if what it names cannot change while it is read."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0  # EINVAL: not a file in memory at all
    if seals & SEALS != SEALS:
        os.close(fd)
        raise IpclabError("fd-passing: the file that came is not sealed: its sender could change it while it is read")
    return fd


def _read_whole(fd: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.preadv(fd, [view[done:]], done)


class FdPassingLink(Link):
    """A pair of SEQPACKET Unix sockets."""

    name = "fd-passing"

    def __init__(self, cloakroom: Cloakroom) -> None:
        self._cloakroom = cloakroom

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make the pair with room for about `depth` descriptors each way, whatever is behind them. Raises NoRoom."""
        try:
            a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as err:
            raise from_os_error(err, "fd-passing", syscall="socketpair", hint=FILES_HINT) from err
        for sock in (a, b):  # what waits in the socket holds memory: not more of it than was asked for
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(depth, 2**19) * _MESSAGE_COST_BYTES // 2)
        return cls(put_away(cls.name, a, b))

    def take(self, side: Side) -> FdPassingEnd:
        """This side's socket; never blocks."""
        return FdPassingEnd(fetch(self._cloakroom, side))

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


LINK = FdPassingLink

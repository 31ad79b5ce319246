"""What the socket mechanisms have in common: two kinds of end, buffers, the way over a fork, limits.

  SocketStreamEnd   bytes without borders (unix-stream, tcp): the loops of _streams.py over recv(2) and send(2)
  MessageEnd        one call, one message (unix-datagram, unix-seqpacket, udp)

Why not read(2) and write(2): a write to a socket whose peer is gone raises SIGPIPE, and a role may have the default
action for it; MSG_NOSIGNAL makes it EPIPE. MSG_DONTWAIT does for one call what O_NONBLOCK does for every holder of the
open file description.

Why MessageEnd never loses the rest of a message that does not fit: the kernel cuts a datagram off at the end of the
buffer and forgets what is left. Asking for the length first (MSG_PEEK | MSG_TRUNC) costs a second system call for every
message. Here recvmsg(2) scatters: first into the caller's buffer, and what is too much into a buffer of our own. Only
when that happens the message is put together and kept for the next call.
"""

from __future__ import annotations

import errno
import mmap
import select
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ipclab.errors import BufferTooSmall, IpclabError, MessageTooLarge, NoRoom, PeerGone, from_os_error
from ipclab.mechanisms.base import Deadline, End, NativeSpec, Peer, watched
from ipclab.mechanisms.data._cloakroom import Cloakroom
from ipclab.mechanisms.data._pipes import sysctl
from ipclab.mechanisms.data._streams import StreamEnd, byte_view, wait_ready
from ipclab.records import Limit, Probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._streams import Bytes

#: What the kernel says when the other socket is no longer there. ENOTCONN: a datagram socket that said ECONNREFUSED
#: once has forgotten its peer.
GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENOTCONN})
FILES_HINT = "raise RLIMIT_NOFILE (ulimit -n)"
CLOSED = "the other side has closed its end"
ENDED = "the process on the other side has ended"


class SocketStreamEnd(StreamEnd):
    """One end of a connected stream socket. Owns it."""

    def __init__(self, sock: socket.socket, what: str) -> None:
        super().__init__(what)
        self._sock = sock

    def _read_fd(self) -> int:
        return self._sock.fileno()

    def _write_fd(self) -> int:
        return self._sock.fileno()

    def _reading(self, part: Bytes, wait: bool) -> Iterator[int]:
        # Not MSG_WAITALL: a Ctrl-C in the middle would lose the count of what had come by then.
        return map(self._sock.recv_into, (part,), (0,), (0 if wait else socket.MSG_DONTWAIT,))

    def _writing(self, part: Bytes, wait: bool) -> Iterator[int]:
        flags = socket.MSG_NOSIGNAL if wait else socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
        return map(self._sock.send, (part,), (flags,))

    def _close_fds(self) -> None:
        self._sock.close()

    def finish(self) -> None:
        """Half-close: nothing more will be sent, receiving goes on (shutdown(2), SHUT_WR).

        The other side receives what is left and then meets the end. A later `send` here is an error.
        """
        self._check("send")
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as err:
            raise from_os_error(err, self._what, syscall="shutdown") from err
        self._torn["send"] = "sending was ended by finish()"

    @property
    def buffer_bytes(self) -> tuple[int, int]:
        """(SO_SNDBUF, SO_RCVBUF) as the kernel counts them now, its own bookkeeping included."""
        self._check("")
        return granted(self._sock, socket.SO_SNDBUF), granted(self._sock, socket.SO_RCVBUF)


class MessageEnd(End):
    """One end of a connected socket that keeps boundaries. Owns it. Kinds refine `_transmit`, `_receive`, `_is_end`.

    After BufferTooSmall the message waits in this end, not in the kernel: `fileno` does not report it.
    """

    def __init__(self, sock: socket.socket, what: str, limit_bytes: int, limit_source: str) -> None:
        self._sock = sock
        self._what = what
        self.limit_bytes = limit_bytes
        self.limit_source = limit_source
        self._peer: Peer | None = None
        # Anonymous memory: pages that nothing was ever spilt into do not exist. A bytearray would be zeroed, so filled.
        self._spill = mmap.mmap(-1, limit_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._held: bytes | None = None
        #: How this end learnt that the other side is gone; empty before. The kernel says it once and forgets.
        self._gone = ""
        self._closed = False

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Send one message, whole or not at all; sleeps in send(2) while the socket's buffer is full."""
        self._check()
        sleep = timeout_s is None and self._peer is None
        flags = socket.MSG_NOSIGNAL if sleep else socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
        deadline: Deadline | None = None
        while not self._gone:
            try:
                self._transmit(data, flags)
                return
            except BlockingIOError:
                deadline = deadline or Deadline(timeout_s)
                self._wait(select.POLLOUT, deadline)
            except OSError as err:
                raise self._error(err, "send", data) from err
        raise PeerGone(f"{self._what}: {self._gone}")

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Receive one message; sleeps in recvmsg(2) while there is none. One that does not fit is kept."""
        self._check()
        with byte_view(buffer, writable=True) as view:
            return self._receive(view, timeout_s) if self._held is None else self._fetch_held(view)

    def fileno(self) -> int:
        """The socket; readable when a message is there, or the end where the kind has one."""
        self._check()
        return self._sock.fileno()

    def watch(self, pid: int) -> None:
        """Notice the end of `pid` in every wait from now on."""
        self._check()
        self._peer = Peer.instead_of(self._peer, pid)

    def native(self) -> NativeSpec:
        """By send(2) and recv(2)."""
        self._check()
        return NativeSpec("datagram", (self._sock.fileno(),), None, watched(self._peer))

    def close(self) -> None:
        """Close the socket. Twice is allowed."""
        if self._closed:
            return
        self._closed = True
        if self._peer is not None:
            self._peer.close()
        self._sock.close()
        self._spill.close()

    # --- what a kind may say differently ----------------------------------------------------------------------------

    def _transmit(self, data: Buffer, flags: int) -> int:
        return self._sock.send(data, flags)

    def _receive(self, view: memoryview, timeout_s: float | None) -> int:
        size, msg_flags = self._recvmsg([view, self._spill], timeout_s)
        if size == 0 and self._is_end(msg_flags):
            raise PeerGone(f"{self._what}: {CLOSED}", syscall="recvmsg")
        return self._deliver(view, size)

    def _is_end(self, msg_flags: int) -> bool:
        """Whether a result of 0 bytes is the end and not an empty message."""
        return False

    # --- shared parts -----------------------------------------------------------------------------------------------

    def _recvmsg(self, parts: list[Buffer], timeout_s: float | None) -> tuple[int, int]:
        """Scatter one message into the parts: its size and the message flags. What was sent comes before the end."""
        flags = 0 if timeout_s is None and self._peer is None and not self._gone else socket.MSG_DONTWAIT
        deadline: Deadline | None = None
        while True:
            try:
                size, _, msg_flags, _ = self._sock.recvmsg_into(parts, 0, flags)
                return size, msg_flags
            except BlockingIOError:
                if self._gone:
                    raise PeerGone(f"{self._what}: {self._gone}") from None
                deadline = deadline or Deadline(timeout_s)
                self._wait(select.POLLIN, deadline)
            except OSError as err:
                if self._gone or err.errno not in GONE:
                    raise self._error(err, "recvmsg") from err
                # The refusal overtakes the queue: it is told once, and then messages that came before it are there.
                self._gone, flags = CLOSED, socket.MSG_DONTWAIT

    def _wait(self, event: int, deadline: Deadline) -> None:
        """Sleep until the socket is ready or the watched process has ended; that is noted. Raises TimedOut."""
        what = f"{self._what}: {'recv' if event == select.POLLIN else 'send'}"
        if not wait_ready(self._sock.fileno(), event, deadline, self._peer, what):
            self._gone = ENDED

    def _joined(self, view: memoryview, size: int) -> bytes:
        """The message of `size` bytes that was scattered over `view` and the spill."""
        return bytes(view[:size]) + self._spill[: max(0, size - len(view))]

    def _deliver(self, view: memoryview, size: int) -> int:
        """The message of `size` bytes has come into `view`, and beyond it into the spill."""
        if size > len(view):
            self._held = self._joined(view, size)
            return self._fetch_held(view)
        return size

    def _fetch_held(self, view: memoryview) -> int:
        message = self._held or b""
        if len(message) > len(view):
            raise BufferTooSmall(
                f"{self._what}: the message of {len(message)} bytes does not fit the buffer of {len(view)} bytes",
                hint="it is kept: receive it into a larger buffer",
            )
        view[: len(message)] = message
        self._held = None
        return len(message)

    def _error(self, err: OSError, syscall: str, data: Buffer = b"") -> IpclabError:
        size = memoryview(data).nbytes
        if err.errno in GONE:
            self._gone = CLOSED
            return PeerGone(f"{self._what}: {CLOSED}", errno=err.errno, syscall=syscall)
        if err.errno in (errno.EMSGSIZE, errno.ENOBUFS) and size > (self.limit_bytes or 0):
            return MessageTooLarge(size, self.limit_bytes or 0, self.limit_source, syscall=syscall)
        if err.errno == errno.ENOBUFS:
            text = f"{self._what}: the kernel found no memory for a message of {size} bytes in one piece"
            return NoRoom(text, hint="send smaller messages", errno=err.errno, syscall=syscall)
        return from_os_error(err, self._what, syscall=syscall)

    def _check(self) -> None:
        if self._closed:
            raise IpclabError(f"{self._what}: this end is closed")


# --- making them ------------------------------------------------------------------------------------------------------


def granted(sock: socket.socket, option: int) -> int:
    """A buffer's size as the kernel counts it: twice what was asked for, its bookkeeping included (socket(7))."""
    return sock.getsockopt(socket.SOL_SOCKET, option)


def enlarge(sock: socket.socket, option: int, wanted_bytes: int) -> int:
    """Ask for a buffer of `wanted_bytes`, never for less than it has; returns what was granted.

    The kernel caps it silently at net.core.wmem_max (SO_SNDBUF) or rmem_max (SO_RCVBUF).
    """
    if wanted_bytes * 2 > granted(sock, option):
        sock.setsockopt(socket.SOL_SOCKET, option, min(wanted_bytes, 2**30))
    return granted(sock, option)


def put_away(what: str, a: socket.socket, b: socket.socket) -> Cloakroom:
    """Leave each side's socket in a cloakroom; both are closed here, whatever happens."""
    try:
        cloakroom = Cloakroom(what)
        try:
            cloakroom.leave("a", [a.detach()])
            cloakroom.leave("b", [b.detach()])
        except BaseException:
            cloakroom.close()
            raise
    finally:
        a.close()
        b.close()
    return cloakroom


def fetch(cloakroom: Cloakroom, side: Side) -> socket.socket:
    """This side's socket, in the process that will use it."""
    (fd,) = cloakroom.fetch(side)
    return socket.socket(fileno=fd)


# --- what bounds them -------------------------------------------------------------------------------------------------


def probe_socket(family: int, kind: int) -> Probe:
    """Make a socket and close it."""
    try:
        socket.socket(family, kind).close()
    except OSError as err:
        full = err.errno in (errno.EMFILE, errno.ENFILE)
        return Probe(works=False, reason=f"socket: {err.strerror}", remedy=FILES_HINT if full else "")
    return Probe(works=True)


def sysctl_limits(rows: Iterable[tuple[str, str, str]]) -> tuple[Limit, ...]:
    """Limits from /proc/sys: (name, dotted sysctl, unit). One that cannot be read has the value None."""
    found = []
    for name, dotted, unit in rows:
        path = Path("/proc/sys", *dotted.split("."))
        value = sysctl(path)
        source = str(path) if value is not None else f"{path} cannot be read"
        found.append(Limit(name=name, value=value, unit=unit, source=source))
    return tuple(found)


#: Both directions of every socket's buffer, before it is set and at most (socket(7)).
SEND_BUFFER = (
    ("send buffer of a new socket", "net.core.wmem_default", "bytes"),
    ("send buffer at most (SO_SNDBUF)", "net.core.wmem_max", "bytes"),
)
RECEIVE_BUFFER = (
    ("receive buffer of a new socket", "net.core.rmem_default", "bytes"),
    ("receive buffer at most (SO_RCVBUF)", "net.core.rmem_max", "bytes"),
)

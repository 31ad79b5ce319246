"""What every byte stream does by hand: loop over short reads and writes, wait with a deadline, see the other end go.

A stream knows no messages. `read(2)` returns what happens to be there and `write(2)` takes what happens to fit, so both
are loops. Three things can end such a loop early, and each has its own error:

  - the other side has closed or died     -> PeerGone (read returned 0; write failed with EPIPE or ECONNRESET)
  - the time is over                      -> TimedOut
  - a signal handler raised               -> its exception, KeyboardInterrupt for one

When one of the last two happens with part of a message moved, nobody can tell any more where the next message begins:
the direction is torn, the error says so, and every later call on it fails at once.

How it waits. With no deadline and nobody watched the plain blocking call is made, so that the process sleeps in
read(2) or write(2) itself, as a student expects and as /proc shows. Otherwise the call is made without waiting, and
poll(2) waits for the descriptor and the watched process's pidfd at once.

Rejected: O_NONBLOCK for ever (a needless poll(2) for each wait); SO_RCVTIMEO and alarm(2) (no pipe has the first, the
second belongs to the program).
"""

from __future__ import annotations

import fcntl
import math
import os
import select
from abc import abstractmethod
from typing import TYPE_CHECKING

from ipclab.errors import IpclabError, PeerGone, TimedOut, from_os_error
from ipclab.mechanisms.base import Deadline, End, Peer

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: The longest single poll(2): its timeout is an int of milliseconds.
_LONGEST_POLL_MS = 2**31 - 1


def byte_view(data: Buffer, *, writable: bool = False) -> memoryview:
    """`data` as a flat view of unsigned bytes; use it in a `with`, so that the buffer is given back at once."""
    view = memoryview(data)
    if writable and view.readonly:
        view.release()
        raise TypeError("recv_into needs a writable buffer (bytearray, mmap, a memoryview of one), not a read-only one")
    if not view.nbytes:  # cast() refuses a shape with a zero in it
        view.release()
        return memoryview(bytearray())
    return view.cast("B")


def wait_ready(fd: int, events: int, deadline: Deadline, peer: Peer | None, what: str) -> bool:
    """Wait until poll(2) reports `events`, an error or a hang-up on `fd`; False when only the watched peer's end came.

    After False the caller looks at `fd` once more and then raises PeerGone: what the peer sent last is delivered first.
    Raises TimedOut. An interrupted poll goes on with the time left (PEP 475).
    """
    poller = select.poll()
    poller.register(fd, events)
    if peer is not None and peer.fd is not None:
        poller.register(peer.fd, select.POLLIN)
    while True:
        gone = peer is not None and peer.gone()
        left_s = 0.0 if gone else deadline.left_s()
        ready = poller.poll(None if left_s is None else min(math.ceil(left_s * 1e3), _LONGEST_POLL_MS))
        if any(number == fd for number, _ in ready):
            return True
        if gone:
            return False
        if not ready:
            deadline.check(what)


class StreamEnd(End):
    """One end of a byte stream. Kinds add how a descriptor is read, written and closed.

    Not for two threads in the same direction at once; one thread sending while another receives is fine.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._peer: Peer | None = None
        self._closed = False
        #: Why a direction can no longer be used; empty while it can.
        self._torn = {"send": "", "recv": ""}

    # --- what a kind has to say -------------------------------------------------------------------------------------

    @abstractmethod
    def _read_fd(self) -> int:
        """The descriptor that becomes readable."""

    @abstractmethod
    def _write_fd(self) -> int:
        """The descriptor that becomes writable."""

    @abstractmethod
    def _read_some(self, view: memoryview, wait: bool) -> int:
        """Read up to len(view) bytes, 0 at the end of the stream; BlockingIOError when not to wait and none there."""

    @abstractmethod
    def _write_some(self, view: memoryview, wait: bool) -> int:
        """Write up to len(view) bytes; BlockingIOError when not to wait and no room."""

    @abstractmethod
    def _close_fds(self) -> None:
        """Close the descriptors; called once."""

    # --- the interface of base.End ----------------------------------------------------------------------------------

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Write all of `data`; blocks while the stream is full. Raises PeerGone, TimedOut."""
        self._check("send")
        with byte_view(data) as view:
            self._move("send", view, timeout_s)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Fill the whole of `buffer` and return its length; blocks until that much came. Raises PeerGone, TimedOut."""
        self._check("recv")
        with byte_view(buffer, writable=True) as view:
            self._move("recv", view, timeout_s)
            return len(view)

    def fileno(self) -> int:
        """The descriptor to wait on for bytes."""
        self._check("")
        return self._read_fd()

    def watch(self, pid: int) -> None:
        """Also notice the end of `pid`: needed only where a third process keeps the other end open."""
        self._check("")
        if self._peer is not None:
            self._peer.close()
        self._peer = Peer(pid)

    def close(self) -> None:
        """Close this end; the other side then reads what is left, and meets the end. Twice is allowed."""
        if self._closed:
            return
        self._closed = True
        if self._peer is not None:
            self._peer.close()
        self._close_fds()

    # --- the loops --------------------------------------------------------------------------------------------------

    def _check(self, direction: str) -> None:
        if self._closed:
            raise IpclabError(f"{self._what}: this end is closed")
        if torn := self._torn.get(direction):
            raise IpclabError(f"{self._what}: {torn}", hint="open a new link; the borders of messages are lost")

    def _move(self, direction: str, view: memoryview, timeout_s: float | None) -> None:
        """Read or write all of `view`; tear the direction when it ends between the first and the last byte."""
        progress = [0]
        try:
            self._loop(direction, view, timeout_s, progress)
        except BaseException as err:
            if not 0 < progress[0] < len(view):
                raise
            verb = "received" if direction == "recv" else "sent"
            torn = self._torn[direction] = f"the stream is broken: {progress[0]} of {len(view)} bytes were {verb}"
            if isinstance(err, (TimedOut, PeerGone)):
                raise type(err)(f"{err.message}; {torn}", errno=err.errno, syscall=err.syscall) from err
            raise

    def _loop(self, direction: str, view: memoryview, timeout_s: float | None, progress: list[int]) -> None:
        reading = direction == "recv"
        wait = timeout_s is None and self._peer is None
        deadline = Deadline(timeout_s)
        peer_gone = False
        while (done := progress[0]) < len(view):
            try:
                moved = self._read_some(view[done:], wait) if reading else self._write_some(view[done:], wait)
            except BlockingIOError:
                if peer_gone:
                    raise PeerGone(f"{self._what}: the process on the other side has ended") from None
                fd, events = (self._read_fd(), select.POLLIN) if reading else (self._write_fd(), select.POLLOUT)
                peer_gone = not wait_ready(fd, events, deadline, self._peer, f"{self._what}: {direction}")
                continue
            except OSError as err:
                raise from_os_error(err, self._what, syscall="read" if reading else "write") from err
            if reading and not moved:
                raise PeerGone(f"{self._what}: the other side has closed its end", syscall="read")
            progress[0] += moved


class PipeEnd(StreamEnd):
    """A byte stream over two one-way descriptors, as pipes and FIFOs have them. Owns both.

    O_NONBLOCK lives in the open file description, so nobody else may share these descriptors (see _cloakroom.py).
    SIGPIPE is ignored by Python; a program that has given it back its default action is ended by it, as pipe(7) says.
    """

    def __init__(self, read_fd: int, write_fd: int, what: str) -> None:
        super().__init__(what)
        self._in = read_fd
        self._out = write_fd
        self._blocking: dict[int, bool] = {}

    def _read_fd(self) -> int:
        return self._in

    def _write_fd(self) -> int:
        return self._out

    def _set_blocking(self, fd: int, blocking: bool) -> None:
        """Switch O_NONBLOCK only when the way of waiting changes: it costs a system call."""
        if self._blocking.get(fd) != blocking:
            os.set_blocking(fd, blocking)
            self._blocking[fd] = blocking

    def _read_some(self, view: memoryview, wait: bool) -> int:
        self._set_blocking(self._in, wait)
        return os.readv(self._in, [view])

    def _write_some(self, view: memoryview, wait: bool) -> int:
        self._set_blocking(self._out, wait)
        return os.write(self._out, view)

    def _close_fds(self) -> None:
        os.close(self._in)
        os.close(self._out)

    @property
    def capacity_bytes(self) -> int:
        """Room of the pipe this end writes to, as the kernel gives it now (F_GETPIPE_SZ)."""
        self._check("")
        return fcntl.fcntl(self._out, fcntl.F_GETPIPE_SZ)

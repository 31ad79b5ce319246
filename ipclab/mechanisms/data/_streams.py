"""What every byte stream does by hand: loop over short reads and writes, wait with a deadline, see the other end go.

A stream knows no messages. `read(2)` returns what happens to be there and `write(2)` takes what happens to fit, so both
are loops. Three things can end such a loop early, and each has its own error:

  - the other side has closed or died     -> PeerGone (read returned 0; write failed with EPIPE or ECONNRESET)
  - the time is over                      -> TimedOut
  - a signal handler raised               -> its exception, KeyboardInterrupt for one

When any of them happens with part of a message moved, nobody can tell any more where the next message begins: the
direction is torn, the error says so, and every later call on it fails at once. So the loop must know to the byte what
has moved. A write(2) that a Ctrl-C interrupts half way returns what it wrote, and Python then raises KeyboardInterrupt
before the result is stored: `n = os.write(...)` would lose it. `moved.extend(map(os.write, ...))` does not, because
from the system call to the list everything happens in C, where no handler runs.

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
from ipclab.mechanisms.base import Deadline, End, NativeSpec, Peer, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    #: Bytes in one piece, without a view where the caller's object will do: a view costs half a microsecond.
    Bytes = bytes | bytearray | memoryview

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
        #: Why a direction, "send" or "recv", can no longer be used.
        self._torn: dict[str, str] = {}
        #: What each call of the last or present `send` moved.
        self._sent: list[int] = []

    # --- what a kind has to say -------------------------------------------------------------------------------------

    @abstractmethod
    def _read_fd(self) -> int:
        """The descriptor that becomes readable."""

    @abstractmethod
    def _write_fd(self) -> int:
        """The descriptor that becomes writable."""

    @abstractmethod
    def _reading(self, part: Bytes, wait: bool) -> Iterator[int]:
        """One call that reads into `part`, not made yet: `map` of the C function over its arguments.

        It yields how many bytes came, 0 at the end of the stream; BlockingIOError when not to wait and none there.
        """

    @abstractmethod
    def _writing(self, part: Bytes, wait: bool) -> Iterator[int]:
        """One call that writes from `part`, likewise; BlockingIOError when not to wait and no room."""

    @abstractmethod
    def _close_fds(self) -> None:
        """Close the descriptors; called once."""

    # --- the interface of base.End ----------------------------------------------------------------------------------

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Write all of `data`; blocks while the stream is full. Raises PeerGone, TimedOut."""
        self._check("send")
        if type(data) is bytes:
            self._move("send", data, len(data), timeout_s)
        else:
            with byte_view(data) as view:
                self._move("send", view, len(view), timeout_s)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Fill the whole of `buffer` and return its length; blocks until that much came. Raises PeerGone, TimedOut."""
        self._check("recv")
        if type(buffer) is bytearray:
            size = len(buffer)
            self._move("recv", buffer, size, timeout_s)
        else:
            with byte_view(buffer, writable=True) as view:
                size = len(view)
                self._move("recv", view, size, timeout_s)
        return size

    def fileno(self) -> int:
        """The descriptor to wait on for bytes."""
        self._check("")
        return self._read_fd()

    def watch(self, pid: int) -> None:
        """Also notice the end of `pid`: needed only where a third process keeps the other end open."""
        self._check("")
        self._peer = Peer.instead_of(self._peer, pid)

    def native(self) -> NativeSpec:
        """By read(2) and write(2), which then wait in the call itself."""
        self._check("")
        return NativeSpec("stream", (self._read_fd(), self._write_fd()), None, watched(self._peer))

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
        if direction in self._torn:
            hint = "open a new link; the borders of messages are lost"
            raise IpclabError(f"{self._what}: {self._torn[direction]}", hint=hint)

    def _move(self, direction: str, whole: Bytes, size: int, timeout_s: float | None) -> None:
        """Read or write all of it; tear the direction when that ends between the first and the last byte."""
        moved: list[int] = []
        if direction == "send":
            self._sent = moved
        try:
            self._loop(direction == "recv", whole, size, timeout_s, moved)
        except BaseException as err:
            done = sum(moved)
            if not 0 < done < size:
                raise
            verb = "received" if direction == "recv" else "sent"
            torn = self._torn[direction] = f"the stream is broken: {done} of {size} bytes were {verb}"
            if isinstance(err, (TimedOut, PeerGone)):
                raise type(err)(f"{err.message}; {torn}", errno=err.errno, syscall=err.syscall) from err
            raise

    def _loop(self, reading: bool, whole: Bytes, size: int, timeout_s: float | None, moved: list[int]) -> None:
        wait = timeout_s is None and self._peer is None
        deadline: Deadline | None = None
        peer_gone = False
        done = 0
        while done < size:
            part = memoryview(whole)[done:] if done else whole
            try:
                # In C from the system call to the list: no signal handler can come between a call and its result.
                moved.extend(self._reading(part, wait) if reading else self._writing(part, wait))
            except BlockingIOError:
                if peer_gone:
                    raise PeerGone(f"{self._what}: the process on the other side has ended") from None
                deadline = deadline or Deadline(timeout_s)
                peer_gone = not self._wait(reading, deadline)
                continue
            except OSError as err:
                raise from_os_error(err, self._what, syscall="read" if reading else "write") from err
            if reading and not moved[-1]:
                raise PeerGone(f"{self._what}: the other side has closed its end", syscall="read")
            done += moved[-1]

    def _wait(self, reading: bool, deadline: Deadline) -> bool:
        if reading:
            return wait_ready(self._read_fd(), select.POLLIN, deadline, self._peer, f"{self._what}: recv")
        return wait_ready(self._write_fd(), select.POLLOUT, deadline, self._peer, f"{self._what}: send")


class PipeEnd(StreamEnd):
    """A byte stream over two one-way descriptors, as pipes and FIFOs have them. Owns both.

    O_NONBLOCK lives in the open file description, so nobody else may share these descriptors (see _cloakroom.py).
    SIGPIPE is ignored by Python; a program that has given it back its default action is ended by it, as pipe(7) says.
    """

    def __init__(self, read_fd: int, write_fd: int, what: str) -> None:
        super().__init__(what)
        self._in = read_fd
        self._out = write_fd
        self._in_waits: bool | None = None
        self._out_waits: bool | None = None

    def _read_fd(self) -> int:
        return self._in

    def _write_fd(self) -> int:
        return self._out

    def _reading(self, part: Bytes, wait: bool) -> Iterator[int]:
        if self._in_waits != wait:  # only then: it costs a system call
            os.set_blocking(self._in, wait)
            self._in_waits = wait
        return map(os.readv, (self._in,), ((part,),))

    def _writing(self, part: Bytes, wait: bool) -> Iterator[int]:
        self._let_wait(wait)
        return map(os.write, (self._out,), (part,))

    def _let_wait(self, wait: bool) -> None:
        """Whether a write to a full pipe waits or raises BlockingIOError."""
        if self._out_waits != wait:
            os.set_blocking(self._out, wait)
            self._out_waits = wait

    def _close_fds(self) -> None:
        os.close(self._in)
        os.close(self._out)

    @property
    def capacity_bytes(self) -> int:
        """Room of the pipe this end writes to, as the kernel gives it now (F_GETPIPE_SZ)."""
        self._check("")
        return fcntl.fcntl(self._out, fcntl.F_GETPIPE_SZ)

"""Where the two roles of a lane meet: a page of memory that both inherit.

They meet three times: when each has taken its side (so that it can watch the other's process), when both have warmed
up, and when both are done. It is a barrier in shared memory (core/sync.h), which costs nothing between the meetings:
no descriptor, no thread, no system call in the loop that is measured.

A role that fails breaks the barrier, so that the other one does not wait for it; a role that was killed cannot, so
whoever waits looks every WAIT_S whether the other process still lives.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import PeerGone, TimedOut
from ipclab.mechanisms.base import Peer, other

if TYPE_CHECKING:
    from types import TracebackType

    from ipclab.mechanisms.base import Side

#: Between two looks whether the other process still lives.
WAIT_S = 0.1

_BARRIER = 0
_PID = {"a": _core.BARRIER_SIZE, "b": _core.BARRIER_SIZE + 8}
_START = _core.BARRIER_SIZE + 16
_FAILED = _core.BARRIER_SIZE + 24


class Meeting:
    """The page. Made before the fork; each role calls `join` first."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = memoryview(self._page).cast("q")
        _core.barrier_init(self._page, _BARRIER, 2)
        self._side: Side = "a"
        self._peer: Peer | None = None

    def join(self, side: Side, deadline_ns: int) -> int:
        """Say who we are and wait for the other one; its pid. Raises PeerGone, TimedOut."""
        self._side = side
        self._words[_PID[side] // 8] = os.getpid()
        self.meet(deadline_ns)
        pid = self._words[_PID[other(side)] // 8]
        self._peer = Peer(pid)
        return pid

    def meet(self, deadline_ns: int) -> None:
        """Wait until the other one has come to the same point. Raises PeerGone, TimedOut."""
        while True:
            left_ns = deadline_ns - time.monotonic_ns()
            gone = self._peer is not None and self._peer.gone()
            try:
                _core.barrier_wait(self._page, _BARRIER, max(0, min(left_ns, int(WAIT_S * 1e9))))
                return
            except OSError as err:
                if err.errno == errno.EPIPE:
                    raise PeerGone("the other side has failed") from err
                if err.errno != errno.ETIMEDOUT:
                    raise
                if gone:
                    raise PeerGone("the process on the other side has ended") from err
                if left_ns <= 0:
                    raise TimedOut("the other side has not come to the meeting before the deadline") from err

    def fail(self) -> None:
        """Tell the other side that this one will not come any more."""
        self._words[_FAILED // 8] = 1
        _core.barrier_break(self._page, _BARRIER)

    def broken(self) -> bool:
        """Whether the other side has failed or died; never blocks."""
        return bool(self._words[_FAILED // 8]) or (self._peer is not None and self._peer.gone())

    def agree_on_start(self, deadline_ns: int, from_now_ns: int) -> int:
        """Meet, and return the moment that side a has proposed: the same on both sides."""
        if self._side == "a":
            self._words[_START // 8] = time.monotonic_ns() + from_now_ns
        self.meet(deadline_ns)
        return self._words[_START // 8]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what this process holds. Twice is allowed."""
        if self._peer is not None:
            self._peer.close()
        self._words.release()
        if not self._page.closed:
            self._page.close()

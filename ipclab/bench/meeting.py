"""Where the roles of a lane meet: a page of memory that all inherit. As a rule they are two; of a fan they are more.

They meet three times: when each has taken its side (so that it can watch the others), when all have warmed up, and
when all are done. It is a barrier in shared memory (core/sync.h), which costs nothing between the meetings:
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
from ipclab.mechanisms.base import Peer

if TYPE_CHECKING:
    from types import TracebackType

#: Between two looks whether the other process still lives.
WAIT_S = 0.1

_BARRIER = 0
_START = _core.BARRIER_SIZE
_FAILED = _core.BARRIER_SIZE + 8
#: From here on one word for each role: its pid.
_PIDS = _core.BARRIER_SIZE + 16


class Meeting:
    """The page. Made before the fork; each role calls `join` first."""

    def __init__(self, parties: int = 2) -> None:
        self.parties = parties
        self._page = mmap.mmap(-1, _PIDS + 8 * parties)
        self._words = memoryview(self._page).cast("q")
        _core.barrier_init(self._page, _BARRIER, parties)
        self._place = 0
        self._peers: list[Peer] = []

    def join(self, place: int, deadline_ns: int) -> tuple[int, ...]:
        """Say that this process is the one of that number, and wait for all; the others' pids. Raises PeerGone,
        TimedOut."""
        first = _PIDS // 8
        self._place = place
        self._words[first + place] = os.getpid()
        self.meet(deadline_ns)
        pids = tuple(self._words[first + each] for each in range(self.parties) if each != place)
        self._peers = [Peer(pid) for pid in pids]
        return pids

    def meet(self, deadline_ns: int) -> None:
        """Wait until the other one has come to the same point. Raises PeerGone, TimedOut."""
        while True:
            left_ns = deadline_ns - time.monotonic_ns()
            gone = self._any_gone()
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
        return bool(self._words[_FAILED // 8]) or self._any_gone()

    def _any_gone(self) -> bool:
        return any(peer.gone() for peer in self._peers)

    def agree_on_start(self, deadline_ns: int, from_now_ns: int) -> int:
        """Meet, and return the moment that the first role has proposed: the same for all."""
        if self._place == 0:
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
        for peer in self._peers:
            peer.close()
        self._words.release()
        if not self._page.closed:
            self._page.close()

"""The lane of a fan: both ends are taken before the fork, and each is used by several processes. See fan.py."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from ipclab.bench.fan import FanLoops
from ipclab.bench.python_driver import PythonLane, PythonPlayer, collector_off

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from ipclab.bench import loops
    from ipclab.bench.driver import Job
    from ipclab.bench.lane import Player, Turn
    from ipclab.bench.meeting import Meeting
    from ipclab.mechanisms.base import End, Link, Side
    from ipclab.records import Case


class FanLane(PythonLane):
    """One object with both its ends, and a meeting of all its users. Close it in the process that made it."""

    def __init__(self, link: Link, meeting: Meeting, case: Case) -> None:
        super().__init__(link, meeting, case)
        self._ends: dict[Side, End] = {}
        try:
            self._ends["a"] = link.take("a")
            self._ends["b"] = link.take("b")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close this process's own ends."""
        while self._ends:
            self._ends.popitem()[1].close()

    def take(self, side: Side) -> AbstractContextManager[Any]:
        """An end that others use too. It ends with the process: closing some kinds tells the other side of it."""
        return nullcontext(self._ends[side])

    def place(self, side: Side, job: Job) -> int:
        """Producers first."""
        return job.worker if side == "a" else self._case.producers + job.worker

    def share(self, side: Side, job: Job, count: int) -> int:
        """A consumer's part of what all producers send."""
        if side == "a":
            return count
        each, over = divmod(count * self._case.producers, self._case.consumers)
        return each + (job.worker < over)

    @contextmanager
    def player(self, end: Any, pids: tuple[int, ...], job: Job) -> Iterator[Player]:
        """One worker's loops."""
        with collector_off():
            yield _FanPlayer(end, self._meeting, FanLoops(self._case, job.worker))


class _FanPlayer(PythonPlayer):
    def __init__(self, end: End, meeting: Meeting, fan: FanLoops) -> None:
        super().__init__(end, meeting, None)
        self._shared = end
        self._fan = fan

    def _loop(self, turn: Turn, log: loops.Log) -> None:
        self._fan.run(self._shared, turn, log)

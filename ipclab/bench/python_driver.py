"""The python driver: the same work through a mechanism's Python interface, as a careful program would do it.

Methods are looked up once, buffers are made once, the garbage collector is off, messages are stamped and verified by
one C call each. What the loop itself costs is measured too (overheads.py).

A loop waits without time limits, because those make most mechanisms slower; so a timer signal ends it instead when the
deadline has come or the other process has gone: every TICK_S its handler looks, and raises. Run it in the main thread.
"""

from __future__ import annotations

import gc
import itertools
import math
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ipclab import _core
from ipclab.bench import links, loops
from ipclab.bench.driver import Job, SideResult
from ipclab.bench.lane import PairLane, Player, Turn, one_line
from ipclab.bench.meeting import Meeting
from ipclab.errors import IpclabError, Unavailable
from ipclab.mechanisms.base import Bell, Counters, End, Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from ipclab.records import Case

#: Between two looks at the clock and at the other process while a loop runs. Chosen: five signals a second cost nothing
#: that could be measured, and nobody waits long for a dead peer.
TICK_S = 0.2

#: What the kernel charges a receive buffer for a datagram beyond twice its bytes, at most.
DATAGRAM_COST_BYTES = 2304
#: Which part of that buffer is used: of what was read the kernel may go on charging a quarter (carrier_datagram.c).
WINDOW_SHARE = 0.75

PEER_LOST = "the other side has failed, or its process has ended"
NOT_COUNTED = "Python's interface does not count them"


class PythonDriver:
    """Drives by End.send and End.recv_into, or Bell.ring and Bell.wait."""

    name = "python"

    def __init__(self, find: links.Find = links.find) -> None:
        self._find = find

    def cost_free_reason(self, case: Case) -> str | None:
        """See Driver."""
        return links.obstacle(self._find, case)

    @contextmanager
    def open(self, case: Case) -> Iterator[PairLane]:
        """The kernel objects of one pair, or of one fan."""
        if (case.producers, case.consumers) != (1, 1):
            with self._open_fan(case) as lane:
                yield lane
            return
        with Meeting() as meeting, links.open_medium(self._find(case.mechanism), case) as link:
            yield PythonLane(link, meeting, case)

    @contextmanager
    def _open_fan(self, case: Case) -> Iterator[PairLane]:
        from ipclab.bench.fan_lane import FanLane

        with Meeting(case.producers + case.consumers) as meeting:
            with links.open_medium(self._find(case.mechanism), case) as link:
                if not isinstance(link, Link):
                    raise Unavailable(f"{case.mechanism} carries no data")
                lane = FanLane(link, meeting, case)
                try:
                    yield lane
                finally:
                    lane.close()


class PythonLane(PairLane):
    """One pair, driven by Python's loops."""

    @contextmanager
    def player(self, end: Any, pids: tuple[int, ...], job: Job) -> Iterator[Player]:
        """Loops over this end, with the garbage collector off."""
        window = None
        if getattr(self._link, "lossy", False):
            room = int(end.buffer_bytes * WINDOW_SHARE)
            window = max(2, room // (2 * job.case.size_bytes + DATAGRAM_COST_BYTES))
        with collector_off():
            yield PythonPlayer(end, self._meeting, window)


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection in this block: a look at all objects would be charged to whichever message meets it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Stop(KeyboardInterrupt):
    """Raised by the timer's handler in the middle of a loop. `reason` is empty when the deadline has come.

    A KeyboardInterrupt, because posix_ipc loses whatever else a handler raises while it waits.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def ticking(deadline_ns: int, meeting: Meeting) -> Iterator[None]:
    """Raise Stop in this block when the deadline has come, or when the other side has failed or died."""

    def look(_signo: int, _frame: object) -> None:
        if time.monotonic_ns() >= deadline_ns:
            raise Stop
        if meeting.broken():
            raise Stop(PEER_LOST)

    before = signal.signal(signal.SIGALRM, look)
    try:
        signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class PythonPlayer(Player):
    """Loops over an End or a Bell."""

    def __init__(self, end: End | Bell, meeting: Meeting, window: int | None) -> None:
        self._end = end
        self._meeting = meeting
        self._window = window

    def play(self, turn: Turn) -> SideResult:
        """See Player."""
        log = loops.Log(turn.first)
        before = self._counters()
        error = ""
        try:
            with ticking(turn.deadline_ns, self._meeting):
                self._loop(turn, log)
        except Stop as stop:
            error = stop.reason
        except (IpclabError, OSError, EOFError) as err:
            error = one_line(err)
        return _result(log, error, turn, _between(before, self._counters()))

    def _counters(self) -> Counters | None:
        return None if isinstance(self._end, Bell) else self._end.counters()

    def _loop(self, turn: Turn, log: loops.Log) -> None:
        end, size, first, count = self._end, turn.size_bytes, turn.first, turn.count
        sends = turn.side == "a"
        if isinstance(end, Bell):
            (loops.ring_first if sends else loops.ring_back)(end, count, log)
        elif turn.pattern == "pingpong":
            (loops.ping if sends else loops.pong)(end, size, first, count, log)
        elif turn.pattern == "openloop":
            (loops.send_on_schedule if sends else loops.receive_on_schedule)(end, turn, log)
        elif self._window is not None:
            one_way = loops.send_in_windows if sends else loops.receive_in_windows
            one_way(end, size, first, count, log, self._window)
        else:
            (loops.send if sends else loops.receive)(end, size, first, count, log)


def _between(before: Counters | None, after: Counters | None) -> Counters | None:
    if before is None or after is None:
        return None
    return Counters(*(late - early for early, late in zip(before, after, strict=True)))


def _result(log: loops.Log, error: str, turn: Turn, spent: Counters | None) -> SideResult:
    recorded = log.histogram if turn.measured and log.histogram.count else None
    return SideResult(
        duration_ns=log.duration_ns,
        messages=log.messages,
        histogram=recorded.buckets() if recorded else None,
        max_ns=recorded.max if recorded else None,
        system_calls=None if spent is None else spent.system_calls,
        system_calls_reason=NOT_COUNTED if spent is None else "",
        sleeps=None if spent is None else spent.sleeps,
        wakes=None if spent is None else spent.wakes,
        bad_sequence=log.bad_sequence,
        error=error,
    )


def overhead_ns(size_bytes: int = 64, count: int = 2000) -> float:
    """What the receiver's loop costs a message beyond the mechanism's own call: verification, comparison, counting.

    The loop as it is, over an end that only stamps its buffer, less the bare calls of that end. The least of a few
    turns; takes some 5 ms.
    """
    end = _StampingEnd(size_bytes)
    whole_ns = bare_ns = math.inf
    for _ in range(5):
        end.reset()
        log = loops.Log(0)
        loops.receive(end, size_bytes, 0, count + 1, log)
        assert log.messages == count + 1, "the loop has refused a right message"
        whole_ns = min(whole_ns, log.duration_ns)
        end.reset()
        bare_ns = min(bare_ns, _bare_calls_ns(end, size_bytes, count))
    return round((whole_ns - bare_ns) / count, 1)


def _bare_calls_ns(end: End, size_bytes: int, count: int) -> int:
    take, buffer, everyone = end.recv_into, bytearray(size_bytes), [None] * count
    begin_ns = time.monotonic_ns()
    for _ in everyone:
        take(buffer)
    return time.monotonic_ns() - begin_ns


class _StampingEnd(End):
    """Hands out the right message without any mechanism."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self.reset()

    def reset(self) -> None:
        """Begin with message 0 again."""
        self._numbers = itertools.count()
        self._filled: Any = None

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Nothing."""

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        if buffer is not self._filled:
            _core.message_fill(buffer)
            self._filled = buffer
        _core.message_stamp(buffer, next(self._numbers))
        return self._size

    def close(self) -> None:
        """Nothing."""


DRIVER = PythonDriver()

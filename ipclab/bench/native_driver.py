"""The native driver: the loops run in the C core, without the GIL, over what a link's End hands out.

One loop serves every mechanism whose descriptors can be read and written, and one each the others (core/loops.h,
core/carrier.h). Beside the time they count system calls, sleeps and wake-ups.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ipclab import _core
from ipclab.bench import links
from ipclab.bench.driver import Job, SideResult
from ipclab.bench.lane import PairLane, Player, Turn
from ipclab.bench.meeting import Meeting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipclab.records import Case

#: How long before a message is due the scheduled sender stops sleeping: longer than a timer is late.
SPIN_NS = 150_000


#: What a loop did that could not begin.
NOTHING = SideResult(duration_ns=0, messages=0, system_calls=0, sleeps=0, wakes=0)


class NativeDriver:
    """Drives by `_core.Carrier`."""

    name = "native"

    def __init__(self, find: links.Find = links.find) -> None:
        self._find = find

    def cost_free_reason(self, case: Case) -> str | None:
        """See Driver; also: what only a library can do has no native loop."""
        return links.obstacle(self._find, case, native=True)

    @contextmanager
    def open(self, case: Case) -> Iterator[NativeLane]:
        """The kernel objects of one pair."""
        with Meeting() as meeting, links.open_medium(self._find(case.mechanism), case) as link:
            yield NativeLane(link, meeting, case)


class NativeLane(PairLane):
    """One pair, driven by the C core."""

    @contextmanager
    def player(self, end: Any, pids: tuple[int, ...], job: Job) -> Iterator[NativePlayer]:
        """A carrier over this end, closed before it."""
        end.watch(*pids)
        carrier = _core.Carrier(*end.native())
        try:
            yield NativePlayer(carrier)
        finally:
            carrier.close()


class NativePlayer(Player):
    """One side's loops."""

    def __init__(self, carrier: _core.Carrier) -> None:
        self._carrier = carrier

    def play(self, turn: Turn) -> SideResult:
        """See Player. An error of the mechanism is in the result, with what was done until then."""
        histogram = _core.Histogram() if turn.measured else None
        counts: _core.Counts | SideResult
        try:
            counts, error = self._loop(turn, histogram), ""
        except OSError as err:
            counts = getattr(err, "counts", NOTHING)
            error = _explain(err)
        recorded = histogram if histogram is not None and histogram.count else None
        return SideResult(
            duration_ns=counts.duration_ns,
            messages=counts.messages,
            histogram=recorded.buckets() if recorded else None,
            max_ns=recorded.max if recorded else None,
            system_calls=counts.system_calls,
            sleeps=counts.sleeps,
            wakes=counts.wakes,
            bad_sequence=counts.bad_sequence,
            error=error,
        )

    def _loop(self, turn: Turn, histogram: _core.Histogram | None) -> _core.Counts:
        carrier, size, count, first, until = self._carrier, turn.size_bytes, turn.count, turn.first, turn.deadline_ns
        sends = turn.side == "a"
        if turn.pattern == "pingpong":
            if sends:
                return carrier.ping(size, count, histogram, deadline_ns=until, first=first)
            return carrier.pong(size, count, deadline_ns=until, first=first)
        if turn.pattern == "throughput":
            return (carrier.send if sends else carrier.receive)(size, count, first, until)
        start_ns, interval_ns = turn.start_ns, turn.interval_ns
        if sends:
            spin_ns = 0 if turn.together else SPIN_NS
            return carrier.send_on_schedule(size, count, start_ns, interval_ns, first, until, spin_ns)
        histogram = histogram or _core.Histogram()
        return carrier.receive_on_schedule(size, count, start_ns, interval_ns, histogram, first, until)


def _explain(err: OSError) -> str:
    call = getattr(err, "syscall", None)
    return f"{os.strerror(err.errno) if err.errno else err}" + (f" ({call})" if call else "")


DRIVER = NativeDriver()

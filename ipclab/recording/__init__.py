"""Instruments under the tracker: what runs, and what states its processes are in meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec

from ipclab.demos import running
from ipclab.records import Demo, DemoRun, Interval, Recording
from ipclab.states import Tracker

#: Processes and threads of the house that every demo has and that are no roles: their names begin so.
HIDDEN = ("ipclab-",)


@contextlib.contextmanager
def of_demo(demo: Demo, write: Callable[[bytes], object]) -> Iterator[tuple[DemoRun, Recording, Iterator[Interval]]]:
    """Run a demo as demos.running does, with the tracker on it and on all of its processes; `poll` is all it needs.

    Roles are known by their names: each role has its own as comm. The intervals can be read while the block runs.
    """
    with contextlib.ExitStack() as ends:
        trackers: list[Tracker] = []

        def track(pid: int) -> None:
            trackers.append(ends.enter_context(Tracker([pid], source="poll")))

        run = running.run(demo, write, on_start=track)
        (tracker,) = trackers
        tracker.stop()
        head = tracker.recording()
        yield msgspec.structs.replace(run, recording=head), head, tracker.intervals()

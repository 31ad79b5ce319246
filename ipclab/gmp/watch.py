"""Following a run that is held open: what its Ms have done so far, and waiting until they have done something."""

from __future__ import annotations

import time
from collections.abc import Callable

from ipclab.errors import IpclabError
from ipclab.gmp.sim import Simulation
from ipclab.records.gmp import SchedEvent


class Watch:
    """The events of a Simulation, as they come. Nobody else may read them meanwhile.

    with Simulation(workload, procs=1, events=True) as sim:
        watch = Watch(sim)
        if watch.until(lambda: watch.of("retake")):
            m = watch.of("retake")[0].m
    """

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        #: In the order of their time.
        self.events: list[SchedEvent] = []
        #: When the scheduler started; ns of CLOCK_MONOTONIC.
        self.start_ns = sim.snapshot(0).sched["starttime"]

    def of(self, *kinds: str, m: int | None = None, goid: int | None = None) -> list[SchedEvent]:
        """Those of these kinds, by this M, about this G."""
        return [
            event
            for event in self.events
            if event.kind in kinds and (m is None or event.m == m) and (goid is None or event.goid == goid)
        ]

    def until(self, found: Callable[[], object], timeout_s: float = 20.0) -> bool:
        """Wait until that is true of what has been seen; False: the time is over, or the run has ended without it.

        Raises IpclabError when there was no room, or no process, for what the run needs.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self._sim.wait(0.01, on_event=self.events.append)
            self._take()
            self._check()
            if found():
                return True
            if ended or time.monotonic() >= deadline:
                return False

    def to_the_end(self, timeout_s: float = 20.0) -> bool:
        """Wait until the run has ended, and take what its Ms wrote last; False: the time is over. Raises as `until`."""
        ended = self._sim.wait(timeout_s, on_event=self.events.append)
        self._take()
        self._check()
        return ended

    def _check(self) -> None:
        if why := self._sim.cut_short():
            raise IpclabError(f"the run was cut short: {why}", hint="fewer Gs at a time, or `ulimit -u`")

    def _take(self) -> None:
        self.events += self._sim.read_events()
        self.events.sort(key=lambda event: event.time_ns)

"""gmp-stw: a serial task with the world stopped; then fewer Ps, and more again.

    python demos/gmp_stw.py        (or: ipclab demo gmp-stw)

Look at: what "the world is stopped" means. Every P is taken: from idle Ps and those in a system call at once, from
running Ms when they notice (they are asked by a signal). When the last one has come to _Pgcstop, the stopper is
alone: it may do what cannot be done while others run, such as changing the number of Ps (procresize). A P that is too
many becomes _Pdead, and its Gs move to the global queue: none is lost. It is never freed: an M may still hold its
number.
Go: stopTheWorldWithSema, startTheWorldWithSema, procresize in proc.go
"""

from __future__ import annotations

import sys

from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import SchedEvent
from ipclab.records.event_text import P_STATUS, detail, line

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

GS, BEFORE, FEWER, MORE = 40, 4, 2, 3
WORK = Workload(
    title="busy, and two serial tasks",
    channels={"begin": 0},
    jobs=[
        Job("busy", [Block(repeat=10, steps=["compute 500us", "yield"])], count=GS),
        Job("serial", ["yield", f"stopworld 5ms {FEWER}", "yield", f"stopworld 5ms {MORE}"]),
    ],
)


def main() -> int:
    with Stage("gmp-stw", "What does it take to be alone, and what becomes of a P that is too many?") as stage:
        with Simulation(WORK, procs=BEFORE, events=True) as sim:
            watch = Watch(sim)
            stage.check(watch.to_the_end(), f"the run is over: {BEFORE} Ps at its start, {MORE} at its end")
            result, seen = sim.result(), sim.snapshot()
        stops = list(zip(watch.of("stw start"), watch.of("stw end"), strict=False))
        if stage.check(len(stops) == 2, "the world was stopped twice, and started again"):
            for number, (start, end) in enumerate(stops):
                tell(stage, watch, start, end, "fewer Ps" if number == 0 else "one more P")
        stage.scene("Afterwards")
        first, second = (changes(watch, start, end) for start, end in stops)
        stage.check(dead(first) == set(range(FEWER, BEFORE)), f"P{FEWER} to P{BEFORE - 1} became _Pdead")
        back = {p for p, old, new in second if old == "_Pdead"}
        stage.check(back == set(range(FEWER, MORE)), f"P{FEWER} came back from _Pdead: the record had been kept")
        alive = [p.id for p in seen.ps if p.status != "_Pdead"]
        stage.check(seen.sched["gomaxprocs"] == len(alive) == MORE, f"{MORE} Ps are in use now")
        busy = next(job for job in result.jobs if job.name == "busy")
        stage.check(busy.done == GS, f"all {GS} Gs have ended: those of a dead P went to the global queue")
        stage.verdict("whoever stops the world waits until every P is in _Pgcstop; then he may change their number")
    return stage.exit_code


def tell(stage: Stage, watch: Watch, start: SchedEvent, end: SchedEvent, title: str) -> None:
    stage.scene(f"The world stops for a serial task, then {title}")
    for event in watch.events:
        if start.time_ns <= event.time_ns <= end.time_ns and event.kind in ("stw start", "stw end", "P status"):
            stage.say(line(event, watch.start_ns))
    freed = next(e for e in watch.of("P status", m=start.m) if e.time_ns > start.time_ns and is_start(e))
    stopped = [e for e in watch.events if start.time_ns < e.time_ns < freed.time_ns and is_stop(e)]
    alone = stopped[-1].time_ns if stopped else start.time_ns
    stage.check(
        bool(stopped),
        f"{len(stopped)} Ps came to _Pgcstop: M{start.m} is alone after {(alone - start.time_ns) / 1e3:.0f} us",
    )
    ran = [e for e in watch.of("start") if alone < e.time_ns < freed.time_ns]
    stage.check(not ran, f"for the {(freed.time_ns - alone) / 1e6:.1f} ms from then on nobody started a G")


def is_stop(event: SchedEvent) -> bool:
    return event.kind == "P status" and detail(event).endswith("-> _Pgcstop") and "_Pdead" not in detail(event)


def is_start(event: SchedEvent) -> bool:
    """The stopper lets a P go again, takes one away for good, or brings one back."""
    return event.arg >> 8 & 0xFF in (3, 4) or event.arg & 0xFF == 4


def changes(watch: Watch, start: SchedEvent, end: SchedEvent) -> list[tuple[int, str, str]]:
    """(P, from, to) for each change of a P's state while the world was stopped, or was being started."""
    statuses = [e for e in watch.of("P status", m=start.m) if start.time_ns <= e.time_ns <= end.time_ns]
    return [(e.arg >> 32, P_STATUS[e.arg >> 8 & 0xFF], P_STATUS[e.arg & 0xFF]) for e in statuses]


def dead(changed: list[tuple[int, str, str]]) -> set[int]:
    return {p for p, _old, new in changed if new == "_Pdead"}


if __name__ == "__main__":
    sys.exit(main())

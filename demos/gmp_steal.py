"""gmp-steal: one P has all the work, another has none; who takes what from whom.

    python demos/gmp_steal.py        (or: ipclab demo gmp-steal)

Look at: an M without work spins: it goes four times over all Ps, in an order drawn by lot that meets each one once. It
takes half of the first queue that is not empty, rounded up, and runs the last of them; the rest is its P's queue from
then on. What a P keeps in `runnext` is taken in the fourth pass alone: its owner would have run it in a moment.
Go: stealWork, runqsteal, runqgrab in proc.go. The core's: ipclab/core/gmp/runq.c
"""

from __future__ import annotations

import sys

from ipclab.gmp import Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import SchedEvent
from ipclab.records.event_text import line, stolen

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

MANY = 41
#: Of the steals.
SHOWN = 10
#: The parent makes them in a moment and computes on, so that they lie in its own P's queue.
FULL = Workload(
    title="one P has all the work",
    jobs=[Job("parent", [f"spawn child {MANY}", "compute 300ms"]), Job("child", ["compute 1ms"], count=0)],
)
RUNNEXT = Workload(
    title="one G in runnext",
    jobs=[Job("parent", ["spawn child", "compute 300ms"]), Job("child", ["compute 1ms"], count=0)],
)


def main() -> int:
    with Stage("gmp-steal", "A P has nothing to run: from whom does it take, and how much?") as stage:
        half(stage)
        runnext(stage)
        stage.verdict(
            "half of a queue, rounded up, from the first P that has one; runnext only when there is nothing else"
        )
    return stage.exit_code


def half(stage: Stage) -> None:
    stage.scene(f"P with {MANY} Gs in its queue, and P with none")
    watch = run(stage, FULL)
    steals = watch.of("steal")
    if not stage.check(bool(steals), f"steals: {len(steals)}"):
        return
    for event in watch.events:
        if event.time_ns <= steals[0].time_ns and event.kind in (
            "wakep",
            "new M",
            "M start",
            "spin",
            "acquirep",
            "steal",
        ):
            stage.say(line(event, watch.start_ns))
    for event in steals[1:SHOWN]:
        stage.say(line(event, watch.start_ns))
    if len(steals) > SHOWN:
        stage.say(f"... and {len(steals) - SHOWN} more")
    big = max(steals, key=amount)
    foreign = all(stolen(event).victim != event.p for event in steals)
    stage.check(foreign, "each was from another P than the thief's own")
    stage.check(1 < amount(big) <= (MANY + 1) // 2, f"the largest took {amount(big)} at once: half of what was there")
    moved = {event.m for event in watch.of("end")}
    stage.check(len(moved) > 1, f"the Gs ended in {len(moved)} Ms: {', '.join(f'M{m}' for m in sorted(moved))}")


def runnext(stage: Stage) -> None:
    stage.scene("A P with one G in runnext, which computes on; and a P with none")
    watch = run(stage, RUNNEXT)
    child = max(event.goid for event in watch.of("create"))
    steals = watch.of("steal", goid=child)
    for event in [*watch.of("create", goid=child), *steals, *watch.of("start", "end", goid=child)]:
        stage.say(line(event, watch.start_ns))
    stage.check([amount(event) for event in steals] == [1], f"G{child} alone was taken: it had stood in runnext")
    stage.check(all(stolen(event).attempt == 4 for event in steals), "in the last of four passes: not before")
    parents = [event for event in watch.of("start") if event.goid != child]
    started = watch.of("start", goid=child)
    stage.check(started[0].m != parents[-1].m, "and it ran in another M while the one that made it computed on")


def amount(event: SchedEvent) -> int:
    return stolen(event).taken


def run(stage: Stage, workload: Workload) -> Watch:
    with Simulation(workload, procs=2, events=True, preempt=False) as sim:
        watch = Watch(sim)
        stage.check(watch.to_the_end() and sim.result().ok, "all have ended")
    return watch


if __name__ == "__main__":
    sys.exit(main())

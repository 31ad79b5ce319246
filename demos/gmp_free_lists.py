"""gmp-free-lists: a G that has ended leaves its record for the next one; where it lies until then.

    python demos/gmp_free_lists.py        (or: ipclab demo gmp-free-lists)

Look at: the number of records (allglen), which grows only when both lists are empty; and the two lists. Each P keeps
dead Gs of its own, so that `go` and the end of a G need no lock. With 64 it keeps 31 and gives the others to sched,
from where another P takes up to 32 at once. The goid is new each time: it is the record that is used again.
Go: gfput, gfget in proc.go. The core's: ipclab/core/gmp/gfree.c
"""

from __future__ import annotations

import sys

from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import SchedSnapshot

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

FEW, MANY = 40, 100
HOLD = "sleep 60s"  # the run is ended when it has been looked at


def main() -> int:
    with Stage("gmp-free-lists", "Where is the record of a G that has ended?") as stage:
        few(stage)
        many(stage)
        again(stage)
        another_p(stage)
        stage.verdict("dead Gs wait in their P's list, from 64 on in the scheduler's, and are taken from there again")
    return stage.exit_code


def born_and_dead(*steps: str | Block) -> Workload:
    return Workload(title="born and dead", jobs=[Job("parent", [*steps, HOLD]), Job("child", ["exit"], count=0)])


def few(stage: Stage) -> None:
    stage.scene(f"{FEW} Gs end, with one P")
    seen = after(stage, born_and_dead(f"spawn child {FEW}"), FEW)
    p, sched = lists(stage, seen)
    stage.check(p >= FEW and sched == 0, "all lie in the list of P0; that needed no lock")


def many(stage: Stage) -> None:
    stage.scene(f"{MANY} Gs end, with one P")
    seen = after(stage, born_and_dead(f"spawn child {MANY}"), MANY)
    p, sched = lists(stage, seen)
    stage.check(p < 64 and sched > 0, "with 64 the P kept 31: the others lie in the scheduler's list")
    stage.check(p + sched >= MANY, "together they are all that ended")


def again(stage: Stage) -> None:
    stage.scene(f"{MANY} Gs end, and {MANY} more are made and end, three times")
    seen = after(stage, born_and_dead(Block(repeat=4, steps=[f"spawn child {MANY}", "sleep 1ms"])), 4 * MANY)
    lists(stage, seen)
    records, goid = len(seen.gs), max(g.goid for g in seen.gs)
    stage.check(records < 2 * MANY, f"{4 * MANY} Gs have lived in {records} records")
    stage.check(goid > 4 * MANY, f"each had a goid of its own: the last is {goid}")


def another_p(stage: Stage) -> None:
    stage.scene("Another P takes from the scheduler's list")
    pair = Workload(
        title="two parents",
        jobs=[
            Job(
                "parent",
                [f"spawn child {MANY}", "sleep 5ms", Block(repeat=200, steps=["spawn child", "compute 2ms"]), HOLD],
            ),
            Job("rival", ["sleep 5ms", Block(repeat=200, steps=["spawn child", "compute 2ms"]), HOLD]),
            Job("child", ["exit"], count=0),
        ],
    )
    with Simulation(pair, procs=2, events=True) as sim:
        watch = Watch(sim)
        both = watch.until(lambda: len({e.p for e in watch.of("end")}) == 2 and all(p.gfree for p in sim.snapshot().ps))
        seen = sim.snapshot()
    stage.say(f"P0 has {seen.ps[0].gfree} dead Gs, P1 has {seen.ps[1].gfree}")
    stage.check(both, "both have some")
    stage.check(
        len(seen.gs) < 2 * MANY, f"there are {len(seen.gs)} records: what a P lacked it took from the list of sched"
    )


def after(stage: Stage, workload: Workload, ends: int) -> SchedSnapshot:
    """What there is when so many have ended and everybody sleeps."""
    with Simulation(workload, procs=1, events=True) as sim:
        watch = Watch(sim)
        rest = watch.until(lambda: len(watch.of("end")) > ends and watch.of("start", "park")[-1].kind == "park")
        stage.check(rest, f"{ends} have ended, and main, which made the parent")
        return sim.snapshot()


def lists(stage: Stage, seen: SchedSnapshot) -> tuple[int, int]:
    own, common = seen.ps[0].gfree, seen.sched["gFreeN"]
    stage.say(f"P0 keeps {own} dead Gs, sched {common}; there are {len(seen.gs)} records of Gs in all")
    return own, common


if __name__ == "__main__":
    sys.exit(main())

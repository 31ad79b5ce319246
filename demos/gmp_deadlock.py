"""gmp-deadlock: all goroutines are asleep - and when that is a deadlock, and when it is not.

    python demos/gmp_deadlock.py        (or: ipclab demo gmp-deadlock)

Look at: the same question asked three times, "does anybody run?". It is asked whenever an M goes to sleep. In the
first run nobody does and nothing will wake anybody: the run ends and names every G with what it waits for. In the
second one a timer is set, in the third a G is in the kernel: both times somebody will come back, and the run ends
well.
Go: checkdead in proc.go. The core's: ipclab/core/gmp/deadlock.c
"""

from __future__ import annotations

import sys

from ipclab.gmp import Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import SimResult
from ipclab.records.event_text import line

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

REASONS = {"reader": "chan receive", "writer": "chan send", "second": "sync.Mutex.Lock", "first": "sync.WaitGroup.Wait"}
DEADLOCK = Workload(
    title="deadlock",
    channels={"empty": 0, "full": 1},
    mutexes=["door"],
    waitgroups=["all"],
    jobs=[
        Job("reader", ["recv empty"]),
        Job("writer", ["send full 1", "send full 2"]),
        Job("first", ["lock door", "add all", "spawn second", "wait all", "unlock door"]),
        Job("second", ["lock door", "done all", "unlock door"], count=0),
    ],
)
PAUSE = "300ms"  # time enough for the others to fall asleep on a busy machine


def main() -> int:
    with Stage("gmp-deadlock", "All goroutines are asleep: when is that a deadlock?") as stage:
        deadlock(stage)
        someone_comes_back(stage, "A timer is set", f"sleep {PAUSE}")
        someone_comes_back(stage, "A G is in the kernel", f"blocking {PAUSE}")
        stage.verdict(
            "it is one when nobody runs, no timer is set and no G is in a system call: then nothing can change"
        )
    return stage.exit_code


def deadlock(stage: Stage) -> None:
    stage.scene("Four Gs wait for each other")
    result, asleep = run(stage, DEADLOCK)
    stage.check(result.outcome == "deadlock", f"the run ended: fatal error: {result.message}")
    for g in result.waiting:
        stage.say(f"goroutine {g.goid} [{g.reason}]: {g.job} at {g.step!r}, made by {g.parent_job}")
    stage.check({g.job: g.reason for g in result.waiting} == REASONS, "each is listed, with what it waits for")
    stage.check(asleep > 0, "the M that found it had nothing to run and was about to sleep like the others")


def someone_comes_back(stage: Stage, title: str, pause: str) -> None:
    stage.scene(title)
    workload = Workload(
        title="no deadlock",
        channels={"empty": 0},
        jobs=[Job("reader", ["recv empty"]), Job("late", [pause, "send empty"])],
    )
    result, asleep = run(stage, workload)
    stage.check(asleep > 0, f"while `{pause}` lasted, the reader waited and an M slept")
    stage.check(result.ok, "it was no deadlock: the reader got its value, all Gs have ended")


def run(stage: Stage, workload: Workload) -> tuple[SimResult, int]:
    """Its result, and how often an M went to sleep; the last events are told."""
    with Simulation(workload, procs=1, events=True) as sim:
        watch = Watch(sim)
        watch.to_the_end()
        result = sim.result()
        for event in watch.of("block", "unblock", "syscall enter", "syscall exit", "end", "park")[-12:]:
            stage.say(line(event, watch.start_ns))
        return result, len(watch.of("park"))


if __name__ == "__main__":
    sys.exit(main())

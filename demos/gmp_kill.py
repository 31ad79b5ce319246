"""gmp-kill: kill -9 of an M in the middle of its work; one G is lost, and everybody else goes on.

    python demos/gmp_kill.py        (or: ipclab demo gmp-kill)

Look at: who notices (the template: it made the M, and the kernel tells it of its child's death), what it does (nobody
may touch shared state meanwhile; queues and counts are rebuilt from allgs, the list of all Gs), and what is lost: the
G that was running, because its state was in a process that is no more. Every other G is a record in shared memory,
which dies with nobody.
Go has nothing like it: a thread does not die alone. The core's: ipclab/core/gmp/repair.c
"""

from __future__ import annotations

import os
import signal
import sys
import time

from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage, procfs

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

SMALL = 300
WORK = Workload(
    title="one long, many small",
    jobs=[
        Job("long", ["compute 100s"]),
        Job("small", [Block(repeat=3, steps=["compute 100us", "yield"])], count=SMALL),
    ],
)
WAITING = Workload(title="all wait", jobs=[Job("sleeper", ["sleep 500ms"], count=20)])


def main() -> int:
    with Stage("gmp-kill", "An M dies in the middle of its work: what is lost?") as stage:
        while_it_runs(stage)
        while_it_sleeps(stage)
        stage.verdict("a death costs the G that the dead M was running; queues, Ps and all other Gs go on in other Ms")
    return stage.exit_code


def while_it_runs(stage: Stage) -> None:
    stage.scene("kill -9 of the M that runs the long G")
    with Simulation(WORK, procs=2, events=True, preempt=False) as sim:
        watch = Watch(sim)
        goid = 2  # main, which makes the others, is 1
        if not stage.check(watch.until(lambda: watch.of("start", goid=goid)), f"G{goid} runs; it would for 100 s"):
            return
        victim = watch.of("start", goid=goid)[0]
        pid = sim.ms()[victim.m]
        stage.say(f"it runs in M{victim.m}, process {pid}, with P{victim.p}; state {procfs.state(pid)}")
        kill(stage, pid, sim.template_pid)
        stage.check(watch.to_the_end(), "the run came to its end without it")
        result = sim.result()
    small = next(job for job in result.jobs if job.name == "small")
    stage.check(
        result.lost_goids == (goid,), f"lost: {', '.join(f'G{lost}' for lost in result.lost_goids)}, and no other"
    )
    stage.check((small.done, small.lost) == (SMALL, 0), f"{small.done} of {SMALL} small ones ended, each once")
    ends = [event.goid for event in watch.of("end")]
    stage.check(len(ends) == len(set(ends)), "no G ended twice")
    totals = result.totals
    stage.check((totals.deaths, totals.repairs) == (1, 1), "one death, one repair; it is over in the time told here:")
    stage.say(f"the world stood still for {totals.longest_repair_ns / 1e6:.2f} ms")


def while_it_sleeps(stage: Stage) -> None:
    stage.scene("kill -9 of every M that sleeps, while all Gs wait for their timers")
    with Simulation(WAITING, procs=2, events=True) as sim:
        watch = Watch(sim)
        stage.check(watch.until(lambda: len(watch.of("block")) >= 20), "20 Gs wait; no M runs one")
        sysmon = sim.sysmon_pid()
        for m, pid in sim.ms().items():
            if pid != sysmon:
                stage.say(f"M{m} is process {pid}")
                kill(stage, pid, sim.template_pid)
        stage.check(watch.to_the_end(), "their timers went off all the same, in an M that was made for it")
        result = sim.result()
    stage.check(result.ok, f"no G was lost; {result.totals.deaths} Ms were, {result.totals.ms_made} were made in all")


def kill(stage: Stage, pid: int, template: int) -> None:
    stage.check(procfs.parent(pid) == template, f"its parent is the template, process {template}")
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 20
    while procfs.state(pid) != "X" and time.monotonic() < until:
        time.sleep(0.001)
    stage.check(procfs.state(pid) == "X", f"process {pid} is dead, and reaped")


if __name__ == "__main__":
    sys.exit(main())

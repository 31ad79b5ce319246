"""gmp-procs: the same load with 1, 2, 4 and 8 Ps: why there are as many as CPUs.

    python demos/gmp_procs.py        (or: ipclab demo gmp-procs)

Look at: how long it takes, and how often the kernel took a CPU away from an M that wanted to go on. Fewer Ps than
CPUs leave CPUs idle. More Ps do not make CPUs: the kernel shares them out by turns, each turn costs a switch, and a
G's place in the queue no longer says when it runs. So the default is what this process may use: the CPUs of its
affinity mask, and no more than its cgroup's quota, rounded up.
Go: GOMAXPROCS, procresize in proc.go; since 1.25 it reads the cgroup's quota, too
"""

from __future__ import annotations

import os
import sys

from ipclab import gmp
from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import SimTotals

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

GS, MS_EACH = 32, 8
LOAD = Workload(
    title="load", jobs=[Job("worker", [Block(repeat=4, steps=[f"compute {MS_EACH // 4}ms", "yield"])], count=GS)]
)
PROCS = (1, 2, 4, 8)


def main() -> int:
    with Stage("gmp-procs", "How many Ps are right?") as stage:
        usable, default = len(os.sched_getaffinity(0)), gmp.cpus()
        here = many(os.cpu_count() or 0, "CPU")
        stage.say(f"{here} here, {usable} in this process's affinity mask; with the quota: {default}")
        stage.check(1 <= default <= usable, f"the default is {many(default, 'P')}: no more than may run at once")
        rows = []
        for procs in PROCS:
            with Simulation(LOAD, procs=procs, events=True) as sim:
                watch = Watch(sim)
                stage.check(watch.to_the_end() and sim.result().ok, f"with {procs}: all {GS} Gs have ended")
                result = sim.result()
            most = at_once(watch)
            stage.check(most <= procs, f"at most {many(most, 'G')} ran at once: a P each")
            rows.append((procs, result.duration_ns, result.totals))
        table(stage, rows)
        told = f"{GS * MS_EACH} ms of work on {many(default, 'CPU')}: more Ps than CPUs only wait for each other"
        stage.verdict(told)
    return stage.exit_code


def many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def table(stage: Stage, rows: list[tuple[int, int, SimTotals]]) -> None:
    stage.scene("Side by side, as observed")
    stage.say(" Ps   elapsed   CPU used   Ms made   switches by the scheduler   CPU taken away by the kernel")
    for procs, duration_ns, totals in rows:
        cpu_ns = totals.cpu_user_ns + totals.cpu_system_ns
        stage.say(
            f"{procs:>3} {duration_ns / 1e6:>6.0f} ms {cpu_ns / 1e6:>7.0f} ms {totals.ms_made:>9}"
            f" {totals.context_switches:>27} {totals.kernel_switches_involuntary:>30}"
        )


def at_once(watch: Watch) -> int:
    """The most Gs that ran at the same time, by their events."""
    running: set[int] = set()
    most = 0
    for event in watch.of("start", "end", "sched", "preempt", "block"):
        if event.kind == "start":
            running.add(event.goid)
        else:
            running.discard(event.goid)
        most = max(most, len(running))
    return most


if __name__ == "__main__":
    sys.exit(main())

"""gmp-handoff: a G blocks in the kernel, and its M with it; the P moves on to another M.

    python demos/gmp_handoff.py        (or: ipclab demo gmp-handoff)

Look at: one P, so one G may run at a time. A G sits in a system call for a second. Without a hand-off the other G would
have to wait for it. First nobody said that the call would block: sysmon, an M without a P, sees the P in _Psyscall for
longer than a tick of its own and takes it (retake). Then it is said before (entersyscallblock): the M gives the P away
itself. Beside each M stands what the kernel says of it.
Go: entersyscall, entersyscallblock, exitsyscall, handoffp in proc.go, retake in sysmon
"""

from __future__ import annotations

import sys
import time

from ipclab.gmp import Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage, procfs
from ipclab.records import SchedEvent
from ipclab.records.event_text import line

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

BLOCKED_S = 1.0
KINDS = (
    "syscall enter",
    "syscall blocked",
    "syscall exit",
    "retake",
    "handoff",
    "acquirep",
    "releasep",
    "start",
    "end",
    "park",
)


def main() -> int:
    with Stage("gmp-handoff", "What becomes of a P whose M blocks in a system call?") as stage:
        undeclared = hand_over(stage, "Nobody said that it would block: sysmon takes the P", "block")
        stage.check(any(event.kind == "retake" for event in undeclared), "sysmon took the P out of the system call")
        declared = hand_over(stage, "It was said before: the M gives the P away itself", "blocking")
        stage.check(not any(event.kind == "retake" for event in declared), "this time sysmon had nothing to take")
        stage.verdict("a blocked G costs an M, never a P: the right to run moves to an M that can use it")
    return stage.exit_code


def hand_over(stage: Stage, title: str, verb: str) -> list[SchedEvent]:
    stage.scene(title)
    workload = Workload(
        title=verb,
        jobs=[
            Job("blocked", ["yield", f"{verb} {BLOCKED_S:g}s"]),
            Job("busy", ["sleep 20ms", f"compute {BLOCKED_S / 2:g}s"]),
        ],
    )
    with Simulation(workload, procs=1, events=True, preempt=False) as sim:
        watch = Watch(sim)
        watch.until(lambda: moved(watch))
        move = moved(watch)
        stage.check(move is not None, "the P has moved, and the other G runs")
        if move is None:
            return watch.events
        entered, started = move
        pids = sim.ms()
        stage.check(
            started.m != entered.m, f"G{entered.goid} blocks in M{entered.m}, G{started.goid} runs in M{started.m}"
        )
        stage.check(started.p == entered.p, f"both had the same P{started.p}")
        look(stage, "R", started.m, pids[started.m], f"computes with P{started.p}")
        look(stage, "S", entered.m, pids[entered.m], f"sleeps in the kernel with G{entered.goid}, without a P")
        stage.check(watch.to_the_end(), "both Gs have ended")
        for event in watch.of(*KINDS):
            if event.time_ns >= entered.time_ns:
                stage.say(line(event, watch.start_ns))
        return watch.events


def moved(watch: Watch) -> tuple[SchedEvent, SchedEvent] | None:
    """The entry into the system call, and the start of another G in another M since."""
    for entered in watch.of("syscall enter"):
        for started in watch.of("start"):
            if started.time_ns > entered.time_ns and started.m != entered.m:
                return entered, started
    return None


def look(stage: Stage, wanted: str, m: int, pid: int, what: str) -> None:
    """What /proc says of an M, as soon as it is so."""
    until = time.monotonic() + 5
    while (state := procfs.state(pid)) != wanted and time.monotonic() < until:
        time.sleep(0.001)
    where = f", in system call {call}" if state == "S" and (call := procfs.syscall(pid)) else ""
    stage.check(state == wanted, f"M{m} is process {pid}, state {state}{where}: it {what}")


if __name__ == "__main__":
    sys.exit(main())

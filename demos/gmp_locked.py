"""gmp-locked: a G that is locked to its M runs nowhere else, and that M runs nothing else.

    python demos/gmp_locked.py        (or: ipclab demo gmp-locked)

Look at: LockOSThread, for code that leaves something in its process (a signal mask, a namespace, the current folder).
When the locked G waits, its M gives its P away and sleeps with it (stoplockedm). When it can go on, whoever finds it in
a queue may not run it: that M hands over its own P, wakes the locked one and goes to sleep itself (startlockedm). So a
switch costs two wake-ups of processes. A G that ends while it is locked takes its M with it.
Go: LockOSThread, stoplockedm, startlockedm in proc.go
"""

from __future__ import annotations

import sys
import time

from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage, procfs
from ipclab.records.event_text import line

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

ROUNDS = 4
PING_PONG = Workload(
    title="a locked G and a free one",
    channels={"ping": 0, "pong": 0},
    jobs=[
        Job("locked", ["lockm", Block(repeat=ROUNDS, steps=["recv ping", "send pong"]), "unlockm"]),
        Job("free", [Block(repeat=ROUNDS, steps=["send ping", "recv pong"])]),
    ],
)
LEAVER = Workload(title="ends locked", jobs=[Job("leaver", ["lockm", "yield"]), Job("other", ["sleep 10s"])])


def main() -> int:
    with Stage("gmp-locked", "Which M runs a G that is locked to one?") as stage:
        ping_pong(stage)
        ends_locked(stage)
        stage.verdict("a locked G has an M of its own: the P comes to it and leaves it again, and the M ends with it")
    return stage.exit_code


def ping_pong(stage: Stage) -> None:
    stage.scene("A locked G and a free one throw a ball, with one P")
    with Simulation(PING_PONG, procs=1, events=True) as sim:
        watch = Watch(sim)
        stage.check(watch.to_the_end() and sim.result().ok, "both have ended")
    given = watch.of("to locked M")
    if not stage.check(
        bool(given), f"{len(given)} times an M found the locked G and gave its P to the M it belongs to"
    ):
        return
    goid, owner, first = given[0].goid, given[0].arg, given[0].time_ns
    for event in watch.events:
        if event.time_ns >= first and event.kind in (
            "to locked M",
            "releasep",
            "acquirep",
            "start",
            "block",
            "park",
            "handoff",
        ):
            stage.say(line(event, watch.start_ns))
        if (
            event.kind == "start"
            and event.time_ns > first
            and len(watch.of("start", goid=goid)) > 2
            and event.goid == goid
        ):
            break
    runners = {event.m for event in watch.of("start", goid=goid) if event.time_ns >= first}
    stage.check(runners == {owner}, f"from then on G{goid} ran in M{owner} alone")
    last = watch.of("start", goid=goid)[-1].time_ns
    others = [e for e in watch.of("start", m=owner) if first <= e.time_ns <= last and e.goid != goid]
    stage.check(not others, f"and M{owner} ran nothing else as long as the lock was there")
    waits = [event for event in watch.of("park", m=owner) if event.arg == 2]
    stage.check(bool(waits), f"M{owner} slept {len(waits)} times until its G was runnable, without a P")


def ends_locked(stage: Stage) -> None:
    stage.scene("A G ends while it is locked")
    with Simulation(LEAVER, procs=1, events=True) as sim:
        watch = Watch(sim)
        stage.check(
            watch.until(lambda: watch.of("M exit")), "its M has ended, too: nobody shall inherit what it left there"
        )
        for event in watch.of("M exit"):
            stage.say(line(event, watch.start_ns))
            pid = next(m.pid for m in sim.snapshot().ms if m.id == event.m)
            stage.check(gone(pid), f"M{event.m} was process {pid}: the template has reaped it")
            stage.check(
                event.m not in sim.ms(),
                f"{len(sim.ms()) - 1} other M and sysmon live on; the record of M{event.m} is closed",
            )


def gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while procfs.state(pid) != "X" and time.monotonic() < until:
        time.sleep(0.002)
    return procfs.state(pid) == "X"


if __name__ == "__main__":
    sys.exit(main())

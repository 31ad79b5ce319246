"""gmp-bind: how an M gets a P, and how it loses it again.

    python demos/gmp_bind.py        (or: ipclab demo gmp-bind)

Look at: three situations of one run, each with what the records say and which events led there. An M runs Gs only
while it is bound to a P (acquirep ... releasep). Both records say so: m.p and p.m. A P without an M lies on the list
of idle Ps, an M without a P on the list of idle Ms or in the kernel. Who wakes an M puts the P into its nextp first:
so nobody can take that P before the M has woken up.
Go: acquirep, releasep, startm, stopm, pidleput, mput in proc.go
"""

from __future__ import annotations

import sys

from ipclab.gmp import Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import SchedSnapshot
from ipclab.records.event_text import line

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

KINDS = ("wakep", "unpark", "M start", "acquirep", "releasep", "handoff", "park", "syscall enter", "syscall exit")
WORK = Workload(
    title="one M, two Ms, none",
    jobs=[
        Job("first", ["spawn helper 2", "compute 600ms", "spawn helper 2", "compute 100ms", "blocking 1s"]),
        Job("helper", ["compute 50ms"], count=0),
    ],
)


def main() -> int:
    with Stage("gmp-bind", "How do P and M get bound, and unbound?") as stage:
        with Simulation(WORK, procs=2, events=True, preempt=False) as sim:
            watch = Watch(sim)
            bound_and_idle(stage, sim, watch)
            woken(stage, watch)
            in_the_kernel(stage, sim, watch)
        stage.verdict("acquirep binds, releasep unbinds; between the two an M has one P, and a P has one M")
    return stage.exit_code


def bound_and_idle(stage: Stage, sim: Simulation, watch: Watch) -> None:
    stage.scene("One M works, the other has found nothing more to do")
    rest = watch.until(lambda: len(watch.of("end")) >= 3 and watch.of("park") and sim.snapshot().midle)
    seen = show(stage, sim.snapshot())
    if not stage.check(
        rest and bool(seen.midle), f"M{', M'.join(str(m) for m in seen.midle)} is on the list of idle Ms"
    ):
        return
    (worker,) = [m for m in seen.ms if m.p is not None]
    stage.check(
        seen.ps[worker.p or 0].m == worker.id, f"M{worker.id} has P{worker.p}, and P{worker.p} has M{worker.id}"
    )
    idle = [p for p in seen.ps if p.id in seen.pidle]
    stage.check([p.status for p in idle] == ["_Pidle"], f"P{idle[0].id} is on the list of idle Ps, in state _Pidle")
    stage.check(all(p.m is None and not p.runq for p in idle), "it has no M, and nothing in its queue")


def woken(stage: Stage, watch: Watch) -> None:
    stage.scene("There is work again: the idle M is woken, with the idle P in its nextp")
    before = len(watch.events)
    stage.check(watch.until(lambda: any(e.kind == "unpark" for e in watch.events[before:])), "an M was woken")
    fresh = [e for e in watch.events[before:] if e.kind in KINDS]
    for event in fresh[:8]:
        stage.say(line(event, watch.start_ns))
    wake = next((e for e in fresh if e.kind == "wakep"), None)
    got = next((e for e in fresh if e.kind == "acquirep"), None)
    if stage.check(
        wake is not None and got is not None, "wakep by the one with work, acquirep by the one who was woken"
    ):
        assert wake is not None
        assert got is not None
        stage.check(
            wake.m != got.m and wake.arg == got.arg, f"M{wake.m} took P{wake.arg} off the list, M{got.m} got it"
        )


def in_the_kernel(stage: Stage, sim: Simulation, watch: Watch) -> None:
    stage.scene("The last G is in a system call: its M has given its P away")
    stage.check(
        watch.until(lambda: watch.of("syscall enter") and len(sim.snapshot().pidle) == 2),
        "both Ps are on the idle list",
    )
    seen = show(stage, sim.snapshot())
    caller = watch.of("syscall enter")[0].m
    record = next(m for m in seen.ms if m.id == caller)
    stage.check(record.p is None and record.curg is not None, f"M{caller} has no P, and still its G{record.curg}")
    stage.check(all(m.p is None for m in seen.ms), "no M has a P: nobody may run, and nobody wants to")
    for event in watch.of("releasep", "handoff", m=caller)[-2:]:
        stage.say(line(event, watch.start_ns))


def show(stage: Stage, seen: SchedSnapshot) -> SchedSnapshot:
    for p in seen.ps:
        stage.say(f"P{p.id}: {p.status}, m = {'nil' if p.m is None else f'M{p.m}'}")
    for m in seen.ms:
        if m.role == "M":
            stage.say(
                f"M{m.id}[{m.pid}]: p = {'nil' if m.p is None else f'P{m.p}'}, {m.where}, kernel state {m.kernel_state}"
            )
    return seen


if __name__ == "__main__":
    sys.exit(main())

"""gmp-newm: how a new M comes into the world, one step at a time.

    python demos/gmp_newm.py        (or: ipclab demo gmp-newm)

Look at: who does what. The M that needs help makes the record (allocm: an id, a place in allm) and says which P the
new one shall have (nextp). It does not fork: its process may be in any state. It puts the record on a list and wakes
the template (newm1), which has one thread, holds no lock and forks all Ms (newosproc). The child says who it is
(mstart) and takes its P. To look at the step in between, we stop the template with SIGSTOP and let it go on with
SIGCONT.
Go: allocm, newm, newm1, newosproc, mstart, templateThread in proc.go
"""

from __future__ import annotations

import os
import signal
import sys
import time

from ipclab.gmp import Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage, procfs
from ipclab.records import MState
from ipclab.records.event_text import line

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

#: One P. When `blocker` is in the kernel, `waiting` needs an M, and there is none.
WORK = Workload(
    title="an M is missing",
    jobs=[Job("blocker", ["sleep 500ms", "yield", "blocking 2s"]), Job("waiting", ["sleep 500ms", "compute 1ms"])],
)


def main() -> int:
    with Stage("gmp-newm", "When and how is a new M made?") as stage:
        with Simulation(WORK, procs=1, events=True) as sim:
            watch = Watch(sim)
            if stage.check(watch.until(lambda: watch.of("block")), "one M is there; both Gs wait for their timers"):
                ask_and_wait(stage, sim, watch)
        stage.verdict("the one who needs an M makes its record, the template makes its process: 1:1, for life")
    return stage.exit_code


def ask_and_wait(stage: Stage, sim: Simulation, watch: Watch) -> None:
    template = sim.template_pid
    stage.scene("1-3  allocm, nextp, newm1: the record is there, the process is not (the template is stopped)")
    os.kill(template, signal.SIGSTOP)
    try:
        stage.check(waits_for(template, "T"), f"the template is process {template}, in state T")
        if not stage.check(
            watch.until(lambda: watch.of("new M")), "a G blocks: its M hands the P off, and no M is idle"
        ):
            return
        asked = watch.of("new M")[0]
        for event in watch.of("syscall enter", "handoff", "releasep", "new M"):
            stage.say(line(event, watch.start_ns))
        unborn = record(sim, asked.arg)
        stage.check(
            unborn.id in [m.id for m in sim.snapshot().ms], f"allocm: M{unborn.id} has a record, and is on allm"
        )
        stage.check(unborn.pid == 0 and unborn.role == "unborn", "newosproc has not been: it has no process")
        stage.check(unborn.nextp == 0, f"nextp: P{unborn.nextp} is kept for it, and nobody else has it")
        stage.check(unborn.id in sim.snapshot().newm, "newm1: it stands on the list of the template")
    finally:
        os.kill(template, signal.SIGCONT)
    stage.scene("4-5  newosproc, mstart: the template forks, the child begins")
    born = watch.until(lambda: watch.of("M start", m=asked.arg) and watch.of("start", m=asked.arg))
    stage.check(born, f"M{asked.arg} has begun, and runs a G")
    for event in watch.of("M start", "P status", "acquirep", "start", m=asked.arg)[:4]:
        stage.say(line(event, watch.start_ns))
    made = record(sim, asked.arg)
    stage.check(procfs.parent(made.pid) == template, f"it is process {made.pid}, a child of the template")
    stage.check(made.nextp is None, "it has taken its P: nextp is empty again")
    stage.check(waits_for(made.pid, "S"), f"its G has ended: process {made.pid} sleeps (S) and waits for work")


def record(sim: Simulation, number: int) -> MState:
    return next(m for m in sim.snapshot().ms if m.id == number)


def waits_for(pid: int, state: str) -> bool:
    until = time.monotonic() + 20
    while procfs.state(pid) != state and time.monotonic() < until:
        time.sleep(0.001)
    return procfs.state(pid) == state


if __name__ == "__main__":
    sys.exit(main())

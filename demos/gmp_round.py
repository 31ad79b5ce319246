"""gmp-round: every branch of a scheduling round, each taken and shown once.

    python demos/gmp_round.py        (or: ipclab demo gmp-round)

Look at: schedule() asks the same questions in the same order, thousands of times a second: am I locked to a G? Does
somebody stop the world? Is it the 61st round, so that the global queue comes first? Is there work in my P's queue? In
the global one? In another P's? If not, the M gives its P back and sleeps. And what it has found may be locked to
another M. Each line below was written by an M of this run as it took that branch.
Go: schedule, findRunnable in proc.go. The core's: ipclab/core/gmp/find.c. For all rounds: ipclab gmp sim --explain
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import SchedEvent
from ipclab.records.event_text import line, stolen

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

#: Which branch is taken when is the kernel's affair, too: the work is done again until each has been.
PATIENCE_S = 20.0
WORK = Workload(
    title="a bit of everything",
    channels={"ping": 0, "pong": 0},
    jobs=[
        Job("yielder", [Block(repeat=60, steps=["compute 20us", "yield"])], count=6),
        Job("parent", [Block(repeat=4, steps=["spawn child 20", "compute 3ms", "sleep 2ms"])]),
        Job("child", ["compute 100us"], count=0),
        Job("locked", ["lockm", Block(repeat=20, steps=["recv ping", "send pong"])]),
        Job("partner", [Block(repeat=20, steps=["send ping", "recv pong"])]),
        Job("serial", ["sleep 3ms", "stopworld 1ms"]),
        Job("late", ["sleep 60ms", "compute 1ms"]),
    ],
)

#: The branches in the order in which a round asks; each with the event that says that it was taken.
Branch = Callable[[Watch, SchedEvent], bool]
BRANCHES: list[tuple[str, Branch]] = [
    ("the M is locked to a G: it sleeps until that one can run", lambda w, e: e.kind == "park" and e.arg == 2),
    ("gcwaiting: the world is being stopped; it gives its P up", lambda w, e: gives_way(w, e)),
    ("the 61st tick: the global queue comes first", lambda w, e: e.kind == "global" and e.arg == 61 and e.goid > 1),
    ("its P's runnext, in the time slice of the one before", lambda w, e: e.kind == "start" and e.arg == 1),
    ("its P's own queue", lambda w, e: e.kind == "start" and e.arg == 0 and before(w, e) in ("end", "block", "sched")),
    ("the global queue: a batch, the rest into its own queue", lambda w, e: e.kind == "global" and e.arg != 61),
    ("it spins: nothing of its own, it looks at all other Ps", lambda w, e: e.kind == "spin" and e.arg == 1),
    ("it steals half of another P's queue", lambda w, e: e.kind == "steal" and stolen(e).taken > 1),
    ("in the last of four passes it takes a runnext, too", lambda w, e: e.kind == "steal" and stolen(e).attempt == 4),
    ("there is nothing anywhere: it gives its P back", lambda w, e: e.kind == "releasep" and before(w, e) == "spin"),
    ("and sleeps until it is woken", lambda w, e: e.kind == "park" and e.arg in (1, 3)),
    ("what it found is locked to another M: it gives its P there", lambda w, e: e.kind == "to locked M"),
    ("the locked M is awake, and has the P", lambda w, e: e.kind == "acquirep" and before(w, e) == "unpark"),
]


def main() -> int:
    with Stage("gmp-round", "What does an M do between two Gs?") as stage:
        shown: dict[str, str] = {}
        deadline = time.monotonic() + PATIENCE_S
        runs, ended = 0, True
        while ended and len(shown) < len(BRANCHES) and (runs == 0 or time.monotonic() < deadline):
            ended = look(runs, shown)
            runs += 1
        stage.check(ended, f"all Gs have ended, in {runs} run{'s' if runs > 1 else ''}")
        stage.scene("One round, question by question")
        for name, _taken in BRANCHES:
            if name in shown:
                stage.say(shown[name])
            stage.check(name in shown, name)
        stage.verdict("first what is urgent, then what is near, then what is far; then sleep")
    return stage.exit_code


def look(seed: int, shown: dict[str, str]) -> bool:
    """One run; adds the branches it took. False: it did not end well."""
    with Simulation(WORK, procs=2, seed=seed, events=True) as sim:
        watch = Watch(sim)
        if not watch.to_the_end() or not sim.result().ok:
            return False
    for name, taken in BRANCHES:
        found = next((e for e in watch.events if name not in shown and taken(watch, e)), None)
        if found is not None:
            shown[name] = line(found, watch.start_ns)
    return True


def before(watch: Watch, event: SchedEvent) -> str:
    """The kind of the event the same M wrote before this one."""
    own = watch.of(*_KINDS, m=event.m)
    return own[own.index(event) - 1].kind if own.index(event) else ""


def gives_way(watch: Watch, event: SchedEvent) -> bool:
    """A P goes to _Pgcstop by the M that had it, not by the one that stops the world."""
    stoppers = {e.m for e in watch.of("stw start")}
    return event.kind == "P status" and event.arg & 0xFF == 3 and event.m not in stoppers


_KINDS = (
    "start",
    "end",
    "block",
    "sched",
    "preempt",
    "global",
    "steal",
    "spin",
    "releasep",
    "acquirep",
    "unpark",
    "park",
)


if __name__ == "__main__":
    sys.exit(main())

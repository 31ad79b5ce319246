"""barrier: nobody goes on before all have arrived, round after round.

    python demos/barrier.py        (or: ipclab demo barrier)

Look at: the three that sleep because the fourth is still working; the order of arrival that each is told, anew in every
round; and what a barrier does that knows deadlines when one never comes.
man: pthread_barrier_wait(3p), futex(2) - ours is made of a futex, because pthread_barrier_t knows no deadline
"""

from __future__ import annotations

import errno
import mmap
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.processes import Stage, say

FAMILY = "synchronisation"
NEEDS = ("barrier",)
BETTER_WITH = ()

BARRIER, ARRIVED = 0, 1024  # where they lie in the shared page
PARTIES, ROUNDS = 4, 3
SHORT_NS = 200_000_000


def main() -> int:
    with Stage("barrier", "How do processes wait for one another, again and again?") as stage:
        page = mmap.mmap(-1, mmap.PAGESIZE)
        the_last_one_opens_it(stage, page)
        one_never_comes(stage, page)
        stage.verdict("the last one to arrive opens it for all; one that never comes stops all who have no deadline")
    return stage.exit_code


def walk(page: mmap.mmap, gate: Connection | None, notes: Connection) -> None:
    seen = []
    for number in range(1, ROUNDS + 1):
        if gate and number == 1:
            gate.recv()
        _core.atomic_add(page, ARRIVED, 1)
        order = _core.barrier_wait(page, BARRIER)
        seen.append((order, _core.atomic_load(page, ARRIVED) >= number * PARTIES))
    say(f"arrived as number {[order for order, _all in seen]} in rounds 1 to {ROUNDS}")
    notes.send(seen)


def the_last_one_opens_it(stage: Stage, page: mmap.mmap) -> None:
    stage.scene(f"{PARTIES} processes, {ROUNDS} rounds; in the first one is late")
    _core.barrier_init(page, BARRIER, PARTIES)
    (ours, theirs), (gate, key) = Pipe(duplex=False), Pipe(duplex=False)
    early = [stage.spawn(f"walker-{n}", walk, page, None, theirs) for n in range(PARTIES - 1)]
    stage.spawn("latecomer", walk, page, gate, theirs)
    stage.release()
    asleep = [stage.asleep_in(walker, syscall="futex") for walker in early]
    arrived = _core.atomic_load(page, ARRIVED)
    stage.check(all(asleep) and arrived == PARTIES - 1, f"{arrived} have arrived and sleep in futex(2)")
    key.send("come")
    rounds = list(zip(*[stage.hear(ours) for _ in range(PARTIES)], strict=True))
    orders = [sorted(order for order, _all in each) for each in rounds]
    stage.check(orders == [list(range(PARTIES))] * ROUNDS, f"in every round each had its own place: {orders}")
    stage.check(all(everybody for each in rounds for _order, everybody in each), "nobody went on before all were there")


def too_few(page: mmap.mmap, timeout_ns: int | None) -> int:
    try:
        _core.barrier_wait(page, BARRIER, timeout_ns)
    except OSError as err:
        say(f"barrier_wait: {errno.errorcode[err.errno or 0]}")
        return err.errno or 0
    return 0


def one_never_comes(stage: Stage, page: mmap.mmap) -> None:
    stage.scene("One never comes")
    _core.barrier_init(page, BARRIER, PARTIES)
    patient = stage.spawn("patient", too_few, page, None)
    hasty = stage.spawn("hasty", too_few, page, SHORT_NS)
    stage.check(hasty.wait(20).exit_code == errno.ETIMEDOUT, f"who had a deadline gave up after {SHORT_NS / 1e9} s")
    stage.check(stage.asleep_in(patient, syscall="futex"), "the one without sleeps, and would for ever")
    _core.barrier_break(page, BARRIER)
    stage.check(patient.wait(20).exit_code == errno.EPIPE, "somebody broke the barrier: it was told EPIPE and went on")


if __name__ == "__main__":
    sys.exit(main())

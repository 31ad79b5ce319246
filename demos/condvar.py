"""condvar: sleep until something is true, without holding the lock meanwhile.

    python demos/condvar.py        (or: ipclab demo condvar)

Look at: the lock, which is free while its holder sleeps in the wait; one signal for three sleepers; and the broadcast
after which all three hold the lock, one after the other, and each looks again whether there is something left.
man: pthread_cond_wait(3), pthread_cond_broadcast(3)
"""

from __future__ import annotations

import mmap
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.processes import Stage, say

FAMILY = "synchronisation"
NEEDS = ("condvar",)
BETTER_WITH = ()

LOCK, COND, STOCK = 0, 1024, 2048  # where they lie in the shared page
EATERS = 3


def main() -> int:
    with Stage("condvar", "How do processes sleep until there is something to take?") as stage:
        page = mmap.mmap(-1, mmap.PAGESIZE)
        _core.lock_init(page, LOCK)
        _core.cond_init(page, COND)
        signal_and_broadcast(stage, page)
        stage.verdict("the wait gives the lock back and takes it again; whoever wakes must look again before it acts")
    return stage.exit_code


def eat(number: int, page: mmap.mmap, notes: Connection) -> None:
    looks = 0
    _core.lock_acquire(page, LOCK)
    while not _core.atomic_load(page, STOCK):
        looks += 1
        _core.cond_wait(page, COND, LOCK)
    left = _core.atomic_add(page, STOCK, -1) - 1
    _core.lock_release(page, LOCK)
    say(f"took one after {looks} waits, {left} left")
    notes.send((number, looks, left))


def cook(page: mmap.mmap, portions: int, broadcast: bool) -> None:
    _core.lock_acquire(page, LOCK)
    _core.atomic_add(page, STOCK, portions)
    (_core.cond_broadcast if broadcast else _core.cond_signal)(page, COND)
    _core.lock_release(page, LOCK)
    say(f"put {portions} there and called {'broadcast' if broadcast else 'signal'}")


def signal_and_broadcast(stage: Stage, page: mmap.mmap) -> None:
    stage.scene(f"{EATERS} wait, nothing is there")
    ours, theirs = Pipe(duplex=False)
    eaters = [stage.spawn(f"eater-{n}", eat, n, page, theirs) for n in range(EATERS)]
    stage.release()
    asleep = [stage.asleep_in(eater, syscall="futex") for eater in eaters]
    stage.check(all(asleep), f"all {EATERS} sleep in futex(2)")
    stage.check(_core.lock_owner(page, LOCK) == 0, "and the lock is free: each gave it back as it fell asleep")

    stage.scene("One portion, one signal")
    stage.spawn("cook", cook, page, 1, False)
    first, _looks, left = stage.hear(ours)
    rest = [eater for n, eater in enumerate(eaters) if n != first]
    asleep = [stage.asleep_in(eater, syscall="futex") for eater in rest]
    stage.check(left == 0 and all(asleep), f"eater-{first} had it; the other two sleep")

    stage.scene("One portion, a broadcast to both: one of them wakes for nothing")
    stage.spawn("cook", cook, page, 1, True)
    second, _looks, left = stage.hear(ours)
    (last,) = {0, 1, 2} - {first, second}
    stage.check(left == 0, f"eater-{second} had it")
    stage.check(stage.asleep_in(eaters[last], syscall="futex"), f"eater-{last} woke, looked again, and sleeps again")
    stage.spawn("cook", cook, page, 1, True)
    number, looks, _left = stage.hear(ours)
    stage.check((number, looks >= 2) == (last, True), f"with the next portion it is done, after {looks} waits")


if __name__ == "__main__":
    sys.exit(main())

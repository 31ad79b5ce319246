"""condvar: sleep until something is true, without holding the lock meanwhile.

    python demos/condvar.py        (or: ipclab demo condvar)

Look at: the lock, which is free while those who held it sleep in the wait; one notify for three sleepers; and the
notify for all, after which each looks again whether there is something left, and one goes back to sleep.
man: pthread_cond_wait(3), pthread_cond_broadcast(3), futex(2)
"""

from __future__ import annotations

import mmap
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.mechanisms.sync.condvar import Condition
from ipclab.processes import Stage, say

FAMILY = "synchronisation"
NEEDS = ("condvar",)
BETTER_WITH = ()

COND, STOCK = 0, 1024  # where the condition (with its mutex) and the number of portions lie in the shared page
EATERS = 3


def main() -> int:
    with Stage("condvar", "How do processes sleep until there is something to take?") as stage:
        page = mmap.mmap(-1, mmap.PAGESIZE)
        notify_one_and_all(stage, Condition.place(page, COND), page)
        stage.verdict("the wait gives the lock back and takes it again; whoever wakes must look again before it acts")
    return stage.exit_code


def eat(number: int, condition: Condition, page: mmap.mmap, notes: Connection) -> None:
    looks = 0
    with condition.mutex.held():
        while not _core.atomic_load(page, STOCK):
            looks += 1
            condition.wait()
        left = _core.atomic_add(page, STOCK, -1) - 1
        say(f"took one after {looks} waits, {left} left")
        notes.send((number, looks, left))


def cook(condition: Condition, page: mmap.mmap, for_all: bool) -> None:
    with condition.mutex.held():
        _core.atomic_add(page, STOCK, 1)
        condition.notify_all() if for_all else condition.notify()
        say(f"put one there and called notify{'_all' if for_all else ''}")


def notify_one_and_all(stage: Stage, condition: Condition, page: mmap.mmap) -> None:
    stage.scene(f"{EATERS} wait, nothing is there")
    ours, theirs = Pipe(duplex=False)
    eaters = [stage.spawn(f"eater-{n}", eat, n, condition, page, theirs) for n in range(EATERS)]
    stage.release()
    asleep = [stage.asleep_in(eater, syscall="futex") for eater in eaters]
    stage.check(all(asleep), f"all {EATERS} sleep in futex(2)")
    stage.check(condition.mutex.owner_pid == 0, "and the lock is free: each gave it back as it fell asleep")

    stage.scene("One portion, one notify")
    stage.spawn("cook", cook, condition, page, False)
    first, _looks, left = stage.hear(ours)
    eaters[first].wait(20)
    rest = [eater for n, eater in enumerate(eaters) if n != first]
    asleep = [stage.asleep_in(eater, syscall="futex") for eater in rest]
    stage.check(left == 0 and all(asleep), f"eater-{first} had it; the other two sleep")

    stage.scene("One portion, a notify for all: one of them wakes for nothing")
    stage.spawn("cook", cook, condition, page, True)
    second, _looks, left = stage.hear(ours)
    eaters[second].wait(20)
    (last,) = {0, 1, 2} - {first, second}
    stage.check(left == 0, f"eater-{second} had it")
    stage.check(stage.asleep_in(eaters[last], syscall="futex"), f"eater-{last} sleeps")
    stage.spawn("cook", cook, condition, page, False)
    number, looks, _left = stage.hear(ours)
    stage.check((number, looks) == (last, 2), f"the next portion is its own, after {looks} waits: one was for nothing")


if __name__ == "__main__":
    sys.exit(main())

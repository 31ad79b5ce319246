"""robust-mutex: the holder is killed in the middle of its work; the next one is told, repairs, and goes on.

    python demos/robust_mutex.py      (or: ipclab demo robust-mutex)

Look at: the sum of two accounts, which is wrong while somebody is at work. A kill in that moment leaves the lock taken
and the sum wrong: EOWNERDEAD says both. A semaphore knows no owner: nobody can tell that it will never be posted.
man: pthread_mutexattr_setrobust(3), pthread_mutex_consistent(3), sem_timedwait(3)
"""

from __future__ import annotations

import errno
import mmap
import signal
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.processes import Process, Stage, say

FAMILY = "synchronisation"
NEEDS = ("robust-mutex", "unnamed-sem")
BETTER_WITH = ()

LOCK, SEM, ACCOUNTS = 0, 1024, 2048  # where each lies in the shared page
TOTAL = 100
DEADLINE_NS = 20_000_000_000
SHORT_NS = 300_000_000  # how long somebody waits for the semaphore that nobody will post


def main() -> int:
    with Stage("robust-mutex", "The holder of a lock is killed. Who finds out, and what is left to repair?") as stage:
        page = mmap.mmap(-1, 4096)  # shared, anonymous: every role inherits it
        the_next_one_repairs(stage, page)
        nobody_repairs(stage, page)
        a_semaphore_knows_no_owner(stage, page)
        stage.verdict("a robust mutex tells the next one that its owner died; a semaphore lets everybody wait for ever")
    return stage.exit_code


def accounts(page: mmap.mmap) -> memoryview[int]:
    """Two numbers; their sum is TOTAL whenever nobody is at work."""
    return memoryview(page)[ACCOUNTS:].cast("q")


def half_done(page: mmap.mmap, notes: Connection, robust: bool) -> None:
    if robust:
        _core.lock_acquire(page, LOCK)
    else:
        _core.sem_wait(page, SEM)
    accounts(page)[0] -= 30
    say(f"took the lock and 30 out of account 0, and have not put it into account 1: sum {sum(accounts(page)[:2])}")
    notes.send("in the middle")
    signal.pause()


def start_holder(stage: Stage, page: mmap.mmap, robust: bool = True) -> Process:
    accounts(page)[0], accounts(page)[1] = TOTAL, 0
    ours, theirs = Pipe(duplex=False)
    holder = stage.spawn("holder", half_done, page, theirs, robust, killable=True)
    stage.release()
    stage.hear(ours)
    return holder


def heir(page: mmap.mmap, notes: Connection) -> None:
    owner_died = _core.lock_acquire(page, LOCK, DEADLINE_NS)
    found = sum(accounts(page)[:2])
    say(f"I have the lock: {'EOWNERDEAD, its owner died holding it' if owner_died else 'as usual'}; sum {found}")
    if owner_died:
        accounts(page)[1] += TOTAL - found
        _core.lock_consistent(page, LOCK)
        say(f"repaired: sum {sum(accounts(page)[:2])}, and called pthread_mutex_consistent(3)")
    notes.send((owner_died, found))
    _core.lock_release(page, LOCK)


def the_next_one_repairs(stage: Stage, page: mmap.mmap) -> None:
    stage.scene("Robust mutex: the holder is killed while another waits")
    _core.lock_init(page, LOCK)
    holder = start_holder(stage, page)
    stage.check(_core.lock_owner(page, LOCK) == holder.pid, f"the lock word names its owner: {holder.pid}")
    ours, theirs = Pipe(duplex=False)
    stage.spawn("heir", heir, page, theirs)
    later = stage.spawn("later", heir, page, theirs)
    stage.check(stage.asleep_in(later, syscall="futex"), "the others sleep in futex(2)")
    holder.kill()
    stage.say(f"{holder.role}[{holder.pid}] was ended by signal {holder.wait(20).signal}")
    first, second = stage.hear(ours), stage.hear(ours)
    stage.check(first == (1, TOTAL - 30), f"the first of them was told EOWNERDEAD and found the sum {first[1]}")
    stage.check(second == (0, TOTAL), f"the other one never noticed: no error, sum {second[1]}")
    stage.wait(20)


def ignorant(page: mmap.mmap) -> int:
    owner_died = _core.lock_acquire(page, LOCK, DEADLINE_NS)
    say(f"lock_acquire returned {'EOWNERDEAD' if owner_died else '0'}; I unlock without a look at the data")
    _core.lock_release(page, LOCK)
    return owner_died


def nobody_repairs(stage: Stage, page: mmap.mmap) -> None:
    stage.scene("The same kill, and a next one who does not care")
    _core.lock_init(page, LOCK)
    holder = start_holder(stage, page)
    holder.kill()
    holder.wait(20)
    stage.check(stage.spawn("ignorant", ignorant, page).wait(20).exit_code == 1, "it was told EOWNERDEAD as well")
    try:
        _core.lock_acquire(page, LOCK, DEADLINE_NS)
        number = 0
    except OSError as err:
        number = err.errno or 0
    stage.check(number == errno.ENOTRECOVERABLE, "from now on all get ENOTRECOVERABLE: better none than wrong data")


def waits_in_vain(page: mmap.mmap) -> int:
    got_it = _core.sem_wait(page, SEM, SHORT_NS)
    say("sem_timedwait(3) returned " + ("0" if got_it else f"ETIMEDOUT after {SHORT_NS / 1e9} s"))
    return 0 if got_it else errno.ETIMEDOUT


def a_semaphore_knows_no_owner(stage: Stage, page: mmap.mmap) -> None:
    stage.scene("A semaphore in its place: the same kill")
    _core.sem_init(page, SEM, 1)
    holder = start_holder(stage, page, robust=False)
    holder.kill()
    holder.wait(20)
    waiter = stage.spawn("waiter", waits_in_vain, page)
    stage.check(waiter.wait(20).exit_code == errno.ETIMEDOUT, "the next one waits in vain: nobody told it")
    stage.check(_core.sem_getvalue(page, SEM) == 0, f"the value is still 0, the sum {sum(accounts(page)[:2])}")


if __name__ == "__main__":
    sys.exit(main())

"""futex: a number in shared memory on which processes can sleep; what every lock of the C library is made of.

    python demos/futex.py          (or: ipclab demo futex)

Look at: a sleeper that goes on sleeping although the number has changed, because nobody woke it; a wait that does not
wait, because the number was not the expected one any more (so no wake-up is missed); and a wake of two among three.
man: futex(2), futex(7)
"""

from __future__ import annotations

import mmap
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.processes import Stage, say

FAMILY = "synchronisation"
NEEDS = ("futex",)
BETTER_WITH = ()

WORD = 0  # its offset in the shared page


def main() -> int:
    with Stage("futex", "How does a process sleep until a number in shared memory changes?") as stage:
        page = mmap.mmap(-1, mmap.PAGESIZE)
        changed_is_not_woken(stage, page)
        changed_before_the_wait(stage, page)
        so_many_and_no_more(stage, page)
        stage.verdict("change the number, then wake: the kernel knows who sleeps, the number says why")
    return stage.exit_code


def wait_while_zero(page: mmap.mmap, notes: Connection) -> None:
    woken = _core.futex_wait(page, WORD, 0)
    say(f"FUTEX_WAIT while 0 returned {woken}; the number is {_core.atomic_load(page, WORD)}")
    notes.send(_core.atomic_load(page, WORD))


def changed_is_not_woken(stage: Stage, page: mmap.mmap) -> None:
    stage.scene("The number is changed, and only later somebody calls FUTEX_WAKE")
    ours, theirs = Pipe(duplex=False)
    sleeper = stage.spawn("sleeper", wait_while_zero, page, theirs)
    stage.release()
    stage.check(stage.asleep_in(sleeper, syscall="futex"), "the number is 0: it sleeps in futex(2)")
    _core.atomic_store(page, WORD, 7)
    stage.check(stage.asleep_in(sleeper, syscall="futex"), "the number is 7, and it sleeps on: memory wakes nobody")
    stage.check(_core.futex_wake(page, WORD, 1) == 1, "FUTEX_WAKE returned 1: one was woken")
    stage.check(stage.hear(ours) == 7, "it went on and found 7")


def changed_before_the_wait(stage: Stage, page: mmap.mmap) -> None:
    stage.scene("The number changes before the wait begins")
    ours, theirs = Pipe(duplex=False)
    stage.check(_core.futex_wake(page, WORD, 1) == 0, "FUTEX_WAKE returned 0: nobody sleeps, nothing is remembered")
    late = stage.spawn("late", wait_while_zero, page, theirs)
    stage.check(stage.hear(ours) == 7, "its wait while 0 returned at once: the kernel compared first")
    stage.check(late.wait(20).exit_code == 0, "so the wake-up it came too late for was not missed")


def so_many_and_no_more(stage: Stage, page: mmap.mmap) -> None:
    stage.scene("Three sleep on one number, two are woken")
    _core.atomic_store(page, WORD, 0)
    ours, theirs = Pipe(duplex=False)
    sleepers = [stage.spawn(f"sleeper-{n}", wait_while_zero, page, theirs) for n in range(3)]
    asleep = [stage.asleep_in(sleeper, syscall="futex") for sleeper in sleepers]
    stage.check(all(asleep), "all three sleep")
    woken = _core.futex_wake(page, WORD, 2)
    went_on = [stage.hear(ours) for _ in range(woken)]
    left = _core.futex_wake(page, WORD, 100)
    stage.check((len(went_on), left) == (2, 1), f"FUTEX_WAKE of 2 woke {woken}; FUTEX_WAKE of 100 found {left} more")


if __name__ == "__main__":
    sys.exit(main())

"""execution-units-race: two threads pay into one account, and half of it is gone; two coroutines lose nothing.

    python demos/execution_units_race.py        (or: ipclab demo execution-units-race)

Look at: the steps of `balance += 1` - read, add, write - and at what comes between a read and its write. Between any
two steps of a thread the kernel may run another one; between two steps of a coroutine nobody runs, unless one of them
is an await. Two processes cannot lose an update this way, each has a balance of its own (demo execution-units); over
shared memory they can (demo semaphore).
man: pthreads(7), sched(7)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from threading import Barrier, Lock, Thread
from types import coroutine

from ipclab.processes import Stage, say

FAMILY = "processes"
NEEDS = ()
BETTER_WITH = ()

DEPOSITS = 100  # of 1, by each of the two; both together fit an exit code


class Account:
    """A balance, and a note of every step taken with it."""

    def __init__(self) -> None:
        self.balance = 0
        self.steps: list[str] = []

    def read(self, who: str) -> int:
        balance = self.balance
        self.steps.append(f"{who} reads {balance}")
        return balance

    def write(self, who: str, balance: int) -> None:
        self.balance = balance
        self.steps.append(f"{who} writes {balance}")


def main() -> int:
    with Stage("execution-units-race", "Two add to one number: who loses an update, and who needs no lock?") as stage:
        stage.release()
        threads_lose_updates(stage)
        lock_makes_the_other_one_wait(stage)
        coroutines_need_no_lock(stage)
        coroutines_lose_updates_at_an_await(stage)
        stage.verdict("a thread may lose the CPU anywhere and needs a lock; a coroutine gives it up only at an await")
    return stage.exit_code


def balance_of(stage: Stage, role: str, run: Callable[[], Account]) -> int | None:
    """Run it in a process of its own, which tells its first steps and has the balance as its exit code."""

    def bank() -> int:
        account = run()
        say(f"{', '.join(account.steps[:6])}, ...")
        return account.balance

    balance = stage.spawn(role, bank).wait(20).exit_code
    stage.say(f"{2 * DEPOSITS} deposits of 1, and the balance is {balance}")
    return balance


# --- threads ---------------------------------------------------------------------------------------------------------
def threads_lose_updates(stage: Stage) -> None:
    stage.scene("Two threads, no lock; a barrier makes both read before either writes, as bad luck would")
    balance = balance_of(stage, "threads", lambda: pay_in_by_threads(nullcontext(), Barrier(2, timeout=20).wait))
    stage.check(balance == DEPOSITS, "half of them are lost: each overwrote what the other one had added")


def lock_makes_the_other_one_wait(stage: Stage) -> None:
    stage.scene("Two threads, and a lock from the read to the write; in between each lets the other one run, in vain")
    balance = balance_of(stage, "threads", lambda: pay_in_by_threads(Lock(), lambda: time.sleep(0)))
    stage.check(balance == 2 * DEPOSITS, "none is lost: between a read and its write the other one had to wait")


def pay_in_by_threads(lock: AbstractContextManager[object], gap: Callable[[], object]) -> Account:
    account = Account()

    def pay_in(who: str) -> None:
        for _ in range(DEPOSITS):
            with lock:
                balance = account.read(who)
                gap()
                account.write(who, balance + 1)

    threads = [Thread(target=pay_in, args=(who,)) for who in "AB"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return account


# --- coroutines ------------------------------------------------------------------------------------------------------
def coroutines_need_no_lock(stage: Stage) -> None:
    stage.scene("Two coroutines of one thread, no lock; each awaits after every deposit")
    balance = balance_of(stage, "coroutines", lambda: pay_in_by_coroutines(await_in_the_gap=False))
    stage.check(balance == 2 * DEPOSITS, "none is lost: between a read and its write nobody else runs")


def coroutines_lose_updates_at_an_await(stage: Stage) -> None:
    stage.scene("The same, with an await between the read and the write")
    balance = balance_of(stage, "coroutines", lambda: pay_in_by_coroutines(await_in_the_gap=True))
    stage.check(balance == DEPOSITS, "half of them are lost, as with threads: at an await somebody else runs")


def pay_in_by_coroutines(*, await_in_the_gap: bool) -> Account:
    account = Account()

    async def pay_in(who: str) -> None:
        for _ in range(DEPOSITS):
            balance = account.read(who)
            if await_in_the_gap:
                await pause()
            account.write(who, balance + 1)
            await pause()

    running = [pay_in(who) for who in "AB"]
    while running:
        for unit in list(running):  # an event loop, and all there is to it: each in turn, as far as its next await
            try:
                unit.send(None)
            except StopIteration:
                running.remove(unit)
    return account


@coroutine
def pause() -> Generator[None, None, None]:
    yield


if __name__ == "__main__":
    sys.exit(main())

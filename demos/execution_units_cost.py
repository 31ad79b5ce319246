"""execution-units-cost: what a process, a thread and a coroutine cost to make, and to switch to.

    python demos/execution_units_cost.py        (or: ipclab demo execution-units-cost)

Look at: the steps between the three, not the digits - these are this machine's, at this moment, driven from Python. And
at the context switches that the kernel counted meanwhile: in a switch between coroutines it has no part. What the price
buys: execution-units (what is one's own) and execution-units-crash (who else dies).
man: fork(2), clone(2), futex(2), getrusage(2) for ru_nvcsw and ru_nivcsw
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Generator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from statistics import median
from threading import Lock, Thread
from timeit import repeat
from types import coroutine
from typing import NamedTuple

from ipclab.processes import Stage

FAMILY = "processes"
NEEDS = ()
BETTER_WITH = ()

BATCHES = 5  # a figure is the median of so many
TURNS = 400  # there and back, in each batch


class Cost(NamedTuple):
    make_us: float  # until it has run to its end
    switch_us: float  # half of there and back
    switches: int  # counted by the kernel during all the turns


def main() -> int:
    with Stage("execution-units-cost", "What does each of the three cost?") as stage:
        stage.scene(f"Make one and see it end; switch to another and back: medians of {BATCHES} batches on one CPU")
        stage.release()
        process = cost(stage, "process", make_process, switch_processes, 20)
        thread = cost(stage, "thread", make_thread, switch_threads, 50)
        unit = cost(stage, "coroutine", make_coroutine, switch_coroutines, 1000)
        stage.scene(f"What the kernel counted in our process during {BATCHES * TURNS} times there and back")
        turns = BATCHES * TURNS
        stage.check(process.switches >= turns, f"process: {process.switches} context switches, made by the kernel")
        stage.check(thread.switches >= turns, f"thread: {thread.switches}, made by the kernel too")
        stage.check(0 <= unit.switches < turns / 4, f"coroutine: {unit.switches}, a switch is a call and a return here")
        stage.verdict(
            f"to make: process {process.make_us:.0f}, thread {thread.make_us:.0f}, coroutine {unit.make_us:.2f} us; "
            f"to switch: {process.switch_us:.1f}, {thread.switch_us:.1f}, {unit.switch_us:.2f} us"
        )
    return stage.exit_code


def cost(stage: Stage, kind: str, make: Callable[[], object], switch: Callable[[], object], count: int) -> Cost:
    inbox, outbox = Pipe(duplex=False)
    with inbox, outbox:
        stage.spawn("timer", measure, make, switch, count, outbox).wait(15)
        figures = Cost(*(inbox.recv() if inbox.poll() else (0, 0, -1)))
    stage.say(f"{kind:<10} to make {figures.make_us:9.2f} us, to switch {figures.switch_us:7.2f} us")
    return figures


def measure(make: Callable[[], object], switch: Callable[[], object], count: int, outbox: Connection) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # else we would time how long an idle CPU takes to wake
    make_s = median(repeat(make, repeat=BATCHES, number=count)) / count
    before = context_switches()
    switch_s = median(repeat(switch, repeat=BATCHES, number=1)) / (2 * TURNS)
    outbox.send((make_s * 1e6, switch_s * 1e6, context_switches() - before))


def context_switches() -> int:
    return int(sum(resource.getrusage(resource.RUSAGE_SELF)[-2:]))  # ru_nvcsw and ru_nivcsw


def make_process() -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def make_thread() -> None:
    thread = Thread(target=int)
    thread.start()
    thread.join()


def make_coroutine() -> None:
    list(pausing(0).__await__())  # all it ever yields, which is nothing


def switch_processes() -> None:
    """Two processes, two pipes: each read(2) sleeps until the other one has written."""
    (there_r, there_w), (back_r, back_w) = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        for _ in range(TURNS):
            os.read(there_r, 1)
            os.write(back_w, b"!")
        os._exit(0)
    for _ in range(TURNS):
        os.write(there_w, b"!")
        os.read(back_r, 1)
    os.waitpid(pid, 0)


def switch_threads() -> None:
    """Two threads, two locks: each acquire sleeps in futex(2) until the other one has released."""
    there, back = Lock(), Lock()
    there.acquire()
    back.acquire()

    def other() -> None:
        for _ in range(TURNS):
            there.acquire()
            back.release()

    thread = Thread(target=other)
    thread.start()
    for _ in range(TURNS):
        there.release()
        back.acquire()
    thread.join()


def switch_coroutines() -> None:
    """Two coroutines, each resumed when the other has paused: a function call, and a return from it."""
    one, other = pausing(TURNS), pausing(TURNS)
    for _ in range(TURNS):
        one.send(None)
        other.send(None)


async def pausing(times: int) -> None:
    for _ in range(times):
        await pause()


@coroutine
def pause() -> Generator[None, None, None]:
    yield


if __name__ == "__main__":
    sys.exit(main())

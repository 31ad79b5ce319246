"""execution-units-crash: whom a process, a thread and a coroutine take with them when they crash.

    python demos/execution_units_crash.py        (or: ipclab demo execution-units-crash)

Look at: the same mistake, a read at address 0, made by a process and by a thread; and an exception in a coroutine,
caught and not caught. A crash stops at the walls between address spaces: who shares one, dies together.
man: signal(7) on SIGSEGV, pthreads(7), wait(2)
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Coroutine, Generator
from pathlib import Path
from threading import Thread
from types import coroutine

from ipclab.processes import Stage, say

FAMILY = "processes"
NEEDS = ()
BETTER_WITH = ()

BYSTANDERS = 3


def main() -> int:
    with Stage("execution-units-crash", "Who dies when one of them crashes?") as stage:
        process_dies_alone(stage)
        thread_takes_its_process_down(stage)
        coroutine_fails_alone_if_caught(stage)
        stage.verdict("a process dies alone, a thread takes all its process with it, a coroutine whoever drives it")
    return stage.exit_code


def read_at_address_0() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it is on purpose: leave no core file behind
    ctypes.string_at(0)


# --- 1: a process ----------------------------------------------------------------------------------------------------
def process_dies_alone(stage: Stage) -> None:
    stage.scene("A process reads at address 0, where nothing is mapped")
    gate, key = os.pipe()
    sibling = stage.spawn("sibling", os.read, gate, 1)
    crasher = stage.spawn("crasher", read_at_address_0, killable=True)
    stage.release()
    stage.check(crasher.wait(20).signal == signal.SIGSEGV, "crasher was killed by SIGSEGV")
    stage.check(stage.asleep_in(sibling, syscall="read"), "sibling sleeps in read(2) as before, and so do we go on")
    os.write(key, b"!")
    sibling.wait(20)
    os.close(gate)
    os.close(key)


# --- 2: a thread -----------------------------------------------------------------------------------------------------
def thread_takes_its_process_down(stage: Stage) -> None:
    stage.scene(f"A thread does the same, beside {BYSTANDERS} others")
    gate, key = os.pipe()
    host = stage.spawn("host", threads_and_a_fuse, gate, killable=True)
    stage.check(stage.asleep_in(host, syscall="read"), "host's main thread sleeps in read(2)")
    tasks = sorted(int(task.name) for task in Path(f"/proc/{host.pid}/task").iterdir())
    stage.check(len(tasks) > BYSTANDERS, f"/proc/{host.pid}/task has its threads: {tasks}")
    os.write(key, b"!")
    stage.check(host.wait(20).signal == signal.SIGSEGV, "one more thread read at address 0: SIGSEGV killed the process")
    left = [task for task in tasks if Path(f"/proc/{task}").exists()]
    stage.check(not left, f"of its {len(tasks)} threads {len(left)} are left: there is no dying alone for a thread")
    os.close(gate)
    os.close(key)


def threads_and_a_fuse(gate: int) -> None:
    never, _ = os.pipe()
    for _ in range(BYSTANDERS):
        Thread(target=os.read, args=(never, 1), daemon=True).start()
    os.read(gate, 1)
    crasher = Thread(target=read_at_address_0)
    crasher.start()
    crasher.join()


# --- 3: a coroutine --------------------------------------------------------------------------------------------------
def coroutine_fails_alone_if_caught(stage: Stage) -> None:
    stage.scene("Of two coroutines in one thread, one raises an exception")
    caught = stage.spawn("caught", drive_two, True)
    stage.check(caught.wait(20).exit_code == 0, "who drives them caught it: the other one ran on to its end")
    uncaught = stage.spawn("uncaught", drive_two, False)
    stage.check(uncaught.wait(20).exit_code == 0, "nobody caught it: it ended the driver, and with it the other one")


def drive_two(catch: bool) -> int:
    ended: list[str] = []
    try:
        drive({"good": two_steps(fail=False), "bad": two_steps(fail=True)}, ended, catch)
    except ValueError as error:
        say(f"{error!r} has gone up through the driver and ended it")
    say(f"ran to the end: {', '.join(ended) or 'nobody'}")
    return 0 if ended == (["good"] if catch else []) else 1


def drive(running: dict[str, Coroutine[None, None, None]], ended: list[str], catch: bool) -> None:
    """Each coroutine in turn, as far as its next await: an event loop, and all there is to it."""
    while running:
        for name, unit in list(running.items()):
            try:
                unit.send(None)
            except StopIteration:
                ended.append(name)
                del running[name]
            except ValueError as error:
                if not catch:
                    raise
                say(f"{name} raised {error!r}, and it alone is gone")
                del running[name]


async def two_steps(*, fail: bool) -> None:
    await pause()
    if fail:
        raise ValueError("a mistake")
    await pause()


@coroutine
def pause() -> Generator[None, None, None]:
    yield


if __name__ == "__main__":
    sys.exit(main())

"""execution-units: process, thread and coroutine - what each owns, and what it shares.

    python demos/execution_units.py        (or: ipclab demo execution-units)

Look at: one function run as each of the three. It sets a variable, opens a file and waits; then we ask who sees the
change, who has the file, and - in /proc - who waits, on which stack. Go on with execution-units-race (who loses an
update), execution-units-cost (what each costs) and execution-units-crash (whom each takes down with it).
man: fork(2), clone(2), pthreads(7), /proc/PID/task and /proc/PID/syscall in proc(5)
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import coroutine
from typing import Any

from ipclab.processes import Stage, procfs

FAMILY = "processes"
NEEDS = ()
BETTER_WITH = ()


def main() -> int:
    with Stage("execution-units", "What does a process, a thread, a coroutine own, and what does it share?") as stage:
        units = as_process(stage), as_thread(stage), as_coroutine(stage)
        stage.scene("Side by side, as observed")
        for title in units[0]:
            stage.say(f"{title:<18}" + "".join(f"{unit[title]:<20}" for unit in units).rstrip())
        stage.verdict("a process owns all it has, a thread its registers and its stack, a coroutine one frame")
    return stage.exit_code


def change(box: dict[str, int], kind: str) -> None:
    box["variable"] = 2
    box["fd"] = os.memfd_create(f"opened-by-{kind}")


def as_process(stage: Stage) -> dict[str, str]:
    stage.scene("As a process: fork(2)")
    gate, key = os.pipe()
    before = os.memfd_create("opened-before-the-fork")
    os.pwrite(before, b"abcdef", 0)
    box = {"variable": 1}

    def work() -> None:
        change(box, "process")
        os.read(before, 3)
        os.read(gate, 1)  # waits

    child = stage.spawn("child", work)
    stage.release()
    stage.check(stage.asleep_in(child, syscall="read"), "child set its variable to 2, opened a file, sleeps in read(2)")
    unit = seen("process", box, f"process {child.pid}", registers(child.pid))
    stage.check(box["variable"] == 1, "our variable is still 1: the child has an address space of its own")
    ours, its = has_file(os.getpid(), "process"), has_file(child.pid, "process")
    stage.check(its and not ours, "it has the file and we have not: the child has a descriptor table of its own")
    offset = os.lseek(before, 0, os.SEEK_CUR)
    stage.check(offset == 3, f"what it inherited is shared: it read 3 bytes of a file, we are at byte {offset}")
    os.write(key, b"!")
    child.wait(20)
    return unit


def as_thread(stage: Stage) -> dict[str, str]:
    stage.scene("As a thread: clone(2) with everything shared")
    (gate, key), done = os.pipe(), Event()
    box = {"variable": 1}
    thread = Thread(target=lambda: (change(box, "thread"), done.set(), os.read(gate, 1)), daemon=True)
    thread.start()
    done.wait(20)
    tid = thread.native_id or 0
    stage.check(asleep_in_read(tid), f"it did the same and sleeps in read(2): task {tid} of our process {os.getpid()}")
    unit = seen("thread", box, f"task {tid}", registers(tid))
    stage.check(box["variable"] == 2, "our variable is 2: one address space")
    stage.check(has_file(os.getpid(), "thread"), "we have the file it opened: one descriptor table")
    stage.check(unit["into memory"] != "[stack]", "its stack is in our memory, but not our [stack]: it is its own")
    os.write(key, b"!")
    return unit


def as_coroutine(stage: Stage) -> dict[str, str]:
    stage.scene("As a coroutine: a call that can stop half-way")
    box = {"variable": 1}

    async def work() -> None:
        change(box, "coroutine")
        await pause()

    tasks = set(Path("/proc/self/task").iterdir())
    suspended: Any = work()
    suspended.send(None)
    new = set(Path("/proc/self/task").iterdir()) - tasks
    stage.check(not new, "it did the same and waits at its await; the kernel sees no new task, and we run on")
    unit = seen("coroutine", box, "nothing", ("none", "-", f"line {suspended.cr_frame.f_lineno}"))
    stage.check(box["variable"] == 2 and has_file(os.getpid(), "coroutine"), "our variable is 2, we have its file")
    suspended.close()
    return unit


def seen(kind: str, box: dict[str, int], known_as: str, registers: tuple[str, str, str]) -> dict[str, str]:
    return {
        "": kind,
        "the kernel knows": known_as,
        "address space": "shared" if box["variable"] == 2 else "its own",
        "open files": "shared" if has_file(os.getpid(), kind) else "its own",
        "stack pointer": registers[0],
        "into memory": registers[1],
        "program counter": registers[2],
    }


def has_file(pid: int, kind: str) -> bool:
    return any(f"opened-by-{kind}" in str(link.resolve()) for link in Path(f"/proc/{pid}/fd").iterdir())


def asleep_in_read(tid: int) -> bool:
    """Wait until a thread of ours is (Stage.asleep_in is for processes); None: the kernel does not tell."""
    until, asleep = time.monotonic() + 5, False
    while not asleep and time.monotonic() < until:
        time.sleep(0.001)
        asleep = procfs.state(tid) == "S" and procfs.syscall(tid) in ("read", None)
    return asleep


def registers(tid: int) -> tuple[str, str, str]:
    """Stack pointer, the memory it points into, and program counter of a sleeping task, where the kernel tells."""
    with suppress(OSError, ValueError):
        *_, stack_pointer, program_counter = Path(f"/proc/{tid}/syscall").read_text().split()
        for line in Path(f"/proc/{tid}/maps").read_text().splitlines():
            (low, high), name = (int(end, 16) for end in line.split()[0].split("-")), line[73:] or "without a name"
            if low <= int(stack_pointer, 16) < high:
                return stack_pointer, name, program_counter
    return "not told", "not told", "not told"


@coroutine
def pause() -> Generator[None, None, None]:
    yield


if __name__ == "__main__":
    sys.exit(main())

"""blocked-io: two processes sleep, one in S and one in D. Who waits for what, and whom does a signal reach?

    python demos/blocked_io.py        (or: ipclab demo blocked-io)

Look at: S is a sleep that a signal interrupts, D one that it does not: the handler runs when the sleep is over. What
waits for a disk sleeps in D, for it will be done soon; where it is not, as with a dead file server, D is the state of a
process that nobody gets rid of. man: signal(7), read(2), vfork(2), /proc/PID/status in proc(5)
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from ipclab import _core
from ipclab.processes import Process, Stage, procfs, say

FAMILY = "processes"
NEEDS = ()
BETTER_WITH = ()

PATIENCE_NS = 20 * 10**9
DISK_S = 0.3
CHUNK = bytes(1 << 20)


def main() -> int:
    with Stage("blocked-io", "Two processes wait, one in S and one in D: what is the difference?") as stage:
        with_a_handler(stage)
        with_a_deadly_signal(stage)
        on_a_disk(stage)
        stage.verdict("a signal reaches who sleeps in S at once, and who sleeps in D when the sleep is over")
    return stage.exit_code


# --- 1: a signal with a handler --------------------------------------------------------------------------------------
def with_a_handler(stage: Stage) -> None:
    stage.scene("SIGUSR1, which both have a handler for, to one that sleeps in S")
    word, key = os.pipe()
    ours, theirs = Pipe(duplex=False)
    reader = stage.spawn("reader", sleep, word, theirs, "S")
    stage.release()
    stage.check(settled(stage, reader, "S"), "reader sleeps in read(2), in S: the pipe is empty")
    reader.signal(signal.SIGUSR1)
    stage.check(stage.hear(ours) == "handler", "the handler has run at once, with nothing in the pipe")
    stage.check(settled(stage, reader, "S"), "and it sleeps in read(2) again")

    stage.scene("The same to one that sleeps in D")
    waiter = stage.spawn("waiter", sleep, word, theirs, "D")
    stage.check(settled(stage, waiter, "D"), "waiter sleeps in D: it has vforked, and its child waits for the pipe")
    waiter.signal(signal.SIGUSR1)
    stage.check(is_pending(waiter), "SIGUSR1 is pending (ShdPnd in /proc/PID/status): no handler runs")
    stage.check(not ours.poll(0.1) and waiter.state() == "D", "it sleeps on, in D")
    os.write(key, b"!!")
    heard = sorted(stage.hear(ours) for _ in range(3))
    stage.check(heard == ["handler", "woken", "woken"], "a byte for each: both woke, and now waiter's handler has run")
    stage.check(reader.wait(20).exit_code == 0 and waiter.wait(20).exit_code == 0, "both have ended")


def sleep(word: int, notes: Connection, state: str) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: notes.send("handler"))
    if state == "D":
        _core.sleep_in_d(word, PATIENCE_NS)  # looks at the pipe, and takes nothing out of it
    os.read(word, 1)
    notes.send("woken")


def settled(stage: Stage, process: Process, state: str) -> bool:
    """Whether it sleeps in this state, and goes on doing so; narrated."""
    return stage.asleep_in(process) and stage.look(process).state == state


def is_pending(process: Process) -> bool:
    mask = int(procfs.status(process.pid)["ShdPnd"], 16)
    return bool(mask & 1 << (signal.SIGUSR1 - 1))


# --- 2: a signal without one -----------------------------------------------------------------------------------------
def with_a_deadly_signal(stage: Stage) -> None:
    stage.scene("SIGKILL to both kinds")
    word, _key = os.pipe()
    _ours, theirs = Pipe(duplex=False)
    for role, state in (("reader", "S"), ("waiter", "D")):
        process = stage.spawn(role, sleep, word, theirs, state, killable=True)
        stage.check(settled(stage, process, state), f"{role} sleeps in {state}")
        process.kill()
        stage.check(process.wait(20).signal == signal.SIGKILL, f"{role} was killed in its sleep")
    stage.say("this kind of D is a killable one, as the kernel's newer waits are; in the others SIGKILL waits too")


# --- 3: a disk -------------------------------------------------------------------------------------------------------
def on_a_disk(stage: Stage) -> None:
    stage.scene("One that writes to a file and wants each piece on the disk: fsync(2)")
    ours, theirs = Pipe(duplex=False)
    writer = stage.spawn("writer", write_through, theirs)
    looks: Counter[str] = Counter()
    while not ours.poll(0):
        looks[procfs.state(writer.pid)] += 1
    written: Any = stage.hear(ours)
    told = ", ".join(f"{count} times {state}" for state, count in looks.most_common())
    stage.say(f"looked at without pause while it wrote {written} MiB: {told}")
    stage.say("D is the disk's part of it; a file system in memory has none, and a fast disk little")
    stage.check(writer.wait(20).exit_code == 0, "writer has ended by itself")


def write_through(notes: Connection) -> None:
    written, until = 0, time.monotonic() + DISK_S
    with tempfile.TemporaryFile() as file:  # without a name
        while time.monotonic() < until:
            os.pwrite(file.fileno(), CHUNK, 0)
            os.fsync(file.fileno())
            written += 1
    say(f"wrote and synchronised {written} MiB")
    notes.send(written)


if __name__ == "__main__":
    sys.exit(main())

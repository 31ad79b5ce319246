"""process-states: the life of one process through R, S, D, T, t, Z and X, each state read from /proc.

    python demos/process_states.py        (or: ipclab demo process-states)

Look at: who ends each state. R ends when the process wants to; S when something comes; D when the one it waits for is
done, and no signal handler runs before; T by SIGCONT; t by its tracer; Z by its parent's wait; X by the kernel, within
microseconds. ipclab zoo holds each of them for as long as you like.
man: /proc/PID/stat in proc(5), vfork(2), ptrace(2), wait(2)
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.errors import from_os_error
from ipclab.processes import Stage, procfs, say

FAMILY = "processes"
NEEDS = ()
BETTER_WITH = ()

LIFE = "RSDTtZX"
CODE = 7
PATIENCE_S = 20.0
D_NS = 20 * 10**9  # the most the process sleeps in D
DELAYS_NS = range(0, 2400, 300)  # X is met when a look falls into it: other delays, other chances
MOST_TRIES = 200


def main() -> int:
    with Stage("process-states", "What states does a process go through, and who ends each of them?") as stage:
        ours, theirs = Pipe(duplex=False)
        stage.spawn("parent", watch_a_life, theirs)
        stage.release()
        seen = ""
        while seen != LIFE:
            letter, told = stage.hear(ours, PATIENCE_S)
            seen += letter
            if not stage.check(LIFE.startswith(seen), told):
                break
        code, gone = stage.hear(ours)
        stage.check(code == CODE, f"its exit code, {code}, was kept until its parent asked")
        stage.check(gone, "after X there is no process with this pid")
        stage.verdict("R S D T t Z X: each was seen, in this order, and each was ended by whoever can")
    return stage.exit_code


# --- the process -----------------------------------------------------------------------------------------------------
def live(orders: int) -> None:
    """Go from state to state; a byte in the pipe `orders` means: the next one."""
    while not select.select([orders], [], [], 0)[0]:
        pass  # R: it asks, and never waits
    os.read(orders, 1)
    os.read(orders, 1)  # S: nothing is there to be read
    _core.sleep_in_d(orders, D_NS)  # D: the parent of a vfork waits for its child, which waits for the byte
    os.read(orders, 1)
    os.kill(os.getpid(), signal.SIGSTOP)  # T: every thread of it stops
    os.read(orders, 1)  # asleep again, where the tracer meets it
    os._exit(CODE)  # Z


# --- its parent ------------------------------------------------------------------------------------------------------
def watch_a_life(notes: Connection) -> None:
    orders, order = os.pipe()
    pid = os.fork()
    if pid == 0:
        procfs.set_name("one-life")
        live(orders)

    def next_order() -> None:
        os.write(order, b"!")

    see(notes, pid, "R", "it computes; only it ends that, and the scheduler may take its CPU away")
    then(notes, pid, "S", next_order, "it sleeps in read(2) until a byte comes or a signal")
    then(notes, pid, "D", next_order, "it sleeps until its vfork's child has ended: no signal handler runs before")
    then(notes, pid, "T", next_order, "SIGSTOP stopped it: it goes on with SIGCONT")
    os.kill(pid, signal.SIGCONT)
    wait_for(pid, "S")
    then(notes, pid, "t", lambda: trace(pid), "its tracer has stopped it: we may let it go, and nobody else")
    _core.trace_end(pid)
    wait_for(pid, "S")
    then(notes, pid, "Z", next_order, "it has ended, and its parent has not asked for its exit code")
    status = reap(notes, pid)
    notes.send((os.waitstatus_to_exitcode(status), procfs.state(pid) == "X"))


def then(notes: Connection, pid: int, letter: str, cause: Callable[[], object], told: str) -> None:
    cause()
    see(notes, pid, letter, told)


def see(notes: Connection, pid: int, letter: str, told: str) -> None:
    """Wait until it is in the state, and say what /proc says of it."""
    seen = wait_for(pid, letter)
    call, function = procfs.syscall(pid), procfs.wchan(pid)
    where = f", in system call {call}" if call and seen not in "RZ" else ""
    say(f"one-life[{pid}] is in state {seen}{where}" + (f", in kernel function {function}" if function else ""))
    notes.send((seen, f"{letter}: {told}"))


def wait_for(pid: int, letter: str) -> str:
    """The state at the third look in a row that shows this one, or at the end of our patience."""
    until, looks = time.monotonic() + PATIENCE_S / 2, 0
    while looks < 3 and time.monotonic() < until:
        looks = looks + 1 if procfs.state(pid) == letter else 0
        time.sleep(0.001)
    return procfs.state(pid)


def trace(pid: int) -> None:
    try:
        _core.trace_stop(pid)
    except OSError as err:
        raise from_os_error(err, "tracing a child", hint="kernel.yama.ptrace_scope or seccomp forbids it") from err


def reap(notes: Connection, pid: int) -> int:
    """Wait for it while a thread reads its /proc/PID/stat without pause; who is missed has a successor."""
    status, looks, line = _core.reap_watched(pid, DELAYS_NS[0])
    if len(os.sched_getaffinity(0)) == 1:
        notes.send(("X", "X: not to be met on one CPU, where nobody can look while a parent waits"))
        return status
    tries = 1
    while not line and tries < MOST_TRIES:
        successor = os.fork() or os._exit(CODE)
        _status, looks, line = _core.reap_watched(successor, DELAYS_NS[tries % len(DELAYS_NS)])
        tries += 1
    text = line.decode("ascii", "replace")
    say(f"{looks} looks while we waited; process number {tries} was met in X: {text[:40]!r}")
    notes.send(("X" if ") X " in text else "?", "X: we have waited; the kernel takes down what is left of it"))
    return status


if __name__ == "__main__":
    sys.exit(main())

"""zombie: what is left of a process that has ended, for whom it is kept, and who inherits it.

    python demos/zombie.py        (or: ipclab demo zombie)

Look at: memory and descriptors go at once, long before anybody waits; the exit code and the counters stay until the
parent asks. A parent that dies leaves its children to the nearest subreaper above it, which is init only when there is
no other. man: wait(2), _exit(2), PR_SET_CHILD_SUBREAPER in prctl(2)
"""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from ipclab import _core
from ipclab.processes import Stage, procfs, say

FAMILY = "processes"
NEEDS = ()
BETTER_WITH = ()

CODE = 7
MIB = 1 << 20
HEAVY_BYTES = 32 * MIB
WORK_S = 0.03


def main() -> int:
    with Stage("zombie", "What is left of a process that has ended, and who waits for it?") as stage:
        what_is_left(stage)
        who_inherits(stage)
        stage.verdict("a zombie is an exit code and a few counters, kept for its parent; orphans go to a subreaper")
    return stage.exit_code


# --- 1: what is left -------------------------------------------------------------------------------------------------
def what_is_left(stage: Stage) -> None:
    stage.scene("A child ends, and its parent does not wait")
    ours, theirs = Pipe(duplex=False)
    stage.spawn("parent", look_at_a_zombie, theirs)
    stage.release()
    before_kib, after_kib = stage.hear(ours)
    stage.check(before_kib * 1024 > HEAVY_BYTES, f"alive it had {before_kib // 1024} MiB in memory")
    stage.check(after_kib == 0, "as a zombie it has none: no VmRSS in /proc/PID/status")
    stage.check(stage.hear(ours), "its end of the pipe is closed: we were told end-of-file")
    stage.check(stage.hear(ours) == "Z", "SIGKILL does nothing: it is dead already")
    code, cpu_s, peak_bytes, state = stage.hear(ours)
    stage.check(code == CODE, f"wait4(2): exit code {code}, kept until its parent asked")
    stage.check(cpu_s >= WORK_S, f"wait4(2): it had used {cpu_s * 1000:.0f} ms of CPU time")
    stage.check(peak_bytes > HEAVY_BYTES, f"wait4(2): it had had {peak_bytes // MIB} MiB in memory at its peak")
    stage.check(state == "X", "now it is gone, and its pid is free")


def look_at_a_zombie(notes: Connection) -> None:
    held, end = os.pipe()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        procfs.set_name("child")
        work(ready)
    os.close(end)  # now the child alone has one
    while procfs.state(pid) != "S":
        time.sleep(0.001)
    before_kib = resident_kib(pid)
    os.write(told, b"!")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # only looks
    say(f"child[{pid}] is in state {procfs.state(pid)}; its parent is {procfs.parent(pid)}: that is us")
    notes.send((before_kib, resident_kib(pid)))
    notes.send(os.read(held, 1) == b"")
    os.kill(pid, signal.SIGKILL)
    notes.send(procfs.state(pid))
    _pid, status, usage = os.wait4(pid, 0)
    cpu_s = usage.ru_utime + usage.ru_stime
    notes.send((os.waitstatus_to_exitcode(status), cpu_s, usage.ru_maxrss * 1024, procfs.state(pid)))


def work(ready: int) -> None:
    memory = bytearray(b"x") * HEAVY_BYTES
    while time.process_time() < WORK_S:
        memory[0] ^= 1
    os.read(ready, 1)  # asleep until it has been looked at
    os._exit(CODE)


def resident_kib(pid: int) -> int:
    return int(procfs.status(pid).get("VmRSS", "0 kB").split()[0])


# --- 2: who inherits -------------------------------------------------------------------------------------------------
def who_inherits(stage: Stage) -> None:
    stage.scene("A parent ends before its child")
    ours, theirs = Pipe(duplex=False)
    parent = stage.spawn("parent", leave_a_child, theirs)
    orphan = stage.hear(ours)
    parent.wait(20)
    heir = new_parent(orphan, parent.pid)
    stage.check(heir == os.getpid(), f"orphan[{orphan}] is now a child of {heir}, the stage: a subreaper, and no init")
    os.kill(orphan, signal.SIGTERM)
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    stage.check(procfs.state(orphan) == "Z", "it has ended, and is a zombie of its new parent")
    os.waitpid(orphan, 0)
    stage.check(not Path(f"/proc/{orphan}").exists(), "which has waited for it: gone")

    stage.scene("The same below a subreaper of its own")
    reaper = stage.spawn("reaper", be_subreaper, theirs)
    orphan, heir = stage.hear(ours)
    stage.check(heir == reaper.pid, f"orphan[{orphan}] went to reaper[{heir}], the nearest subreaper, not to us")
    stage.check(reaper.wait(20).exit_code == 0, "the reaper has waited for parent and orphan")


def leave_a_child(notes: Connection) -> None:
    pid = os.fork()
    if pid == 0:
        procfs.set_name("orphan")
        while True:
            signal.pause()
    say(f"I leave my child {pid} and end")
    notes.send(pid)


def be_subreaper(notes: Connection) -> None:
    _core.set_child_subreaper(True)
    ours, theirs = Pipe(duplex=False)
    parent = os.fork()
    if parent == 0:
        leave_a_child(theirs)
        os._exit(0)
    orphan = ours.recv()
    os.waitpid(parent, 0)
    notes.send((orphan, new_parent(orphan, parent)))
    os.kill(orphan, signal.SIGTERM)
    os.waitpid(orphan, 0)


def new_parent(orphan: int, former: int) -> int | None:
    until = time.monotonic() + 5
    while procfs.parent(orphan) == former and time.monotonic() < until:
        time.sleep(0.001)
    return procfs.parent(orphan)


if __name__ == "__main__":
    sys.exit(main())

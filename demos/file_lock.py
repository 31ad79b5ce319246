"""file-lock: flock, fcntl record locks and open-file-description locks: who is the owner, and what lets go.

    python demos/file_lock.py      (or: ipclab demo file-lock)

Look at: the waiter asleep in the kernel; the record lock that is gone although nobody unlocked it (its holder opened
the file once more, only to read, and closed that); and that every kind is let go when its holder is killed.
man: flock(2), fcntl(2) F_SETLK and F_OFD_SETLK, proc_locks(5)
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from ipclab.processes import Process, Stage, registry, say

FAMILY = "synchronisation"
NEEDS = ("flock", "fcntl-lock")
BETTER_WITH = ()

Take = Callable[[int, bool], None]  # a descriptor, and whether to wait for the lock
Cast = tuple[Connection, Process, Connection, Process]  # orders to and notes of the holder, notes of the waiter


def main() -> int:
    with Stage("file-lock", "Who owns a lock on a file, and what lets go of it?") as stage:
        path = registry.new_path("lock")
        path.touch(mode=0o600)
        for kind in KINDS:
            another_close(stage, path, kind)
        for kind in KINDS:
            inherited(stage, path, kind)
        for kind in KINDS:
            holder_is_killed(stage, path, kind)
        path.unlink()
        registry.forget("path", path)
        stage.verdict("flock and OFD locks belong to the open file, record locks to the process: any close drops them")
    return stage.exit_code


# --- three ways to lock a whole file ------------------------------------------------------------------------------
WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock; l_pid must be 0 for OFD


def by_flock(fd: int, wait: bool) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def by_record(fd: int, wait: bool) -> None:
    fcntl.fcntl(fd, fcntl.F_SETLKW if wait else fcntl.F_SETLK, WHOLE_FILE)


def by_ofd(fd: int, wait: bool) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, WHOLE_FILE)


KINDS: dict[str, tuple[Take, str]] = {  # how to take it, and the system call its waiter sleeps in
    "flock": (by_flock, "flock"),
    "record": (by_record, "fcntl"),
    "OFD": (by_ofd, "fcntl"),
}


@contextmanager
def held_and_wanted(stage: Stage, path: Path, kind: str) -> Iterator[Cast]:
    """One process holds the lock, another sleeps in the call that wants it; both are killed at the end."""
    take, call = KINDS[kind]
    (orders, their_orders), (got, their_got) = Pipe(), Pipe(duplex=False)
    holder = stage.spawn("holder", hold, path, take, their_orders, killable=True)
    stage.release()
    stage.hear(orders)
    waiter = stage.spawn("waiter", want, path, take, their_got, killable=True)
    stage.check(stage.asleep_in(waiter, syscall=call), f"the waiter sleeps in {call}(2)")
    yield orders, holder, got, waiter
    for process in (holder, waiter):
        process.kill()
        process.wait(20)


def hold(path: Path, take: Take, orders: Connection) -> None:
    fd = os.open(path, os.O_RDWR)
    take(fd, False)
    orders.send("held")
    orders.recv()
    os.close(os.open(path, os.O_RDONLY))
    say("opened the file once more and closed that, as any library might")
    orders.send("closed")
    orders.recv()


def want(path: Path, take: Take, notes: Connection) -> None:
    take(os.open(path, os.O_RDWR), True)
    say("the call returned: I have the lock")
    notes.send("got it")


def another_close(stage: Stage, path: Path, kind: str) -> None:
    stage.scene(f"{kind}: the holder opens the same file once more, and closes that")
    with held_and_wanted(stage, path, kind) as (orders, _holder, got, waiter):
        for line in Path("/proc/locks").read_text().splitlines():
            if f":{path.stat().st_ino} " in line:
                stage.say(f"/proc/locks: {line}")
        orders.send("open and close")
        stage.hear(orders)
        if kind == "record":
            stage.check(stage.hear(got) == "got it", "its lock is gone, although it never unlocked: the waiter has it")
        else:
            stage.check(stage.asleep_in(waiter, syscall=KINDS[kind][1]), "it still has the lock: the waiter sleeps on")


def inherited(stage: Stage, path: Path, kind: str) -> None:
    stage.scene(f"{kind}: a child takes it again, through the descriptor it inherited")
    take, fd = KINDS[kind][0], os.open(path, os.O_RDWR)
    take(fd, False)
    child = stage.spawn("child", try_it, fd, take)
    stage.release()
    answer = child.wait(20).exit_code
    if kind == "record":
        stage.check(answer in (errno.EAGAIN, errno.EACCES), "refused: the lock is its parent's, a child inherits none")
    else:
        stage.check(answer == 0, "granted: the lock is the open file's, and parent and child share that")
    os.close(fd)


def try_it(fd: int, take: Take) -> int:
    try:
        take(fd, False)
    except OSError as err:
        return err.errno or 0
    return 0


def holder_is_killed(stage: Stage, path: Path, kind: str) -> None:
    stage.scene(f"{kind}: the holder is killed")
    with held_and_wanted(stage, path, kind) as (_orders, holder, got, _waiter):
        holder.kill()
        stage.check(stage.hear(got) == "got it", "the kernel closed the dead one's files, and with them went the lock")


if __name__ == "__main__":
    sys.exit(main())

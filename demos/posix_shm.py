"""posix-shm: two processes map the same pages of memory, found by a name.

    python demos/posix_shm.py        (or: ipclab demo posix-shm)

Look at: three lifetimes that are easily taken for one - the name in /dev/shm, the mapping of a process, and the pages
themselves, which stay as long as either is left. And at what shared memory does not do: tell anybody that something has
changed. That is why a semaphore lies beside the data.
man: shm_overview(7), shm_open(3), shm_unlink(3), mmap(2), sem_overview(7)
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import posix_ipc

from ipclab import _core
from ipclab.errors import from_os_error
from ipclab.processes import Stage, registry, say

FAMILY = "shared memory"
NEEDS = ("posix-shm",)
BETTER_WITH = ()

SIZE = mmap.PAGESIZE
PATIENCE_NS = 20_000_000_000
# what lies where in it: two semaphores, two texts of 12 bytes
WRITTEN, ANSWERED = 0, _core.ALIGN
QUESTION, ANSWER = slice(1024, 1036), slice(2048, 2060)


def main() -> int:
    with Stage("posix-shm", "When two processes share memory: who tells whom, and when is it gone?") as stage:
        with new_segment("demo") as name, attach(name) as memory:
            one_object_two_processes(stage, name, memory)
            name_outlives_the_process(stage, name, memory)
            memory_outlives_the_name(stage, name, memory)
        stage.verdict("what one writes the other sees, but nobody is told; it stays while a name or a mapping is left")
    return stage.exit_code


@contextmanager
def new_segment(label: str) -> Iterator[str]:
    name = registry.new_name("posix-shm", label)
    try:
        segment = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
        os.posix_fallocate(segment.fd, 0, SIZE)  # an error now, where /dev/shm is full: at first touch it were a SIGBUS
        segment.close_fd()
        yield name
    except OSError as error:
        raise from_os_error(error, f"shared memory {name}") from error
    finally:
        with suppress(posix_ipc.Error, OSError):  # the last scene has removed it, or it could not be made
            posix_ipc.unlink_shared_memory(name)
        registry.forget("posix-shm", name)


def attach(name: str) -> mmap.mmap:
    segment = posix_ipc.SharedMemory(name)
    memory = mmap.mmap(segment.fd, SIZE)
    segment.close_fd()  # a mapping does not need it any more
    memory.madvise(mmap.MADV_DONTFORK)  # nobody shall inherit it here: who wants it has to find it by its name
    return memory


# --- 1: shared, and nobody is told -----------------------------------------------------------------------------------
def one_object_two_processes(stage: Stage, name: str, memory: mmap.mmap) -> None:
    stage.scene(f"Two processes open {name}")
    _core.sem_init(memory, WRITTEN, 0)
    _core.sem_init(memory, ANSWERED, 0)
    answerer = stage.spawn("answerer", answer, name)
    stage.release()
    stage.check(stage.asleep_in(answerer, syscall="futex"), "answerer has found it, and sleeps on a semaphore in it")
    stage.look(answerer)
    ours, theirs = mapped_inode(os.getpid(), name), mapped_inode(answerer.pid, name)
    stage.check(ours == theirs != "none", f"we have inode {ours} mapped, answerer {theirs}: one object, twice mapped")
    memory[QUESTION] = b"is it there?"
    stage.check(stage.asleep_in(answerer, syscall="futex"), "we have written, answerer sleeps on: memory tells nobody")
    stage.check(woken_answers(memory) == b"IS IT THERE?", "sem_post(3) woke it, and its answer is in our memory")
    answerer.wait(PATIENCE_NS / 1e9)


def answer(name: str) -> None:
    with attach(name) as memory:
        _core.sem_wait(memory, WRITTEN)
        say(f"woken, reads {memory[QUESTION]!r} from memory: no system call has brought it here")
        memory[ANSWER] = memory[QUESTION].upper()
        _core.sem_post(memory, ANSWERED)


def woken_answers(memory: mmap.mmap) -> bytes:
    _core.sem_post(memory, WRITTEN)
    return memory[ANSWER] if _core.sem_wait(memory, ANSWERED, PATIENCE_NS) else b"nothing"


def mapped_inode(pid: int, name: str) -> str:
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next((line.split()[4] for line in maps if name in line), "none")


# --- 2 and 3: three lifetimes ----------------------------------------------------------------------------------------
def name_outlives_the_process(stage: Stage, name: str, memory: mmap.mmap) -> None:
    stage.scene("The process that wrote is killed")
    victim = stage.spawn("victim", write_and_sleep, name, killable=True)
    stage.check(_core.sem_wait(memory, ANSWERED, PATIENCE_NS), "victim has written, and posted the semaphore")
    victim.kill()
    stage.check(victim.wait(20).signal == signal.SIGKILL, "victim is gone by SIGKILL, without cleaning up")
    heir = stage.spawn("heir", look_up, name, b"last words!!")
    stage.check(heir.wait(20).exit_code == 0, "name and contents are still there: the kernel keeps them")


def write_and_sleep(name: str) -> None:
    with attach(name) as memory:
        memory[QUESTION] = b"last words!!"
        _core.sem_post(memory, ANSWERED)
        signal.pause()


def look_up(name: str, expected: bytes | None) -> int:
    found = None
    try:
        with attach(name) as memory:
            found = memory[QUESTION]
        say(f"opened it by its name, reads {found!r}")
    except posix_ipc.ExistentialError as error:
        say(f"shm_open(3): {error}")
    return 0 if found == expected else 1


def memory_outlives_the_name(stage: Stage, name: str, memory: mmap.mmap) -> None:
    stage.scene("The name is removed while two processes have the memory mapped")
    answerer = stage.spawn("answerer", answer, name)
    stage.check(stage.asleep_in(answerer, syscall="futex"), "answerer has mapped it, and so have we")
    posix_ipc.unlink_shared_memory(name)
    latecomer = stage.spawn("latecomer", look_up, name, None)
    stage.check(latecomer.wait(20).exit_code == 0, "shm_unlink(3): nobody finds it any more")
    memory[QUESTION] = b"still there?"
    stage.check(woken_answers(memory) == b"STILL THERE?", "but who has it mapped goes on sharing it")
    answerer.wait(20)


if __name__ == "__main__":
    sys.exit(main())

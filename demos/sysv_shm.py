"""sysv-shm: shared memory found by a number, whose attachments the kernel counts.

    python demos/sysv_shm.py        (or: ipclab demo sysv-shm)

Look at: nattch, the kernel's count of attachments. A fork raises it without any shmat(2), a SIGKILL lowers it without
any shmdt(2). And at IPC_RMID: it takes the key away at once, but the memory only with its last attachment.
man: sysvipc(7), shmget(2), shmat(2), shmctl(2)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipclab import Unavailable
from ipclab.processes import Stage, registry, say

if TYPE_CHECKING:
    import sysv_ipc

FAMILY = "shared memory"
NEEDS = ("sysv-shm",)
BETTER_WITH = ()

SIZE = 4096
SHM_DEST = 0o1000  # in the mode of a segment that goes with its last attachment, <linux/shm.h>


def main() -> int:
    with Stage("sysv-shm", "Who keeps a SysV segment alive: its creator, its users, or nobody?") as stage:
        with new_segment("demo") as segment:
            nobody_keeps_it(stage, segment)
            kernel_counts_attachments(stage, segment)
            removal_waits_for_the_last(stage, segment)
        stage.verdict("a segment needs nobody to stay; once marked for removal it stays until the last one detaches")
    return stage.exit_code


def sysv() -> Any:
    try:
        import sysv_ipc
    except ImportError as err:
        raise Unavailable("SysV shared memory needs the package sysv_ipc", hint="pip install 'ipclab[sysv]'") from err
    return sysv_ipc


@contextmanager
def new_segment(label: str) -> Iterator[sysv_ipc.SharedMemory]:
    module = sysv()
    key = registry.new_key("sysv-shm", label)
    segment = module.SharedMemory(key, module.IPC_CREX, mode=0o600, size=SIZE)
    try:
        segment.detach()  # sysv_ipc attaches what it creates
        yield segment
    finally:
        with suppress(module.ExistentialError):  # the last scene removes it
            segment.remove()
        registry.forget("sysv-shm", key)


# --- 1: nobody attached ----------------------------------------------------------------------------------------------
def nobody_keeps_it(stage: Stage, segment: sysv_ipc.SharedMemory) -> None:
    stage.scene(f"A writer attaches by key {segment.key:#x}, writes and ends; then a reader comes")
    writer = stage.spawn("writer", write_text, segment.key, "nobody was here")
    stage.release()
    writer.wait(20)
    attached = segment.number_attached
    stage.check(attached == 0, f"writer has ended; nattch is {attached}: nobody is attached, and the segment is there")
    reader = stage.spawn("reader", read_text, segment.key, "nobody was here")
    stage.check(reader.wait(20).exit_code == 0, "reader found it by its key, and in it what writer had left")


def write_text(key: int, text: str) -> None:
    segment = sysv().SharedMemory(key)
    segment.write(text)
    say(f"attached at {segment.address:#x}, wrote {text!r}")


def read_text(key: int, expected: str) -> int:
    segment = sysv().SharedMemory(key)
    text = segment.read(len(expected)).decode()
    say(f"attached at {segment.address:#x}, reads {text!r}")
    return 0 if text == expected else 1


# --- 2: nattch -------------------------------------------------------------------------------------------------------
def kernel_counts_attachments(stage: Stage, segment: sysv_ipc.SharedMemory) -> None:
    stage.scene("We attach, fork a child, and kill it")
    segment.attach()
    counts = [segment.number_attached]
    child = stage.spawn("child", signal.pause, killable=True)
    counts.append(segment.number_attached)
    child.kill()
    child.wait(20)
    counts.append(segment.number_attached)
    stage.say("nattch: {} after our shmat(2), {} after the fork, {} after the child's SIGKILL".format(*counts))
    stage.check(counts == [1, 2, 1], "a fork inherits the attachment, and the kernel gives it back for who is killed")


# --- 3: IPC_RMID -----------------------------------------------------------------------------------------------------
def removal_waits_for_the_last(stage: Stage, segment: sysv_ipc.SharedMemory) -> None:
    stage.scene("IPC_RMID while two processes are attached")
    bell, button = os.pipe()
    holder = stage.spawn("holder", read_when_told, segment, bell, "after the removal")
    key = segment.key
    segment.remove()
    mode, attached = segment.mode, segment.number_attached
    stage.check(bool(mode & SHM_DEST), f"its mode is {mode:o}: marked to be destroyed; nattch is {attached}")
    latecomer = stage.spawn("latecomer", fail_to_attach, key)
    stage.check(latecomer.wait(20).exit_code == 0, "nobody finds it by its key any more")

    segment.write("after the removal")
    os.write(button, b"!")
    stage.check(holder.wait(20).exit_code == 0, "who is attached goes on sharing it: holder read what came later")
    stage.check(is_listed(segment.id), f"holder has ended; /proc/sysvipc/shm still has id {segment.id}, because of us")
    segment.detach()
    stage.check(not is_listed(segment.id), "we detach, the last one: now it is gone from /proc/sysvipc/shm")
    os.close(bell)
    os.close(button)


def read_when_told(segment: sysv_ipc.SharedMemory, bell: int, expected: str) -> int:
    os.read(bell, 1)
    text = segment.read(len(expected)).decode()
    say(f"reads {text!r}")
    return 0 if text == expected else 1


def fail_to_attach(key: int) -> int:
    try:
        sysv().SharedMemory(key)
    except sysv().ExistentialError as error:
        say(f"shmget(2): {error}")
        return 0
    return 1


def is_listed(shmid: int) -> bool:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return shmid in [int(line.split()[1]) for line in lines]


if __name__ == "__main__":
    sys.exit(main())

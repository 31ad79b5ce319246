"""memfd: memory without a name, handed to another process by passing its descriptor through a socket.

    python demos/memfd.py        (or: ipclab demo memfd)

Look at: /proc/PID/fd of the receiver, before and after. It was started before the memory existed, so it cannot have
inherited it; SCM_RIGHTS puts a descriptor into it while it waits. Then at the seals, which let the receiver trust
memory that somebody else has made, and at what is left when that somebody is killed.
man: memfd_create(2), unix(7) SCM_RIGHTS, F_ADD_SEALS in fcntl(2)
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import socket
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ipclab.errors import TimedOut
from ipclab.processes import Process, Stage, say

FAMILY = "shared memory"
NEEDS = ("memfd", "fd-passing")
BETTER_WITH = ()

SIZE = mmap.PAGESIZE
LABEL = "ipclab-demo"  # shown in /proc/PID/fd and nowhere else: it is no name by which anybody could open it
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
FIRST, SECOND = b"written by the owner", b"added by the receiver"
PLACE_1, PLACE_2 = slice(0, len(FIRST)), slice(1000, 1000 + len(SECOND))


def main() -> int:
    with Stage("memfd", "How does one hand memory to one process, and to nobody else?") as stage:
        link, other_end = socket.socketpair()
        to_owner, owner_end = Pipe()
        to_receiver, receiver_end = Pipe()
        receiver = stage.spawn("receiver", receive_memory, other_end, receiver_end)
        owner = stage.spawn("owner", make_memory, link, owner_end, killable=True)
        stage.release()

        memory_crosses_over(stage, owner, receiver, to_owner, to_receiver)
        both_see_the_same(stage, to_owner, to_receiver)
        memory_outlives_its_maker(stage, owner, receiver, to_receiver)
        for end in (link, other_end, to_owner, owner_end, to_receiver, receiver_end):
            end.close()
        stage.verdict("a descriptor is the key to nameless memory: SCM_RIGHTS copies it, the last copy keeps it alive")
    return stage.exit_code


# --- the two processes -----------------------------------------------------------------------------------------------
def make_memory(link: socket.socket, narrator: Connection) -> None:
    narrator.recv()
    fd = os.memfd_create(LABEL, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.posix_fallocate(fd, 0, SIZE)
    memory = mmap.mmap(fd, SIZE)
    memory[PLACE_1] = FIRST
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)  # from here on its size is fixed, whoever asks
    say(f"memfd_create(2) gave fd {fd}; sends it with SCM_RIGHTS")
    socket.send_fds(link, [b"m"], [fd])  # SCM_RIGHTS rides on at least one byte of data
    link.recv(1)  # asleep until the receiver has answered
    narrator.send(memory[PLACE_2])
    signal.pause()


def receive_memory(link: socket.socket, narrator: Connection) -> None:
    _, (fd, *_), _, _ = socket.recv_fds(link, 1, 1)
    say(f"recvmsg(2) gave fd {fd}")
    memory = mmap.mmap(fd, SIZE)
    narrator.send(memory[PLACE_1])
    narrator.recv()
    memory[PLACE_2] = SECOND
    try:
        os.ftruncate(fd, 0)
        narrator.send(0)
    except OSError as error:
        narrator.send(error.errno)
    link.send(b"a")
    narrator.recv()
    narrator.send(memory[PLACE_1])


# --- 1: the descriptor -----------------------------------------------------------------------------------------------
def memory_crosses_over(
    stage: Stage, owner: Process, receiver: Process, to_owner: Connection, to_receiver: Connection
) -> None:
    stage.scene("receiver waits; only then owner makes the memory, and sends its descriptor")
    stage.check(stage.asleep_in(receiver, syscall="recvmsg"), "receiver sleeps in recvmsg(2)")
    stage.check(not memfds(owner.pid) and not memfds(receiver.pid), "nobody has the memfd yet: it cannot be inherited")
    to_owner.send("go")
    stage.check(hear(to_receiver) == FIRST, "receiver has mapped it and reads what owner wrote before sending")
    owners, receivers = memfds(owner.pid), memfds(receiver.pid)
    stage.say(f"in /proc/PID/fd owner has it as {', '.join(owners)}, receiver as {', '.join(receivers)}")
    inodes = {*owners.values(), *receivers.values()}
    same = bool(owners and receivers) and len(inodes) == 1
    stage.check(same, f"descriptors of two processes, one object: inode {', '.join(map(str, inodes))}")


def memfds(pid: int) -> dict[str, int]:
    """Number and inode of every descriptor of a process that is our memfd; Python's mmap keeps one of its own."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return {link.name: link.stat().st_ino for link in links if f"memfd:{LABEL}" in str(link.readlink())}


# --- 2: the memory ---------------------------------------------------------------------------------------------------
def both_see_the_same(stage: Stage, to_owner: Connection, to_receiver: Connection) -> None:
    stage.scene("receiver writes into it, and tries to make it shorter")
    to_receiver.send("go")
    refusal = hear(to_receiver)
    stage.check(hear(to_owner) == SECOND, "owner reads in its own memory what receiver wrote")
    told = errno.errorcode.get(refusal, "nothing")
    stage.check(refusal == errno.EPERM, f"ftruncate(2) was told {told}: sealed, nobody can pull it away under others")


# --- 3: the lifetime -------------------------------------------------------------------------------------------------
def memory_outlives_its_maker(stage: Stage, owner: Process, receiver: Process, to_receiver: Connection) -> None:
    stage.scene("owner is killed")
    owner.kill()
    stage.check(owner.wait(20).signal == signal.SIGKILL, "owner is gone by SIGKILL, and its descriptor with it")
    to_receiver.send("go")
    stage.check(hear(to_receiver) == FIRST, "receiver still reads what owner wrote: its descriptor keeps it")
    stage.check(receiver.wait(20).exit_code == 0, "receiver has ended, the last one: there is no name to remove")


def hear(process: Connection) -> Any:
    if not process.poll(20):
        raise TimedOut("a process of the demo does not answer")
    return process.recv()


if __name__ == "__main__":
    sys.exit(main())

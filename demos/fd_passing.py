"""fd-passing: an open file travels from one process to another: not its number, not its name, the open file itself.

    python demos/fd_passing.py     (or: ipclab demo fd-passing)

Look at: the number, which differs; the offset, which both share, because it belongs to the open file; and that the file
is read to its end although it has no name any more and the process that had opened it was killed.
man: unix(7) SCM_RIGHTS, sendmsg(2), open(2) "open file description"
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from ipclab.processes import Stage, registry, say

FAMILY = "data transfer"
NEEDS = ("fd-passing",)
BETTER_WITH = ()

TEXT = b"read by the sender|read by the receiver"
FIRST = TEXT.index(b"|") + 1


def main() -> int:
    with Stage("fd-passing", "What arrives when a process sends a file descriptor?") as stage:
        an_open_file_travels(stage)
        stage.verdict("what travels is the open file: one offset for both, and it lives as long as anybody holds it")
    return stage.exit_code


def an_open_file_travels(stage: Stage) -> None:
    stage.scene("The sender opens a file, removes its name, reads a part, sends the descriptor, and is killed")
    path = registry.new_path("letter")
    path.write_bytes(TEXT)
    here, there = socket.socketpair()
    ours, theirs = Pipe()
    sender = stage.spawn("sender", send_open_file, here, path, theirs, killable=True)
    receiver = stage.spawn("receiver", receive_open_file, there, theirs)
    stage.release()
    sent = stage.hear(ours)
    registry.forget("path", path)
    stage.check(not path.exists(), "the file has no name any more")
    sender.kill()
    stage.check(sender.wait(20).signal == signal.SIGKILL, "the sender is dead; the descriptor is on its way")
    ours.send("take it")
    number, offset, rest = stage.hear(ours)
    receiver.wait(20)
    stage.say(f"descriptor {sent} of the sender is descriptor {number} of the receiver")
    stage.check(offset == FIRST, f"the offset came along: {offset}, where the sender had stopped")
    stage.check(rest == TEXT[FIRST:], f"the receiver read the rest: {rest.decode()!r}")


def send_open_file(sock: socket.socket, path: Path, notes: Connection) -> None:
    for _ in range(10):
        os.dup(0)  # so that the numbers differ
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    say(f"open(2) gave descriptor {fd}; read {os.read(fd, FIRST)!r} from it")
    socket.send_fds(sock, [b"here"], [fd])
    notes.send(fd)
    signal.pause()


def receive_open_file(sock: socket.socket, notes: Connection) -> None:
    notes.recv()
    _text, fds, _flags, _address = socket.recv_fds(sock, 16, maxfds=1)
    offset = os.lseek(fds[0], 0, os.SEEK_CUR)
    rest = os.read(fds[0], 1000)
    say(f"recvmsg(2) gave descriptor {fds[0]} at offset {offset}; link count {os.fstat(fds[0]).st_nlink}")
    notes.send((fds[0], offset, rest))


if __name__ == "__main__":
    sys.exit(main())

"""An orderly end of a ZeroMQ connection that loses nothing: waiting until the peer has read what was sent.

What libzmq calls lingering (ZMQ_LINGER) hands what is queued to the kernel, and closes. With a peer that reads slowly
that is too early, in three ways (libzmq 4.3, stream_engine_base.cpp and pipe.cpp):

  1. the last batch is taken out of the queue before it is written; when the kernel takes only a part of it, the rest
     is forgotten with the engine
  2. a peer at its high-water mark does not read; when it sees the hang-up of a Unix socket in that state, it gives up
     what its kernel still holds (restart_input)
  3. closing on data that was never received turns the end of a TCP connection into a reset, which looks like 2

So a close here takes three steps, all within one deadline:

  a. keep a descriptor of our own for the connection: libzmq's close is then not the end of it
  b. before libzmq closes, and once more after it, wait until the kernel holds nothing of ours (SIOCOUTQ is 0) and our
     I/O thread sleeps: with room in the kernel it sleeps only when it has nothing left to write
  c. read away what we never received, and close

Rejected: a goodbye that the peer acknowledges in band: it would need the peer's program to be receiving, and every
message to be looked at.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ipclab.processes import procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ipclab.mechanisms.base import Deadline

#: How often to look whether the peer has read everything. Chosen: nobody tells when that happens.
LOOK_MS = 1


def tasks() -> set[int]:
    """The threads of this process."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def keep(fds: Collection[int], is_ours: Callable[[socket.socket], bool]) -> Iterator[socket.socket]:
    """A descriptor of our own for each connection; `is_ours` tells it from something else that got its number."""
    for fd in fds:
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue  # closed in this very moment, or no socket: nothing to keep
        try:
            ours = is_ours(sock)
        except OSError:
            ours = False  # the peer has hung up
        if ours:
            yield sock
        else:
            sock.close()


def until_taken(connections: list[socket.socket], threads: Collection[int], deadline: Deadline) -> bool:
    """Wait until all that was sent has left us, or the time is over; False when a peer has hung up meanwhile.

    No connection: no wait.
    """
    poller = select.poll()
    for sock in connections:
        poller.register(sock, select.POLLRDHUP)
    while connections and not deadline.over():
        kernel_is_empty = not any(_unread_bytes(sock) for sock in connections)
        # In this order: whoever writes after the kernel was found empty was awake.
        taken = kernel_is_empty and asleep(threads)
        # In this order too: a peer that dies hangs up first, and then empties what the kernel held for it.
        if poller.poll(0 if taken else LOOK_MS):
            return False
        if taken:
            return True
    return True


def until_asleep(threads: Collection[int], deadline: Deadline) -> None:
    """Wait until none of the threads runs: what they had to do is done. Or until the time is over."""
    while not asleep(threads) and not deadline.over():
        time.sleep(LOOK_MS / 1000)


def asleep(threads: Collection[int]) -> bool:
    """Whether none of the threads runs or is about to; those that have ended do not."""
    return not any(procfs.state(tid) in ("R", "D") for tid in threads)


def drain(sock: socket.socket) -> None:
    """Read away what has come."""
    with suppress(OSError):
        while sock.recv(65536, socket.MSG_DONTWAIT):
            pass


def _unread_bytes(sock: socket.socket) -> int:
    """What was sent and not yet read (Unix) or not yet acknowledged (TCP): SIOCOUTQ, unix(7) and tcp(7)."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0

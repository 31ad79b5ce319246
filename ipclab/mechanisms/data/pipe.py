"""pipe: a one-way stream of bytes between related processes.

    writer --write(2)-->  [ kernel: a ring of page buffers ]  --read(2)-->  reader

What it is. pipe2(2) returns two descriptors of one kernel buffer: what is written into the second is read from the
first. A pipe goes one way, so a link is two of them. It has no name: only a process that inherited a descriptor, or
was sent one (see fd-passing), can use it. O_CLOEXEC keeps descriptors from programs started later, O_NONBLOCK makes
calls fail with EAGAIN instead of waiting.

Lifetime. The pipe lives while a descriptor of it is open, and dies with the last; nothing is left to clean up,
however its users end.

Boundaries. None. It is a stream: two writes may be read as one and one write as two. A write of at most PIPE_BUF
bytes (4096 on Linux) is atomic, it never mixes with another writer's; a longer one may. Whoever needs messages writes
each one's length in front of it.

Order. First in, first out. With several writers each one's own bytes stay in order, up to PIPE_BUF in one piece.

Capacity and limits. 65536 bytes unless changed by fcntl(F_SETPIPE_SZ), which rounds up to a power of two of pages.
Without CAP_SYS_RESOURCE it stops at /proc/sys/fs/pipe-max-size; a user whose pipes together pass pipe-user-pages-soft
gets new ones of two pages and may not enlarge any. `PipeLink.open` asks for room for all `depth` messages and takes
what it is given: `capacity_bytes` tells. Small writes share a page only while the next one fits whole, so writes of
just over half a page fill a pipe at little more than half its byte count.

Blocking. read(2) sleeps while the pipe is empty, write(2) while it is full. A reader much slower than the writer thus
slows the writer down: that is back-pressure, and it comes for free.

When an end dies. When the last write end is closed, the reader gets what is left and then end-of-file (read returns
0). When the last read end is closed, a writer gets SIGPIPE, or EPIPE where it ignores that signal, as Python does.
Both happen too when the holder is killed, since the kernel closes its descriptors. Both need the *last* copy to be
closed: a write end forgotten in another process is why programs hang on a pipe that "must have ended".

Use it when one process feeds another of the same family with a stream: a pipeline, a child's output, a wake-up byte.

Not when messages must stay apart (unix-seqpacket, posix-mq), strangers must find each other (fifo, a socket), or
large data goes round often (shared memory: a pipe copies every byte twice).

Man pages. pipe(7), pipe(2), fcntl(2), fifo(7), proc_sys_fs(5), splice(2).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from ipclab.mechanisms.base import Link
from ipclab.mechanisms.data._pipes import enlarge, pipe_limits, pipe_pairs, probe_pipe, resize
from ipclab.mechanisms.data._streams import PipeEnd
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom

MECHANISM = Mechanism(
    name="pipe",
    family="data transfer",
    summary="a one-way stream of bytes between related processes",
    lifetime="process",
    go="os.Pipe",
    boundaries=False,
    duplex=False,
    man_pages=("pipe(7)", "pipe(2)", "fcntl(2)", "proc_sys_fs(5)"),
)


def probe() -> Probe:
    """Make a pipe and close it."""
    return probe_pipe()


def limits() -> tuple[Limit, ...]:
    """What bounds a pipe here."""
    return pipe_limits()


class PipeLink(Link):
    """Two pipes, one for each direction."""

    name = "pipe"

    def __init__(self, cloakroom: Cloakroom, capacity_bytes: int) -> None:
        self._cloakroom = cloakroom
        #: Room of each pipe as the kernel gave it.
        self.capacity_bytes = capacity_bytes

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8, capacity_bytes: int | None = None) -> Self:
        """Make both pipes, with room for `depth` messages or of `capacity_bytes`, as far as the kernel allows.

        A pipe is made smaller than it comes (65536 bytes) only by an explicit `capacity_bytes`. Raises NoRoom.
        """
        if capacity_bytes is None:
            size = partial(enlarge, wanted_bytes=message_bytes * depth)
        else:
            size = partial(resize, wanted_bytes=capacity_bytes)
        return cls(*pipe_pairs(cls.name, size=size))

    def take(self, side: Side) -> PipeEnd:
        """This side's two descriptors; never blocks."""
        read_fd, write_fd = self._cloakroom.fetch(side)
        return PipeEnd(read_fd, write_fd, self.name)

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


LINK = PipeLink

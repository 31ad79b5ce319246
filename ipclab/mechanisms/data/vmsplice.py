"""vmsplice: a pipe whose pages are the sender's own, not copies of them.

    sender's page --vmsplice(2)--> [ pipe: a reference to that page ] --read(2)--> copied once, into the reader's buffer

What it is. write(2) into a pipe allocates kernel pages and copies into them. vmsplice(2) puts references to the
caller's own pages into the pipe instead; the only copy left is the reader's. (The other way round, vmsplice on the
reading end, copies like read; SPLICE_F_GIFT says "you may keep the page" and changes nothing for a read.) splice(2)
and tee(2) are its relatives: from a file or socket to a pipe, and from pipe to pipe.

Lifetime. That of the pipe. A page in a pipe stays in memory even if the process that owned it unmaps it or dies.

Boundaries. None, as in every pipe.

Order. First in, first out.

Capacity and limits. A pipe has slots, one for each page of its F_GETPIPE_SZ, and every spliced page takes a whole
slot however few of its bytes are used: 16 messages of 1 byte fill a default pipe. Otherwise the limits are the
pipe's.

Blocking. Like write(2): sleeps while no slot is free; SPLICE_F_NONBLOCK gives EAGAIN.

The catch. What is in the pipe is the page, not its content at the time of the call. Change the buffer before the
reader has read it and the reader reads the change. No call reports "that page is free again". Two ways out are shown:
  1. `send` copies the message into staging pages of its own and splices those. The pipe has N slots, so once N
     further pages went in, a page must have come out: 2 N staging pages, used in rotation, are never written while in
     the pipe. Nobody has to wait, and the caller's buffer is free at once. Still cheaper than write: no page is
     allocated.
  2. `send_in_place` splices the caller's own pages, no copy at all, and returns only when the pipe is empty
     (FIONREAD). The kernel does not wake anybody for that, so it looks, ever more seldom, up to every millisecond.

When an end dies. As with a pipe. A dead sender's pages can still be read.

Use it when large blocks go through a pipe, and the reader may even splice them on to a file or socket.

Not when messages are smaller than about a page, or when the buffer is changed while it is on its way and nothing says
when that is safe.

Man pages. vmsplice(2), splice(2), tee(2), pipe(7).
"""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import select
import termios
import time
from functools import partial
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import PeerGone
from ipclab.mechanisms.base import Deadline, Link, NativeSpec
from ipclab.mechanisms.data._pipes import capacity, enlarge, pipe_limits, pipe_pairs, probe_pipe
from ipclab.mechanisms.data._streams import PipeEnd
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom
    from ipclab.mechanisms.data._streams import Bytes

MECHANISM = Mechanism(
    name="vmsplice",
    family="data transfer",
    summary="a pipe that carries the sender's own pages instead of copies",
    lifetime="process",
    boundaries=False,
    duplex=False,
    man_pages=("vmsplice(2)", "splice(2)", "tee(2)", "pipe(7)"),
)

#: How long `send_in_place` sleeps between two looks at the pipe, first and at most. Chosen: a reader that is running
#: takes a page in about a microsecond, one that is not running is not worth more than 0.1 % of a CPU.
_FIRST_LOOK_S = 20e-6
_LAST_LOOK_S = 1e-3


def probe() -> Probe:
    """Splice one byte of this process into a pipe."""
    works = probe_pipe()
    if not works.works:
        return works
    fds = os.pipe2(os.O_CLOEXEC)
    try:
        _core.vmsplice(fds[1], b"x")
    except OSError as err:
        return Probe(works=False, reason=f"vmsplice: {err.strerror}", remedy="allow vmsplice(2) in the seccomp profile")
    finally:
        os.close(fds[0])
        os.close(fds[1])
    return works


def limits() -> tuple[Limit, ...]:
    """What bounds a pipe here, and its slots."""
    page = Limit(name="one slot of the capacity", value=mmap.PAGESIZE, unit="bytes", source="sysconf(_SC_PAGESIZE)")
    return (*pipe_limits(), page)


class Staging:
    """Pages that are written, spliced, and not written again before as many have followed as the pipe has slots.

        |  k, k+1 ... still in the pipe, at most N  |  free to be written, at least N  |      2 N pages, a circle
                                                     ^ next
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._pages = mmap.mmap(-1, 2 * slots * mmap.PAGESIZE)
        self._view = memoryview(self._pages)
        self._next = 0  # page
        self._waiting = self._view[:0]  # staged, not yet spliced
        self._spliced_bytes = 0  # of the present message

    def stage(self, data: Bytes, spliced_bytes: int) -> memoryview:
        """The next piece to splice, when `spliced_bytes` of the message have gone and `data` is what is left of it.

        It is what is still staged, or a copy of the beginning of `data`: at most as many pages as the pipe has slots.
        """
        self._count(spliced_bytes)
        if not self._waiting:
            room = min(self._slots, 2 * self._slots - self._next) * mmap.PAGESIZE
            start, length = self._next * mmap.PAGESIZE, min(room, len(data))
            self._view[start : start + length] = memoryview(data)[:length]
            self._waiting = self._view[start : start + length]
        return self._waiting

    def finish(self, spliced_bytes: int) -> None:
        """The message is over, after so many bytes: all, or those that had gone when it was given up."""
        self._count(spliced_bytes)
        self._waiting = self._view[:0]
        self._spliced_bytes = 0

    def _count(self, spliced_bytes: int) -> None:
        """Go on behind what the pipe took since the last time: whole pages, or all that was left."""
        new_bytes, self._spliced_bytes = spliced_bytes - self._spliced_bytes, spliced_bytes
        self._waiting = self._waiting[new_bytes:]
        self._next = (self._next + -(-new_bytes // mmap.PAGESIZE)) % (2 * self._slots)

    def close(self) -> None:
        """Unmap the pages; those in the pipe stay readable."""
        self._waiting.release()
        self._view.release()
        self._pages.close()


class VmspliceEnd(PipeEnd):
    """An end of two pipes that sends by vmsplice(2) and receives by read(2)."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__(read_fd, write_fd, MECHANISM.name)
        self._staging = Staging(capacity(write_fd) // mmap.PAGESIZE)
        self._in_place = False

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Copy `data` to staging pages and splice those; blocks while the pipe is full, never for the reader."""
        self._finish_last()
        super().send(data, timeout_s)

    def native(self) -> NativeSpec:
        """By vmsplice(2) of pages the messages are built in, in turn, and read(2)."""
        return super().native()._replace(kind="vmsplice")

    def send_in_place(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Splice the pages of `data` itself and return when the reader has emptied the pipe.

        When it raises with bytes under way (TimedOut, PeerGone, KeyboardInterrupt) the pages are still in the pipe:
        the stream counts as broken, and a reader of what is left would see later changes of the buffer.
        """
        deadline = Deadline(timeout_s)
        self._finish_last()
        self._in_place = True
        try:
            super().send(data, timeout_s)
            self._wait_empty(deadline)
        except BaseException:
            if self._sent:
                self._torn["send"] = "the stream is broken: the reader has not taken the pages sent in place"
            raise
        finally:
            self._in_place = False
            self._sent = []

    def _finish_last(self) -> None:
        """Not at the end of a send: an exception of a signal handler may have come in between."""
        self._check("send")
        self._staging.finish(sum(self._sent))
        self._sent = []

    def _writing(self, part: Bytes, wait: bool) -> Iterator[int]:
        self._let_wait(wait)
        staged = part if self._in_place else self._staging.stage(part, sum(self._sent))
        return map(_core.vmsplice, (self._out,), (staged,), (0 if wait else os.SPLICE_F_NONBLOCK,))

    def _wait_empty(self, deadline: Deadline) -> None:
        unread = array.array("i", [0])
        poller = select.poll()
        poller.register(self._out, 0)  # POLLERR, the reader has closed, is always reported
        nap_s = _FIRST_LOOK_S
        while fcntl.ioctl(self._out, termios.FIONREAD, unread) == 0 and unread[0]:
            if poller.poll(0) or (self._peer is not None and self._peer.gone()):
                raise PeerGone(f"{self._what}: the other side has closed its end", errno=errno.EPIPE)
            deadline.check(f"{self._what}: waiting until the reader has taken the pages")
            time.sleep(deadline.slice_s(nap_s))
            nap_s = min(2 * nap_s, _LAST_LOOK_S)

    def _close_fds(self) -> None:
        super()._close_fds()
        self._staging.close()


class VmspliceLink(Link):
    """Two pipes, one for each direction."""

    name = "vmsplice"

    def __init__(self, cloakroom: Cloakroom, capacity_bytes: int) -> None:
        self._cloakroom = cloakroom
        #: Room of each pipe as the kernel gave it; one slot for each page of it.
        self.capacity_bytes = capacity_bytes

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make both pipes, with a slot for every page of `depth` messages where the kernel allows. Raises NoRoom."""
        pages = max(1, -(-message_bytes // mmap.PAGESIZE)) * depth
        return cls(*pipe_pairs(cls.name, size=partial(enlarge, wanted_bytes=pages * mmap.PAGESIZE)))

    def take(self, side: Side) -> VmspliceEnd:
        """This side's two descriptors; never blocks."""
        return VmspliceEnd(*self._cloakroom.fetch(side))

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


LINK = VmspliceLink

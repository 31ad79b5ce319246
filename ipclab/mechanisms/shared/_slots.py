"""How messages are carried through memory that two processes share: a bounded buffer of slots, each way.

The kernel maps pages and does nothing else: it does not know when a message is complete, wakes nobody, and tells
nobody that the other side died. All of that is this file, and it is the textbook's bounded buffer.

    header | a to b: filled, free, final, gone, slots 0 .. depth-1 | b to a: the same

    filled  semaphore: how many slots hold a message        the writer posts, the reader waits
    free    semaphore: how many slots are empty             the reader posts, the writer waits
    final   how many messages the writer sent in all; OPEN until it closes      the writer alone writes it
    gone    1 when the reader has closed                                        the reader alone writes it
    a slot  a line with the message's length, then its bytes                    whoever waited for it

Both semaphores are unnamed POSIX ones (sem_init(3)) that lie in the segment itself, also in SysV shared memory: SysV
semaphores would be a second kernel object with a key of its own that a crash leaves behind, and each operation of
theirs is a system call, while sem_post and sem_wait make one only when somebody sleeps.

Order of the writer                                    Order of the reader
  1. wait for `free`                                     1. wait for `filled`
  2. copy the bytes, then the length, into the slot      2. all messages there were? then the end: PeerGone
  3. post `filled`: now the message is published         3. copy the bytes out
                                                         4. post `free`

Only one process writes in each direction and only one reads, so the next slot's number is each one's own variable and
needs no lock. sem_post releases and sem_wait acquires: who has waited sees what was written before the post.

A kill -9 between two stores. A writer killed before step 3 has published nothing: the half-written slot is never
looked at, the reader gets the messages before it and then waits. A reader killed before step 4 has lost what it was
copying, and its slot, but it was the only one who wanted either. A semaphore changes in one atomic instruction: it is
never half changed. What is missing is the news: the survivor sleeps. So `watch(pid)` makes every wait look for the
peer each PEER_LOOK_S; an orderly close sets `final` and `gone` and posts both, so that the other side needs no watch.

An end that was left in the middle of a call by an exception (a KeyboardInterrupt) is good for close() only.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import BufferTooSmall, IpclabError, MessageTooLarge, PeerGone, UsageError
from ipclab.mechanisms.base import PEER_LOOK_S, Deadline, End, Link, NativeSpec, Peer, Side, watched
from ipclab.mechanisms.shared._segment import MOST_BYTES, Segment

if TYPE_CHECKING:
    from typing_extensions import Buffer

LINE = _core.ALIGN
#: `final` while the writer has not closed.
OPEN = (1 << 64) - 1
#: Offsets in a direction's block; each word on a cache line of its own, because its writers differ.
FILLED, FREE, FINAL, GONE, SLOTS = 0, LINE, 2 * LINE, 3 * LINE, 4 * LINE
#: sem_init(3) takes no more (SEM_VALUE_MAX); one token is kept for each close.
MOST_SLOTS = (1 << 31) - 2
LIMIT_SOURCE = "the slots' size, message_bytes of open()"


class Layout:
    """Where everything lies in the segment; offsets and sizes in bytes."""

    __slots__ = ("block_bytes", "depth", "message_bytes", "size_bytes", "stride")

    def __init__(self, message_bytes: int, depth: int) -> None:
        if message_bytes < 0 or not 1 <= depth <= MOST_SLOTS:
            raise UsageError(
                f"{depth} slots of {message_bytes} bytes cannot be",
                hint=f"message_bytes is 0 or more, depth 1 to {MOST_SLOTS}",
            )
        self.message_bytes = message_bytes
        self.depth = depth
        self.stride = LINE + (message_bytes + LINE - 1) // LINE * LINE
        self.block_bytes = SLOTS + depth * self.stride
        self.size_bytes = LINE + 2 * self.block_bytes
        if self.size_bytes > MOST_BYTES:
            raise MessageTooLarge(message_bytes, MOST_BYTES // 2 // depth - 2 * LINE, "a process's address space")

    def block(self, sender: Side) -> int:
        """Where the block of the direction begins in which this side sends."""
        return LINE if sender == "a" else LINE + self.block_bytes

    def prepare(self, buffer: memoryview) -> None:
        """Fill in a new segment; done by its creator, before anybody else sees it."""
        words = buffer.cast("Q")
        words[0], words[1] = self.message_bytes, self.depth
        for sender in ("a", "b"):
            at = self.block(sender)
            words[(at + FINAL) // 8], words[(at + GONE) // 8] = OPEN, 0
            _core.sem_init(buffer, at + FILLED, 0)
            _core.sem_init(buffer, at + FREE, self.depth)
        words.release()


def as_bytes(data: Buffer) -> memoryview:
    """The same bytes, one by one. TypeError when they do not lie in one piece."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


class SlotEnd(End):
    """One process's side: it writes the slots of one block and reads those of the other."""

    limit_source = LIMIT_SOURCE

    def __init__(self, what: str, buffer: memoryview, layout: Layout, side: Side) -> None:
        self._what = what
        self._memory = buffer[:]
        self._words = self._memory.cast("Q")
        self._layout = layout
        self._side = side
        self._native = False
        self.limit_bytes = layout.message_bytes
        self._out = layout.block(side)
        self._in = layout.block("b" if side == "a" else "a")
        self._sent = 0
        self._received = 0
        self._peer: Peer | None = None
        self._next_look_ns = 0
        self._pid = os.getpid()
        self._closed = False

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Copy one message into the next slot; blocks while all are full. See End.send."""
        source = as_bytes(data)
        length = source.nbytes
        layout = self._layout
        if length > layout.message_bytes:
            raise MessageTooLarge(length, layout.message_bytes, LIMIT_SOURCE)
        words, out = self._open_words(), self._out
        if words[(out + GONE) // 8] or self._peer_found_dead():
            raise self._gone()
        self._wait(out + FREE, timeout_s, "no slot was freed")
        if words[(out + GONE) // 8]:
            _core.sem_post(self._memory, out + FREE)
            raise self._gone()
        slot = out + SLOTS + self._sent % layout.depth * layout.stride
        if length:
            self._memory[slot + LINE : slot + LINE + length] = source
        words[slot // 8] = length
        self._sent += 1
        _core.sem_post(self._memory, out + FILLED)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Copy the next message out of its slot; blocks while there is none. See End.recv_into."""
        target = as_bytes(buffer)
        if target.readonly:
            raise TypeError("the buffer to receive into must be writable")
        words, layout, into = self._open_words(), self._layout, self._in
        self._wait(into + FILLED, timeout_s, "no message came")
        if words[(into + FINAL) // 8] == self._received:
            _core.sem_post(self._memory, into + FILLED)  # the end stays the end for the next call
            raise self._gone()
        slot = into + SLOTS + self._received % layout.depth * layout.stride
        length = words[slot // 8]
        if length > min(target.nbytes, layout.message_bytes):
            _core.sem_post(self._memory, into + FILLED)  # it stays the next message
            raise self._does_not_fit(length, target.nbytes)
        if length:
            target[:length] = self._memory[slot + LINE : slot + LINE + length]
        self._received += 1
        _core.sem_post(self._memory, into + FREE)
        return length

    def watch(self, pid: int) -> None:
        """Notice the other process's death within PEER_LOOK_S of waiting; the kernel would not tell."""
        self._peer = Peer.instead_of(self._peer, pid)

    def native(self) -> NativeSpec:
        """In the same slots, with semaphores of the same kind. From here on it is the carrier that tells the other side
        of the end, by its own close."""
        self._open_words()
        numbers = {"side": int(self._side == "b"), "sent": self._sent, "received": self._received}
        spec = NativeSpec("slots", (), self._memory[:], numbers | watched(self._peer))
        self._native = True
        return spec

    def close(self) -> None:
        """Tell the other side and give the memory back; what was sent can still be received there."""
        if self._closed:
            return
        self._closed = True
        # A child of this process that inherited the end has nothing to say, and a carrier has said it.
        if self._pid == os.getpid() and not self._native:
            self._words[(self._out + FINAL) // 8] = self._sent
            self._words[(self._in + GONE) // 8] = 1
            _core.sem_post(self._memory, self._out + FILLED)
            _core.sem_post(self._memory, self._in + FREE)
        self._words.release()
        self._memory.release()
        if self._peer is not None:
            self._peer.close()

    def _open_words(self) -> memoryview:
        if self._closed:
            raise IpclabError(f"{self._what}: this end is closed")
        return self._words

    def _wait(self, semaphore: int, timeout_s: float | None, what: str) -> None:
        """Take one token: a slot that is ours from here on."""
        memory = self._memory
        if _core.sem_wait(memory, semaphore, 0):
            return
        deadline = Deadline(timeout_s)
        while True:
            left_s = deadline.slice_s() if self._peer else deadline.left_s()
            if _core.sem_wait(memory, semaphore, None if left_s is None else int(left_s * 1e9)):
                return
            if self._peer is not None and self._peer.gone():
                # It can have published between our last look at the semaphore and its death: that counts first.
                if _core.sem_wait(memory, semaphore, 0):
                    return
                raise self._gone()
            deadline.check(f"{self._what}: {what}")

    def _peer_found_dead(self) -> bool:
        """Whether the watched peer is dead, looked up at most every PEER_LOOK_S: a sender need never have to wait."""
        if self._peer is None or time.monotonic_ns() < self._next_look_ns:
            return False
        self._next_look_ns = time.monotonic_ns() + int(PEER_LOOK_S * 1e9)
        return self._peer.gone()

    def _gone(self) -> PeerGone:
        who = f"process {self._peer.pid}" if self._peer else "the other side"
        return PeerGone(f"{self._what}: {who} has closed its end or has died")

    def _does_not_fit(self, length: int, room: int) -> IpclabError:
        if length > self._layout.message_bytes:
            return IpclabError(f"{self._what}: the memory has been spoilt by another process")
        return BufferTooSmall(f"{self._what}: the next message has {length} bytes, the buffer {room}")


class SlotLink(Link):
    """Slots in a segment that is inherited by both processes."""

    def __init__(self, segment: Segment, layout: Layout) -> None:
        self.segment = segment
        self._layout = layout
        self._opener_pid = os.getpid()
        self._ends: list[SlotEnd] = []

    @classmethod
    @abstractmethod
    def _create(cls, size_bytes: int) -> Segment:
        """The memory itself, room reserved, zeroed."""

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        layout = Layout(message_bytes, depth)
        segment = cls._create(layout.size_bytes)
        try:
            layout.prepare(segment.buffer)
            return cls(segment, layout)
        except BaseException:
            segment.unlink()
            segment.close()
            raise

    def take(self, side: Side) -> SlotEnd:
        end = SlotEnd(self.segment.what, self.segment.buffer, self._layout, side)
        self._ends.append(end)
        return end

    def close(self) -> None:
        if self._opener_pid == os.getpid():
            self.segment.unlink()
        for end in self._ends:  # an end's memory is the segment's: it cannot be used beyond it
            end.close()
        self.segment.close()

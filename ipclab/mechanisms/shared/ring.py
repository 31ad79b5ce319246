"""ring: messages through shared memory with no system call, unless somebody has to sleep.

What it is. One memfd mapped by two processes: a ring of bytes with two counters, `tail` for what has been put in and
`head` for what has been taken out. The producer alone writes `tail`, the consumer alone writes `head`, so there is no
lock; a process sleeps on a futex word when it finds the ring full or empty, and the other side makes the system call
that wakes it only then. The kernel's part is the memory and the sleep; the rest is core/ring.h, whose first page
explains every ordering.

Lifetime. Process: the memory goes with the last mapping and the last descriptor; there is no name to leak. It is
inherited by fork, or handed over as a descriptor (SCM_RIGHTS, or pickled through multiprocessing).

Boundaries. Kept: every get is one put, of 0 to `capacity_bytes` bytes.

Order. First in, first out. One producer and one consumer, so there is no other order to have.

Capacity and limits. As asked for, rounded up to a page; each message takes 8 bytes more and is padded to 8, one of 1
KiB or more to a cache line of 64. A message may be as large as the whole ring; it then waits until that is empty. The
memory is allocated when the ring is made, so a machine without room says so at once. For a stream of large messages
give it 2 MiB: in a ring that fits into a CPU's private cache the consumer fetches every line out of the producer's
cache, which was seen to take two to three times as long as out of the shared one.

Blocking. put waits while the message does not fit, get while there is none: each spins for at most 50 us (less when it
did not pay, not at all when both are confined to the same CPU), then sleeps. Nothing is waited for in the kernel while
messages flow.

When an end dies. What it has put is delivered, then get raises PeerGone; put raises it once the ring is full or the
other side has closed. A record counts only when `tail` says so, so a kill at any instruction tears nothing. A sleeper
looks every 50 ms whether its peer lives. Like a pipe's reader that keeps its own write end open, a third process that
still has the ring open and could become the peer keeps a wait for a peer that never came alive: close what you do not
use.

Use it when two processes on one machine exchange many messages, small or large, and latency or throughput matters.

Not when there are several producers or consumers, when the other side is another machine, when you need a descriptor
to poll on, or when a memory cost per pair hurts: a pipe does these.

Man pages. memfd_create(2), mmap(2), futex(2), fcntl(2) (seals), shm_overview(7).
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ipclab import _core
from ipclab.errors import (
    BufferTooSmall,
    IpclabError,
    MessageTooLarge,
    NoRoom,
    PeerGone,
    TimedOut,
    UsageError,
    WouldBlock,
    from_os_error,
)
from ipclab.mechanisms.base import Counters, End, Link, NativeSpec, Side
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

MECHANISM = Mechanism(
    name="ring",
    family="shared memory",
    summary="one-to-one ring of messages in a memfd: no system call unless a side sleeps",
    lifetime="process",
    boundaries=True,
    duplex=False,
    man_pages=("memfd_create(2)", "mmap(2)", "futex(2)"),
)


def ring_error(number: int, call: str, size_bytes: int, capacity_bytes: int, pid: int) -> IpclabError:
    """The error for a core's errno; called by the binding (_core_ring.c), which knows numbers but no sentences."""
    me, peer = ("producer", "consumer") if call == "put" else ("consumer", "producer")
    lack = "no room for the message" if call == "put" else "no message"
    who = f"{peer}, process {pid}," if pid else peer
    errors: dict[int, IpclabError] = {
        errno.EMSGSIZE: MessageTooLarge(size_bytes, capacity_bytes, "the ring's capacity_bytes"),
        errno.ENOBUFS: BufferTooSmall(f"ring: the next message has {size_bytes} bytes, the buffer fewer"),
        errno.EAGAIN: WouldBlock(f"ring: {lack}"),
        errno.ETIMEDOUT: TimedOut(f"ring: {lack} in time"),
        errno.EPIPE: PeerGone(f"ring: the {who} has closed it"),
        errno.EOWNERDEAD: PeerGone(f"ring: the {who} has died"),
        errno.EBUSY: IpclabError(f"ring: its {me} is process {pid}", hint="a ring has one producer and one consumer"),
        errno.EALREADY: IpclabError(f"ring: another thread is in {call}", hint=f"a ring has one {me} thread"),
        errno.EBADF: IpclabError("ring: it is closed"),
        errno.EBADMSG: IpclabError("ring: the memory has been spoilt by another process"),
    }
    return errors.get(number) or from_os_error(OSError(number, os.strerror(number)), "ring")


class Ring(_core.Ring):
    """A one-to-one ring of messages between any two processes.

    `capacity_bytes` is the largest message and about how many bytes lie in the ring at most. The first process that
    puts is the producer, the first that gets the consumer, for good. Hand it to the other process by fork, or its
    descriptor by any means and `Ring.from_fd` there; multiprocessing pickles it. A context manager; close() is the end
    of this process's side: a consumer still gets what was put before.

    Raises UsageError for a capacity below 1, NoRoom when the memory cannot be had.

        put(data, timeout_s=None)           copy one bytes-like message in; waits while it does not fit
        put_nowait(data)                    WouldBlock instead of waiting
        get(timeout_s=None) -> bytes        the next message; waits while there is none
        get_nowait() -> bytes               WouldBlock instead of waiting
        get_into(buffer, timeout_s=None) -> int       the next message straight into a writable buffer; its length
        get_into_nowait(buffer) -> int
        fileno() -> int                     the memfd, to be passed on; it cannot be polled

    All raise PeerGone when the other side has closed or died, MessageTooLarge, BufferTooSmall (the message stays),
    TimedOut, and IpclabError when the ring is closed or this process is not the one that may. Buffers are borrowed for
    the call. The GIL is released while sleeping and while copying more than 64 KiB.
    """

    def __init__(self, capacity_bytes: int, *, fd: int = -1) -> None:
        if fd < 0 and not 0 < capacity_bytes < 1 << 60:
            raise UsageError(f"a ring of {capacity_bytes} bytes cannot be", hint="give capacity_bytes of 1 or more")
        try:
            super().__init__(capacity_bytes, fd)
        except OSError as err:
            raise _open_error(err, capacity_bytes) from err

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """The ring whose memfd this is; the caller keeps (and may close) its own descriptor."""
        return cls(0, fd=fd)

    def claim_producer(self) -> None:
        """Become the producer now rather than at the first put, so that the other side can notice this one's death."""
        self._claim(False)

    def claim_consumer(self) -> None:
        """Become the consumer now rather than at the first get."""
        self._claim(True)

    def statistics(self) -> dict[str, int]:
        """What this process has counted (put, get, sleeps and the futex(2) calls they made, wake-ups) and what lies in
        the ring; bytes and counts."""
        return self._counts()

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd  # type: ignore[attr-defined, unused-ignore]

        return _from_dup_fd, (DupFd(self.fileno()),)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _from_dup_fd(duplicate: Any) -> Ring:
    fd = duplicate.detach()
    try:
        return Ring.from_fd(fd)
    finally:
        os.close(fd)


def _open_error(err: OSError, capacity_bytes: int) -> IpclabError:
    if err.errno in (errno.EBADMSG, errno.EPROTO, errno.EPROTOTYPE, errno.ENODATA):
        why = {
            errno.EBADMSG: "it is not a segment of ipclab",
            errno.EPROTO: "it was made by another version of ipclab",
            errno.EPROTOTYPE: "it is a segment of another kind",
            errno.ENODATA: "it is truncated",
        }[err.errno]
        return IpclabError(f"this descriptor is not a ring: {why}", errno=err.errno, syscall="ring_attach")
    if err.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
        return NoRoom(f"no memory for a ring of {capacity_bytes} bytes", errno=err.errno, syscall="fallocate")
    return from_os_error(err, f"ring of {capacity_bytes} bytes")


class RingEnd(End):
    """One process's side of a link of two rings."""

    limit_source = "the ring's capacity_bytes"

    def __init__(self, outgoing: Ring, incoming: Ring) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self.limit_bytes = outgoing.statistics()["capacity_bytes"]
        outgoing.claim_producer()
        incoming.claim_consumer()
        # The core's own methods in place of ours: a Python frame would cost half as much as the message.
        self.send = outgoing.put  # type: ignore[method-assign]
        self.recv_into = incoming.get_into  # type: ignore[method-assign]

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        self._outgoing.put(data, timeout_s)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        return self._incoming.get_into(buffer, timeout_s)

    def native(self) -> NativeSpec:
        """By put and get of the core. It notices the other side's death by itself: no watch."""
        return NativeSpec("ring", (self._incoming.fileno(), self._outgoing.fileno()), None, {})

    def counters(self) -> Counters:
        """Waits that ended in a sleep, and wake-ups; each sleep parks once or oftener, each wake-up is a call."""
        out, into = self._outgoing.statistics(), self._incoming.statistics()
        wakes = out["consumer_wake_count"] + into["producer_wake_count"]
        parks = out["put_park_count"] + into["get_park_count"]
        return Counters(parks + wakes, out["put_sleep_count"] + into["get_sleep_count"], wakes)

    def close(self) -> None:
        self._outgoing.close()
        self._incoming.close()


class RingLink(Link):
    """Two rings, one each way."""

    name = "ring"

    def __init__(self, rings: tuple[Ring, Ring]) -> None:
        self._rings = rings

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        room = max(1, message_bytes) + (depth - 1) * (message_bytes + 16)
        first = Ring(room)
        try:
            return cls((first, Ring(room)))
        except BaseException:
            first.close()
            raise

    def take(self, side: Side) -> RingEnd:
        a_to_b, b_to_a = self._rings
        return RingEnd(a_to_b, b_to_a) if side == "a" else RingEnd(b_to_a, a_to_b)

    def close(self) -> None:
        for ring in self._rings:
            ring.close()


LINK = RingLink


def probe() -> Probe:
    """Makes one and gives it back."""
    try:
        Ring(1).close()
    except IpclabError as err:
        return Probe(works=False, reason=str(err), remedy="a kernel with memfd_create(2), and memory")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """A ring is bounded by memory and by address space alone."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    return (
        Limit(name="largest message", value=None, unit="bytes", source="the ring's own capacity_bytes"),
        Limit(name="free memory", value=pages, unit="bytes", source="sysconf(_SC_AVPHYS_PAGES)"),
    )

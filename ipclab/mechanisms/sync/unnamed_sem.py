"""unnamed-sem: a counter in memory that processes share, at which they wait.

What it is. sem_init(3) with pshared=1 makes a semaphore of 32 bytes of any shared mapping. It is the same counter as a
named one (posix-sem), without the name: the processes find it because they find the memory. An atomic instruction
changes it; only who must sleep, or wake a sleeper, makes a system call, futex(2), which knows the word by the page it
lies in and not by its address, so that each process may have it mapped elsewhere.

    with UnnamedSemaphore.create(1) as turn:              in a memfd of its own, inherited by fork
    UnnamedSemaphore.place(segment.buffer, 128, 0)        among other things in a segment

Lifetime. Process, as the memory it lies in: nothing to unlink. sem_destroy(3) is for semaphores nobody waits at; the
memory's end is enough.

Boundaries. It carries no data.

Order. None promised: a post makes one waiter runnable, and a process that comes by may be quicker. What was stored
before a post is seen by whoever gets past the wait.

Capacity and limits. SEM_VALUE_MAX; as many as the memory holds. It must not be copied or moved, only mapped.

Blocking. sem_wait sleeps in futex(2) while the counter is 0; with a deadline here on the monotonic clock
(sem_clockwait), which no step of the wall clock touches.

When an end dies. Nothing happens: a holder killed between wait and post leaves it taken for ever, the next one times
out. As one direction of a hand-over ("there is one more") it is sound all the same: nothing is held, and a killed
producer has simply not posted. That is how shared memory uses it here (shared/_slots.py).

Use it when processes that share memory anyway must count, hand over or take turns.

Not when a holder may be killed (robust-mutex), or no memory is shared (posix-sem, eventfd).

Man pages. sem_overview(7), sem_init(3), sem_wait(3), sem_post(3), sem_destroy(3), futex(2).
"""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import TimedOut, from_os_error
from ipclab.mechanisms.base import Bell, Link, NativeSpec
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync._bell import SyncBell, Turns
from ipclab.mechanisms.sync._lock import Lock, Placed, nanoseconds
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

MECHANISM = Mechanism(
    name="unnamed-sem",
    family="synchronisation",
    summary="a counter in shared memory; no system call unless somebody sleeps",
    lifetime="process",
    man_pages=("sem_overview(7)", "sem_init(3)", "sem_wait(3)", "futex(2)"),
)
LINK: type[Link] | None = None


class UnnamedSemaphore(Placed, Lock):
    """A semaphore in shared memory."""

    SIZE_BYTES = _core.SEM_SIZE

    @classmethod
    def create(cls, value: int = 1) -> Self:
        """A new one in a memfd of its own. Raises NoRoom, IpclabError for an impossible value."""
        semaphore = cls._in_new_memory()
        try:
            return semaphore._init(value)
        except BaseException:
            semaphore.close()
            raise

    @classmethod
    def place(cls, buffer: Buffer, offset: int, value: int = 1) -> Self:
        """A new one at this offset (a multiple of 64) of shared memory, before anybody else uses it."""
        return cls(buffer, offset)._init(value)

    def _init(self, value: int) -> Self:
        try:
            _core.sem_init(self._memory, self._offset, value)
        except OSError as err:
            raise from_os_error(err, f"unnamed semaphore with {value}", hint="0 to SEM_VALUE_MAX") from err
        return self

    @property
    def place_in_memory(self) -> tuple[memoryview, int]:
        """The memory it lies in, and its offset."""
        return self._memory, self._offset

    @property
    def value(self) -> int:
        """The counter now; already old when you read it."""
        return _core.sem_getvalue(self._memory, self._offset)

    def acquire(self, timeout_s: float | None = None) -> None:
        """Take one; waits while the counter is 0. Raises TimedOut, also when who had it is dead."""
        if not _core.sem_wait(self._memory, self._offset, nanoseconds(timeout_s)):
            raise TimedOut("unnamed semaphore: nobody has released it in time")

    def release(self) -> None:
        """Add one and wake a waiter. Any process may, also one that took none."""
        try:
            _core.sem_post(self._memory, self._offset)
        except OSError as err:
            raise from_os_error(err, "unnamed semaphore") from err


def probe() -> Probe:
    """Make one in private memory, post and wait."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            _core.sem_init(memory, 0, 0)
            _core.sem_post(memory, 0)
            _core.sem_wait(memory, 0, 0)
    except OSError as err:
        return Probe(works=False, reason=str(err), remedy="free memory, or allow futex(2)")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """The largest value, its size, and what bounds mappings."""
    return (
        Limit(name="largest value", value=os.sysconf("SC_SEM_VALUE_MAX"), unit="", source="sysconf(_SC_SEM_VALUE_MAX)"),
        Limit(name="size", value=_core.SEM_SIZE, unit="bytes", source="sizeof(sem_t)"),
        _live.map_count(),
        _live.open_files(),
    )


class UnnamedPingPong(Turns[UnnamedSemaphore]):
    """Two semaphores in one memfd."""

    name = "unnamed-sem"

    @classmethod
    def _make(cls, stack: ExitStack) -> tuple[UnnamedSemaphore, UnnamedSemaphore]:
        memory = stack.enter_context(Memfd.create(2 * _core.ALIGN, "ipclab-sem"))
        places = (UnnamedSemaphore.place(memory.buffer[:], at, 0) for at in (0, _core.ALIGN))
        first, second = (stack.enter_context(place) for place in places)
        return first, second

    @staticmethod
    def _bell(incoming: UnnamedSemaphore, outgoing: UnnamedSemaphore) -> Bell:
        memory, at = incoming.place_in_memory
        numbers = {"in": at, "out": outgoing.place_in_memory[1]}
        return SyncBell.of_locks(incoming, outgoing, NativeSpec("unnamed-sem", (), memory[:], numbers))


PING_PONG = UnnamedPingPong

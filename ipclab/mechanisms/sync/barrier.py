"""barrier: nobody goes on before all have arrived.

What it is. A word in shared memory that counts arrivals, and a futex to sleep on. The last of `parties` to arrive opens
the round and wakes the others; the barrier is at once ready for the next round. pthread_barrier_t is the same without
a deadline and without an end: a party that dies hangs the others for ever. So this one is ours (core/sync.h): one
32-bit word holds round, arrivals and "broken", changed by compare-and-swap, so that a kill cannot tear it.

    with Barrier.create(3) as barrier:          inherited by fork
        order = barrier.wait(timeout_s=5.0)     0 first, 2 last; one of the three may do what only one should

Lifetime. Process, as the memory it lies in.

Boundaries. It carries no data.

Order. What anybody stored before it arrived is seen by everybody who has passed. wait() tells the order of arrival.

Capacity and limits. 1 to 65535 parties, fixed when it is made.

Blocking. All but the last sleep in futex(2). A deadline withdraws the waiter: the others then need it, or another, to
come again.

When an end dies. A party that died before it arrived will never come: the others wait. Who has called watch(pid) looks
after the others by a thread that sleeps on their pidfds; on a death it breaks the barrier, for everybody, and all who
wait get PeerGone. A round that was opened before counts for all who were in it. A party that died after it had
arrived counts as arrived; its death breaks the barrier just the same, since no later round could ever open.
reset() makes a broken barrier new, for as many as are left, when nobody waits at it.

Use it when processes work in rounds: all write, then all read.

Not when two processes hand something over (a semaphore), or not all of them are needed each time (a condition).

Man pages. pthread_barrier_wait(3p), futex(2), pidfd_open(2).
"""

from __future__ import annotations

import mmap
import os
import select
import threading
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import PeerGone, TimedOut, UsageError, from_os_error
from ipclab.mechanisms.base import Link, Peer
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync._lock import Placed, nanoseconds
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

MECHANISM = Mechanism(
    name="barrier",
    family="synchronisation",
    summary="nobody goes on before all have arrived; breaks when a party dies",
    lifetime="process",
    man_pages=("pthread_barrier_wait(3p)", "futex(2)"),
)
LINK: type[Link] | None = None

MOST_PARTIES = 65535


class Barrier(Placed):
    """A cyclic barrier in shared memory."""

    SIZE_BYTES = _core.BARRIER_SIZE

    def __init__(self, buffer: Buffer, offset: int = 0, home: Memfd | None = None) -> None:
        super().__init__(buffer, offset, home)
        self._watcher: _Watcher | None = None

    @classmethod
    def create(cls, parties: int) -> Self:
        """A new one in a memfd of its own. Raises UsageError for an impossible number, NoRoom."""
        _check_parties(parties)
        barrier = cls._in_new_memory()
        barrier.reset(parties)
        return barrier

    @classmethod
    def place(cls, buffer: Buffer, offset: int, parties: int) -> Self:
        """A new one at this offset (a multiple of 64) of shared memory, before anybody else uses it."""
        barrier = cls(buffer, offset)
        barrier.reset(parties)
        return barrier

    def reset(self, parties: int) -> None:
        """Make it new, whole again and empty. Only when nobody waits at it, and all know."""
        _check_parties(parties)
        _core.barrier_init(self._memory, self._offset, parties)

    def wait(self, timeout_s: float | None = None) -> int:
        """Arrive, and wait until all have; the order of arrival in this round, 0 first.

        Raises TimedOut (this one has withdrawn from the round), PeerGone when the barrier is or gets broken.
        """
        try:
            return _core.barrier_wait(self._memory, self._offset, nanoseconds(timeout_s))
        except BrokenPipeError as err:
            raise PeerGone("the barrier is broken: a party has died or given up", errno=err.errno) from err
        except TimeoutError as err:
            raise TimedOut("barrier: not all have arrived in time", errno=err.errno) from err
        except OSError as err:
            raise from_os_error(err, "barrier") from err

    def watch(self, *pids: int) -> None:
        """Break the barrier when one of these processes ends, in whatever way. A thread of this process looks, until
        close(); call it in the process that waits, after its own forks."""
        if self._watcher is None:
            self._watcher = _Watcher(self)
        self._watcher.add(pids)

    def break_(self) -> None:
        """Break it: all who wait, and all who come, get PeerGone until it is reset."""
        _core.barrier_break(self._memory, self._offset)

    def close(self) -> None:
        """Let go of the memory, and stop watching. The others are not told: they have a deadline, or watch."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
        super().close()


class _Watcher:
    """A thread asleep on pidfds; an eventfd tells it of new ones and of the end."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier
        self._pid = os.getpid()
        self._peers: list[Peer] = []
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._look, name="ipclab-barrier-watch", daemon=True)
        self._thread.start()

    def add(self, pids: tuple[int, ...]) -> None:
        self._peers += [Peer(pid) for pid in pids]
        os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        self._stopping = True
        if self._pid == os.getpid():  # in a forked child the thread does not exist, and the eventfd is the parent's
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join()
        for peer in self._peers:
            peer.close()
        os.close(self._wake_fd)

    def _look(self) -> None:
        while not self._stopping:
            peers = list(self._peers)
            if any(peer.gone() for peer in peers):
                self._barrier.break_()
                return
            poller = select.poll()
            poller.register(self._wake_fd, select.POLLIN)
            for peer in peers:
                if peer.fd is not None:
                    poller.register(peer.fd, select.POLLIN)
            if (self._wake_fd, select.POLLIN) in poller.poll():
                os.eventfd_read(self._wake_fd)


def _check_parties(parties: int) -> None:
    if not 1 <= parties <= MOST_PARTIES:
        raise UsageError(f"a barrier for {parties} cannot be", hint=f"1 to {MOST_PARTIES} parties")


def probe() -> Probe:
    """Make one for one party in private memory, and pass it."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            _core.barrier_init(memory, 0, 1)
            _core.barrier_wait(memory, 0, 0)
    except OSError as err:
        return Probe(works=False, reason=str(err), remedy="free memory, or allow futex(2)")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """Parties, size, and what bounds mappings."""
    return (
        Limit(name="parties", value=MOST_PARTIES, unit="processes", source="core/sync.h: 16 bits of its word"),
        Limit(name="size", value=_core.BARRIER_SIZE, unit="bytes", source="ipclab._core.BARRIER_SIZE"),
        _live.map_count(),
        _live.open_files(),
    )

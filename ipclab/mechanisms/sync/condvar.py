"""condvar: wait, with a lock in your hand, until somebody has changed what the lock guards.

What it is. wait() gives a mutex back and goes to sleep in one step, so that no notify can fall in between, and has the
mutex again when it returns. It remembers nothing: a notify with nobody waiting is lost. So the truth is always in the
data, and the condition variable only says "look again":

    with condition.mutex.held():                 with condition.mutex.held():
        while not there_is_work():                   add_work()
            condition.wait(timeout_s=1.0)            condition.notify()
        take_work()

Here it is a word that counts notifies, with a futex, beside a robust mutex. wait reads the word while it holds the
mutex and then sleeps as long as the word is what it read; notify counts one up and wakes. That is "one step": whoever
changes the data needs the mutex, so its notify comes after our reading, and the kernel compares before it sleeps.

Why not pthread_cond_t: glibc's keeps groups of waiters in the shared memory, and a waiter that is killed stays in its
group. Here (glibc 2.36) a later pthread_cond_signal then waited for the dead one for ever, within seconds of killing
waiters. The kernel's queue of a futex forgets the dead.

Lifetime. Process, as the memory it lies in.

Boundaries. It carries no data.

Order. notify wakes one of those who were waiting, which one is not promised; others may get the mutex before it does.

Capacity and limits. As many as the memory holds. Between a reading and a sleep, 2^32 notifies would look like none.

Blocking. wait sleeps in futex(2), then in the mutex. It may return without a notify: POSIX allows spurious wake-ups,
and another process may have taken the work meanwhile. Hence the while, always, never an if; wait_for() is that loop.
notify never waits, and is one system call.

When an end dies. Who waits is not told that there will be no notify: give wait a deadline. Killed while it held the
mutex, the mutex says so: wait and acquire raise OwnerDied, with the mutex held. A waiter killed after notify() has
woken it, before it could look, has swallowed that notify: use notify_all, or deadlines, where waiters may be killed.

Use it when processes wait for a state of shared data that no counter can express.

Not when a count says it (a semaphore), or something with a descriptor must be waited for too (eventfd).

Man pages. futex(2), pthread_cond_wait(3p), pthread_cond_signal(3p).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import TimedOut
from ipclab.mechanisms.base import Deadline, Link
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync import futex, robust_mutex
from ipclab.mechanisms.sync._lock import Placed
from ipclab.mechanisms.sync.futex import FutexWord
from ipclab.mechanisms.sync.robust_mutex import RobustMutex
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

MECHANISM = Mechanism(
    name="condvar",
    family="synchronisation",
    summary="sleep, lock in hand, until somebody has changed what the lock guards",
    lifetime="process",
    man_pages=("futex(2)", "pthread_cond_wait(3p)", "pthread_cond_signal(3p)"),
)
LINK: type[Link] | None = None

#: FUTEX_WAKE takes an int: as many as there can be.
EVERYBODY = 2**31 - 1


class Condition(Placed):
    """A condition variable and its mutex, side by side in shared memory."""

    #: The word comes first, on a line of its own.
    _MUTEX_OFFSET = _core.ALIGN
    SIZE_BYTES = _MUTEX_OFFSET + RobustMutex.SIZE_BYTES

    def __init__(self, buffer: Buffer, offset: int = 0, home: Memfd | None = None) -> None:
        super().__init__(buffer, offset, home)
        self._notifies = FutexWord.at(buffer, offset)
        #: The mutex that guards the data: hold it around every look at the data, every wait and every notify.
        self.mutex = RobustMutex.at(buffer, offset + self._MUTEX_OFFSET)

    @classmethod
    def create(cls) -> Self:
        """A new one, its mutex free, in a memfd of its own. Raises NoRoom."""
        condition = cls._in_new_memory()
        try:
            return condition._init()
        except BaseException:
            condition.close()
            raise

    @classmethod
    def place(cls, buffer: Buffer, offset: int) -> Self:
        """A new one at this offset (a multiple of 64) of shared memory, before anybody else uses it."""
        return cls(buffer, offset)._init()

    def _init(self) -> Self:
        self._notifies.store(0)
        self.mutex._init()
        return self

    def wait(self, timeout_s: float | None = None, repair: Callable[[int], None] | None = None) -> None:
        """Give the mutex back, sleep until notified (or for nothing), and have the mutex again.

        The time is for the sleep; the mutex is then waited for as long as it takes, and `repair` is called if its
        holder has died meanwhile: it is what RobustMutex.acquire takes. Whatever is raised, the mutex is held:
        TimedOut, OwnerDied (without `repair`), KeyboardInterrupt. Only for NotRecoverable, for what `repair` raises,
        and for the IpclabError of a caller who does not have the mutex, it is not.
        """
        seen = self._notifies.load()
        self.mutex.release()
        try:
            woken = self._notifies.wait(seen, timeout_s)
        finally:
            self.mutex.acquire(repair=repair)
        if not woken:
            raise TimedOut("condition: nobody has notified in time")

    def wait_for(
        self,
        predicate: Callable[[], bool],
        timeout_s: float | None = None,
        repair: Callable[[int], None] | None = None,
    ) -> None:
        """Wait, mutex in hand, until predicate() is true: the loop that every wait needs. Raises as wait does."""
        deadline = Deadline(timeout_s)
        while not predicate():
            self.wait(deadline.left_s(), repair)

    def notify(self) -> None:
        """Wake one waiter, if there is one. Call it with the mutex held."""
        self._notifies.add(1)
        self._notifies.wake(1)

    def notify_all(self) -> None:
        """Wake all waiters; each then waits for the mutex."""
        self._notifies.add(1)
        self._notifies.wake(EVERYBODY)

    def close(self) -> None:
        """Let go of the memory."""
        self._notifies.close()
        self.mutex.close()
        super().close()


def probe() -> Probe:
    """What it is made of: a futex and a robust mutex."""
    needed = (futex.probe(), robust_mutex.probe())
    return next((probe for probe in needed if not probe.works), needed[0])


def limits() -> tuple[Limit, ...]:
    """Its size, and what bounds mappings."""
    return (
        Limit(name="size with its mutex", value=Condition.SIZE_BYTES, unit="bytes", source="Condition.SIZE_BYTES"),
        _live.map_count(),
        _live.open_files(),
    )

"""condvar: wait, with a lock in your hand, until somebody has changed what the lock guards.

What it is. A pthread condition variable, process-shared, on the monotonic clock, together with the robust mutex that
guards the data. wait() gives the mutex back and goes to sleep in one step, so that no notify can fall in between, and
has the mutex again when it returns. It remembers nothing: a notify with nobody waiting is lost. So the truth is always
in the data, and the condition variable only says "look again":

    with condition.mutex.held():                 with condition.mutex.held():
        while not there_is_work():                   add_work()
            condition.wait(timeout_s=1.0)            condition.notify()
        take_work()

Lifetime. Process, as the memory it lies in.

Boundaries. It carries no data.

Order. notify wakes one of those who were waiting, which one is not promised; others may get the mutex before it does.

Capacity and limits. As many as the memory holds.

Blocking. wait sleeps in futex(2). It may return without a notify: spurious wake-ups are allowed by POSIX, here come for
every signal and ten times a second (so that Python's handlers run), and another process may have taken the work
meanwhile. Hence the while, always, never an if; wait_for() is that loop.

When an end dies. Who waits is not told that there will be no notify: give wait a deadline. Killed while it held the
mutex, the mutex says so: wait and acquire raise OwnerDied, with the mutex held. A process killed *inside* wait leaves
itself registered in glibc's condition variable. It can swallow a notify meant for another, and (glibc before 2.42)
one that is killed at a bad moment can make a later notify wait for it for ever. Where waiters may be killed, use
notify_all, deadlines everywhere, or a futex or semaphore, which keep no list of waiters in shared memory.

Use it when processes wait for a state of shared data that no counter can express.

Not when a count says it (a semaphore), or a waiter may be killed at any moment.

Man pages. pthread_cond_wait(3p), pthread_cond_signal(3p), pthread_condattr_setclock(3p), futex(2).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import IpclabError, TimedOut, from_os_error
from ipclab.mechanisms.base import Deadline, Link
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync._lock import Placed, nanoseconds
from ipclab.mechanisms.sync.robust_mutex import OwnerDied, RobustMutex
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

MECHANISM = Mechanism(
    name="condvar",
    family="synchronisation",
    summary="sleep, lock in hand, until somebody has changed what the lock guards",
    lifetime="process",
    man_pages=("pthread_cond_wait(3p)", "pthread_cond_signal(3p)", "futex(2)"),
)
LINK: type[Link] | None = None


class Condition(Placed):
    """A condition variable and its mutex, side by side in shared memory."""

    _MUTEX_OFFSET = (_core.COND_SIZE + _core.ALIGN - 1) // _core.ALIGN * _core.ALIGN
    SIZE_BYTES = _MUTEX_OFFSET + RobustMutex.SIZE_BYTES

    def __init__(self, buffer: Buffer, offset: int = 0, home: Memfd | None = None) -> None:
        super().__init__(buffer, offset, home)
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
        try:
            _core.cond_init(self._memory, self._offset)
        except OSError as err:
            raise from_os_error(err, "condition variable") from err
        self.mutex._init()
        return self

    def wait(self, timeout_s: float | None = None) -> None:
        """Give the mutex back, sleep until notified (or for nothing), and have the mutex again.

        Whatever it raises, the mutex is held: TimedOut, OwnerDied (see RobustMutex), KeyboardInterrupt. Only the
        IpclabError for a caller who does not hold it leaves things as they were.
        """
        if self.mutex.owner_pid != os.getpid():
            raise IpclabError("condition: waited for without holding its mutex", hint="acquire condition.mutex first")
        self.mutex._sign(0)
        try:
            died = _core.cond_wait(
                self._memory, self._offset, self._offset + self._MUTEX_OFFSET, nanoseconds(timeout_s)
            )
        except OSError as err:
            if err.errno == errno.ETIMEDOUT:
                raise TimedOut("condition: nobody has notified in time", errno=err.errno) from err
            raise from_os_error(err, "condition") from err
        finally:
            dead_pid = self.mutex.owner_pid
            self.mutex._sign(os.getpid())
        if died:
            raise OwnerDied(dead_pid)

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait, mutex in hand, until predicate() is true: the loop that every wait needs. Raises as wait does."""
        deadline = Deadline(timeout_s)
        while not predicate():
            self.wait(deadline.left_s())

    def notify(self) -> None:
        """Wake one waiter, if there is one. Call it with the mutex held."""
        _core.cond_signal(self._memory, self._offset)

    def notify_all(self) -> None:
        """Wake all waiters; each then waits for the mutex."""
        _core.cond_broadcast(self._memory, self._offset)

    def close(self) -> None:
        """Let go of the memory."""
        self.mutex.close()
        super().close()


def probe() -> Probe:
    """Make one in private memory and notify nobody."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            _core.cond_init(memory, 0)
            _core.cond_signal(memory, 0)
    except OSError as err:
        return Probe(works=False, reason=str(err), remedy="a C library with process-shared condition variables")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """Its size, and what bounds mappings."""
    return (
        Limit(name="size", value=_core.COND_SIZE, unit="bytes", source="ipclab._core.COND_SIZE"),
        Limit(name="size with its mutex", value=Condition.SIZE_BYTES, unit="bytes", source="Condition.SIZE_BYTES"),
        _live.map_count(),
        _live.open_files(),
    )

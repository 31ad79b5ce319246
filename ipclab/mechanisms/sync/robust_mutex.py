"""robust-mutex: a lock in shared memory that tells the next one when its holder has died.

What it is. A pthread mutex with three attributes: process-shared (it may lie in memory that processes share), robust,
and error-checking (a second acquire by the same thread is EDEADLK, a release by another EPERM). Its word holds the
thread id of its holder; glibc keeps a list of the robust mutexes each thread holds and has told the kernel where that
list is (set_robust_list(2)). When a thread ends, the kernel walks the list, marks each word and wakes one waiter.

    free --acquire--> held --release--> free
                       | the holder dies
                       v
      the next acquire gets it, and raises OwnerDied --make_consistent, release--> free
                       | release without make_consistent
                       v
      nobody gets it ever again: NotRecoverable

Lifetime. Process, as the memory it lies in.

Boundaries. It carries no data, but the pid of its holder lies beside it.

Order. None promised among waiters. What was stored before a release, or before a death, is seen by the next holder.

Capacity and limits. The kernel walks at most 2048 entries of a dead thread's list (ROBUST_LIST_LIMIT). A program that
calls set_robust_list itself breaks all of them.

Blocking. acquire sleeps in futex(2) while it is held; free, it costs no system call. pthread_mutex_lock does not return
for a signal, so acquire() here waits in slices of SIGNAL_SLICE_S to let Python's handlers run.

When an end dies. The next acquire succeeds *and* raises OwnerDied: the lock is held by you, the data may be half
written. Repair it, call make_consistent(), go on; or release() it as it is, and everybody else gets NotRecoverable.
Give `repair` to acquire or held and both are done for you. Who dies while waiting harms nobody.

Use it when processes change the same data and any of them may be killed. It is the lock to take first.

Not when the data cannot be repaired, when the lock is to be released by another than its holder (a semaphore), or when
no memory is shared (flock, fcntl-lock: freed by death too, without a word about it).

Man pages. pthread_mutexattr_setrobust(3), pthread_mutex_consistent(3), pthread_mutex_lock(3p), get_robust_list(2).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import IpclabError, from_os_error
from ipclab.mechanisms.base import Deadline, Link
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.sync._lock import Lock, Placed, nanoseconds
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

MECHANISM = Mechanism(
    name="robust-mutex",
    family="synchronisation",
    summary="a lock in shared memory whose next holder is told that the last one died",
    lifetime="process",
    man_pages=("pthread_mutexattr_setrobust(3)", "pthread_mutex_consistent(3)", "get_robust_list(2)"),
)
LINK: type[Link] | None = None

#: How long one wait inside pthread_mutex_clocklock may last before Python's signal handlers get a turn. Chosen: Ctrl-C
#: is answered at once to a human, and ten wake-ups a second cost nothing.
SIGNAL_SLICE_S = 0.1


class OwnerDied(IpclabError):
    """The lock is yours, and its last holder died with it: the data may be half written.

    `pid` is who died, 0 when it died before it could write its name. Repair the data, then make_consistent().
    """

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"process {pid} died holding the robust mutex, which is now yours" if pid
            else "the last holder of the robust mutex died; it is now yours",
            hint="repair the data, then make_consistent() and release()",
            errno=errno.EOWNERDEAD,
            syscall="pthread_mutex_lock",
        )  # fmt: skip
        self.pid = pid


class NotRecoverable(IpclabError):
    """Somebody who was told of a dead holder released the lock without repairing: it is lost for all."""


class RobustMutex(Placed, Lock):
    """A robust mutex in shared memory, with its holder's pid beside it."""

    #: Where the holder's pid lies: a 32-bit word, written by the holder alone.
    _PID_OFFSET = (_core.LOCK_SIZE + _core.ALIGN - 1) // _core.ALIGN * _core.ALIGN
    SIZE_BYTES = _PID_OFFSET + _core.ALIGN

    @classmethod
    def create(cls) -> Self:
        """A free one in a memfd of its own. Raises NoRoom."""
        mutex = cls._in_new_memory()
        try:
            return mutex._init()
        except BaseException:
            mutex.close()
            raise

    @classmethod
    def place(cls, buffer: Buffer, offset: int) -> Self:
        """A free one at this offset (a multiple of 64) of shared memory, before anybody else uses it."""
        return cls(buffer, offset)._init()

    def _init(self) -> Self:
        try:
            _core.lock_init(self._memory, self._offset)
        except OSError as err:
            raise from_os_error(err, "robust mutex") from err
        self._sign(0)
        return self

    @property
    def owner_pid(self) -> int:
        """The pid of the holder as it wrote it, 0 when free; after a death the dead one, until the next acquire."""
        return _core.atomic_load(self._memory, self._offset + self._PID_OFFSET)

    def acquire(self, timeout_s: float | None = None, repair: Callable[[int], None] | None = None) -> None:
        """Take it; waits while it is held.

        Where its holder has died: with `repair`, repair(pid) is called and the mutex made consistent (if repair
        raises, it is released as not recoverable); without, OwnerDied is raised *and the mutex is held*. Raises
        TimedOut, NotRecoverable, IpclabError (EDEADLK) when this thread has it.
        """
        deadline = Deadline(timeout_s)
        while (died := self._try_slice(deadline)) is None:
            deadline.check("robust mutex: nobody has released it")
        if died:
            self._recover(repair)
        self._sign(os.getpid())

    def _try_slice(self, deadline: Deadline) -> bool | None:
        """Whether its holder had died; None: not ours yet."""
        try:
            return bool(_core.lock_acquire(self._memory, self._offset, nanoseconds(deadline.slice_s(SIGNAL_SLICE_S))))
        except OSError as err:
            if err.errno == errno.ETIMEDOUT:
                return None
            if err.errno == errno.ENOTRECOVERABLE:
                raise NotRecoverable(
                    "the robust mutex is lost: a dead holder's data was never repaired",
                    hint="make a new one",
                    errno=errno.ENOTRECOVERABLE,
                    syscall="pthread_mutex_lock",
                ) from err
            raise from_os_error(err, "robust mutex") from err

    def _recover(self, repair: Callable[[int], None] | None) -> None:
        dead_pid = self.owner_pid
        self._sign(os.getpid())
        if repair is None:
            raise OwnerDied(dead_pid)
        try:
            repair(dead_pid)
        except BaseException:
            self.release()
            raise
        self.make_consistent()

    def make_consistent(self) -> None:
        """Say that the data is in order again; after OwnerDied, before release()."""
        try:
            _core.lock_consistent(self._memory, self._offset)
        except OSError as err:
            raise from_os_error(err, "robust mutex: nothing to repair, or not yours") from err

    def release(self) -> None:
        """Give it back. IpclabError (EPERM) when this thread does not have it."""
        signed = self.owner_pid == os.getpid()
        if signed:  # before: afterwards it is the next one's to write
            self._sign(0)
        try:
            _core.lock_release(self._memory, self._offset)
        except OSError as err:
            if signed:  # another thread of ours has it
                self._sign(os.getpid())
            raise from_os_error(err, "robust mutex: released by another than its holder") from err

    @contextmanager
    def held(self, timeout_s: float | None = None, repair: Callable[[int], None] | None = None) -> Iterator[Self]:
        """A block that has it; see acquire. OwnerDied is raised before the block, with the mutex held."""
        self.acquire(timeout_s, repair)
        try:
            yield self
        finally:
            self.release()

    def _sign(self, pid: int) -> None:
        _core.atomic_store(self._memory, self._offset + self._PID_OFFSET, pid)


def probe() -> Probe:
    """Make one in private memory, take it and give it back."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            _core.lock_init(memory, 0)
            _core.lock_acquire(memory, 0, 0)
            _core.lock_release(memory, 0)
    except OSError as err:
        return Probe(works=False, reason=str(err), remedy="a kernel and C library with robust futexes")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """Its size, and how many a dying thread may hold."""
    return (
        Limit(
            name="mutexes looked after at a death",
            value=2048,
            unit="mutexes",
            source="ROBUST_LIST_LIMIT, linux/futex.h",
        ),
        Limit(name="size", value=_core.LOCK_SIZE, unit="bytes", source="ipclab._core.LOCK_SIZE"),
        _live.map_count(),
        _live.open_files(),
    )

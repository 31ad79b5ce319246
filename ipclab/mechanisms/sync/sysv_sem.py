"""sysv-sem: the oldest semaphore of Unix, and the only one that takes back what a dead process did.

What it is. semget(2) makes a set of counters under a key; semop(2) adds to or takes from several of them in one atomic
step, waiting until the whole step is possible. Every operation is a system call: the counter lives in the kernel, which
therefore knows who did what. With SEM_UNDO it keeps, per process and counter, the sum to be given back (semadj), and
gives it back when that process ends, however it ends.

    with SysvSemaphore.create(1) as turn:      turn.key; a set of one
        with turn.held(timeout_s=1.0): ...     semtimedop(-1, SEM_UNDO), then semop(+1, SEM_UNDO)

Lifetime. Kernel: until IPC_RMID or the next boot; shown by `ipcs -s`. Removing it wakes every waiter with EIDRM: here
PeerGone. The textbook's trap: semget creates and semctl(SETVAL) gives the first value, two steps, and who attaches in
between finds 0. Whoever attaches must know that the maker is done, or look for a sem_otime that is not 0.

Boundaries. It carries no data.

Order. The kernel keeps waiters in a queue and takes the first whose step is possible; one that asks for a lot can be
overtaken for ever by those who ask for little.

Capacity and limits. /proc/sys/kernel/sem: counters a set, counters in all, operations a call, sets. A value is at most
SEMVMX, 32767. Semaphores of all users count, so a machine can be out of sets for reasons that are not yours.

Blocking. semop(2) sleeps in the kernel. semtimedop(2) has a deadline; sysv_ipc is not always built with it (its wheels
say SEMAPHORE_TIMEOUT_SUPPORTED = False and then wait for ever whatever timeout they are given), so the operations here
are the C library's, called directly. A signal ends it with EINTR even under SA_RESTART: acquire() goes on waiting.

When an end dies. With SEM_UNDO what it took is given back by the kernel at once, kill -9 included, and the next one
gets it. Nobody is told that the data it guarded may be half written: there is no EOWNERDEAD here. Without SEM_UNDO it
stays taken. Undo belongs to the process that did the operation: let another one release it, and the books are wrong
(one too many at the end), so SEM_UNDO is for locks, not for hand-overs. A forked child inherits no undo.

Use it when holders may die and the data survives that, when several counters must change at once, or when old
programs use it.

Not when speed matters (each operation is a system call), when keys can collide, or in new designs without that need.

Man pages. sysvipc(7), semget(2), semop(2), semctl(2), ipcs(1).
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import ExitStack, suppress
from functools import cache
from types import TracebackType
from typing import Any, Self

from ipclab.errors import IpclabError, NameInUse, NoRoom, PeerGone, TimedOut, Unavailable, UsageError, from_os_error
from ipclab.mechanisms import _sysv
from ipclab.mechanisms.base import Bell, Deadline, Link, NativeSpec
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.sync._bell import SyncBell, Turns
from ipclab.mechanisms.sync._lock import Lock
from ipclab.processes import registry
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="sysv-sem",
    family="synchronisation",
    summary="a counter in the kernel found by its key; SEM_UNDO gives back what a dead process took",
    lifetime="kernel",
    man_pages=("sysvipc(7)", "semget(2)", "semop(2)", "semctl(2)"),
)
LINK: type[Link] | None = None

#: linux/sem.h: the largest value a semaphore can have.
SEMVMX = 32767
_IPC_NOWAIT = 0o4000
_SEM_UNDO = 0x1000


#: struct sembuf: sem_num, sem_op, sem_flg; struct timespec on 64-bit Linux.
_SEMBUF = struct.Struct("@Hhh")
_TIMESPEC = struct.Struct("@ll")


@cache
def _libc() -> Any:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.semtimedop.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p)
    return libc


def _semtimedop(semid: int, delta: int, flags: int, left_s: float | None) -> int:
    """One semtimedop(2) on the first counter of a set; 0 or an errno. Releases the GIL."""
    import ctypes

    limit = None
    if left_s is not None:
        seconds = min(left_s, 1e9)  # thirty years are for ever
        limit = _TIMESPEC.pack(int(seconds), int(seconds % 1 * 1e9))
    done = _libc().semtimedop(semid, _SEMBUF.pack(0, delta, flags), 1, limit)
    return 0 if done == 0 else ctypes.get_errno()


class SysvSemaphore(Lock):
    """A set of one semaphore. Leaving the `with` removes it in the process that created it."""

    def __init__(self, key: int, semaphore: Any, *, undo: bool, created: bool) -> None:
        self.key = key
        self.id: int = semaphore.id
        self.undo = undo
        self._semaphore = semaphore
        self._creator_pid = os.getpid() if created else 0

    @classmethod
    def create(cls, value: int = 1, label: str = "sem", *, undo: bool = True) -> Self:
        """A new one under a new key, mode 0600. `undo`: operations of this object are taken back when their process
        ends. Raises UsageError for an impossible value, NoRoom, Unavailable."""
        sysv_ipc = _sysv.load("SysV semaphores")
        if not 0 <= value <= SEMVMX:
            raise UsageError(f"a SysV semaphore cannot begin with {value}", hint=f"0 to {SEMVMX} (SEMVMX)")
        key = registry.new_key("sysv-sem", label)
        try:
            semaphore = sysv_ipc.Semaphore(key, sysv_ipc.IPC_CREX, mode=0o600, initial_value=value)
        except BaseException as err:
            with suppress(sysv_ipc.Error):
                sysv_ipc.Semaphore(key).remove()
            registry.forget("sysv-sem", key)
            if isinstance(err, Exception):
                raise _open_error(sysv_ipc, err, key) from err
            raise
        return cls(key, semaphore, undo=undo, created=True)

    @classmethod
    def attach(cls, key: int, *, undo: bool = True) -> Self:
        """The existing one of that key. Raises IpclabError when there is none, Unavailable without permission."""
        sysv_ipc = _sysv.load("SysV semaphores")
        try:
            semaphore = sysv_ipc.Semaphore(key)
        except Exception as err:
            raise _open_error(sysv_ipc, err, key) from err
        return cls(key, semaphore, undo=undo, created=False)

    @property
    def value(self) -> int:
        """The counter now; already old when you read it."""
        return int(self._read("value"))

    @property
    def waiting(self) -> int:
        """How many processes wait for it to grow (GETNCNT)."""
        return int(self._read("waiting_for_nonzero"))

    @property
    def last_pid(self) -> int:
        """Who operated on it last (GETPID); the undo of a dead process counts as its own."""
        return int(self._read("last_pid"))

    def acquire(self, timeout_s: float | None = None) -> None:
        """Take one; waits while the counter is 0. Raises TimedOut, PeerGone when it is removed meanwhile."""
        self._operate(-1, timeout_s)

    def release(self) -> None:
        """Add one. With undo only the process that took it should."""
        self._operate(1, 0)

    def wait_zero(self, timeout_s: float | None = None) -> None:
        """Wait until the counter is 0, changing nothing: the operation no other semaphore has."""
        self._operate(0, timeout_s)

    def close(self) -> None:
        """Does nothing: a process holds nothing of a SysV semaphore but its id, and the undo."""

    def unlink(self) -> None:
        """IPC_RMID: it is gone at once, and whoever waits is told. Twice is allowed."""
        with suppress(_sysv.load("SysV semaphores").ExistentialError):
            self._semaphore.remove()
        registry.forget("sysv-sem", self.key)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._creator_pid == os.getpid():
            self.unlink()

    def _operate(self, delta: int, timeout_s: float | None) -> None:
        flags = _SEM_UNDO if self.undo and delta else 0
        if timeout_s is not None and timeout_s <= 0:
            flags |= _IPC_NOWAIT
        deadline, what = Deadline(timeout_s), f"SysV semaphore {self.key:#010x}"
        while (number := _semtimedop(self.id, delta, flags, deadline.left_s())) == errno.EINTR:
            pass  # a handler has run; if it raised, we are not here
        if number == errno.EAGAIN:
            raise TimedOut(f"{what}: not in time", errno=number, syscall="semtimedop")
        if number in (errno.EIDRM, errno.EINVAL):
            raise PeerGone(f"{what} has been removed", errno=number, syscall="semtimedop")
        if number:
            raise from_os_error(OSError(number, os.strerror(number)), what, syscall="semtimedop")

    def _read(self, attribute: str) -> Any:
        sysv_ipc = _sysv.load("SysV semaphores")
        try:
            return getattr(self._semaphore, attribute)
        except sysv_ipc.ExistentialError as err:
            raise PeerGone(f"SysV semaphore {self.key:#010x} has been removed") from err


def _open_error(sysv_ipc: Any, err: Exception, key: int) -> IpclabError:
    what = f"SysV semaphore {key:#010x}"
    if isinstance(err, sysv_ipc.ExistentialError):
        return NameInUse(f"{what} exists already") if "already" in str(err) else IpclabError(f"{what} does not exist")
    if isinstance(err, (sysv_ipc.PermissionsError, PermissionError)):
        return Unavailable(f"{what}: no permission", hint="it belongs to another user, see `ipcs -s`")
    if isinstance(err, (OSError, MemoryError)):
        hint = "see `ipcs -ls` and `ipcs -s`; `ipclab clean` removes what dead ones left"
        return NoRoom(f"{what}: {err}", hint=hint, errno=getattr(err, "errno", None))
    return IpclabError(f"{what}: {err}")


def probe() -> Probe:
    """Ask for a key that nobody has, and whether the table has room."""
    return _sysv.probe("SysV semaphores", "sem", _sysv.most("sem", 3), lambda sysv_ipc, key: sysv_ipc.Semaphore(key))


def limits() -> tuple[Limit, ...]:
    """The four numbers of /proc/sys/kernel/sem, and the largest value."""
    return (
        _live.sysctl("kernel/sem", "semaphores in a set (SEMMSL)", "semaphores", 0),
        _live.sysctl("kernel/sem", "semaphores in all (SEMMNS)", "semaphores", 1),
        _live.sysctl("kernel/sem", "operations in one semop (SEMOPM)", "operations", 2),
        _live.sysctl("kernel/sem", "sets (SEMMNI)", "sets", 3),
        Limit(name="largest value (SEMVMX)", value=SEMVMX, unit="", source="linux/sem.h"),
    )


class SysvPingPong(Turns[SysvSemaphore]):
    """Two sets of one semaphore, without undo: what one process posts the other takes."""

    name = "sysv-sem"

    @classmethod
    def _make(cls, stack: ExitStack) -> tuple[SysvSemaphore, SysvSemaphore]:
        first, second = (stack.enter_context(SysvSemaphore.create(0, label, undo=False)) for label in ("to-a", "to-b"))
        return first, second

    @staticmethod
    def _bell(incoming: SysvSemaphore, outgoing: SysvSemaphore) -> Bell:
        numbers = {"in": incoming.id, "out": outgoing.id}
        return SyncBell.of_locks(incoming, outgoing, NativeSpec("sysv-sem", (), None, numbers))


PING_PONG = SysvPingPong

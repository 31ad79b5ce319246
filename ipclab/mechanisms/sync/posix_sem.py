"""posix-sem: a counter with a name, at which processes wait.

What it is. sem_open(3) maps a small file in /dev/shm, named sem.NAME there, that holds an unsigned counter. sem_wait(3)
takes one, waiting while there is none; sem_post(3) adds one and wakes a waiter. The counter lives in shared memory and
is changed by an atomic instruction; only who must sleep, or wake a sleeper, makes a system call (futex(2)). With 1 at
the start it is a lock, with n it is n tickets, with 0 it is a hand-over: anybody may post, not only who waited.

Lifetime. Kernel: until sem_unlink(3) or the next boot. Unlinking removes the name; who has it open goes on. With
posix_ipc unlink *before* close: the object forgets its name on close() and its unlink() then fails, so a semaphore
closed first stays in /dev/shm. (Here unlink() goes by the name and works either way.)

Boundaries. It carries no data.

Order. None promised: sem_post makes one waiter runnable, and a process that comes by at that moment may be quicker.
What a process stored before it posts is seen by whoever gets past sem_wait.

Capacity and limits. SEM_VALUE_MAX, room for a page in /dev/shm, names of at most 251 bytes.

Blocking. sem_wait sleeps in futex(2) while the counter is 0; sem_timedwait takes a deadline on the wall clock, so a
step of the clock lengthens or shortens it (the unnamed ones here use the monotonic clock). A handled signal interrupts
the wait with EINTR: acquire() goes on waiting.

When an end dies. Nothing happens, and that is its weakness: the counter does not know who has taken what. A holder
killed between wait and post leaves it locked for ever; the next one waits until its deadline, and a count repaired by
hand is a guess. Where holders may die use sysv-sem with SEM_UNDO, a robust mutex, or a file lock.

Use it when unrelated processes must count something or take turns, and dying in the middle is out of the question.

Not when a holder may be killed, when several must be taken at once (sysv-sem), or when it must be waited for together
with descriptors (eventfd).

Man pages. sem_overview(7), sem_open(3), sem_wait(3), sem_post(3), sem_unlink(3).
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

import posix_ipc

from ipclab.errors import IpclabError, UsageError, from_os_error
from ipclab.mechanisms.base import Bell, Deadline, Link, NativeSpec
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.posix_shm import open_error, probe_dev_shm
from ipclab.mechanisms.sync._bell import SyncBell, Turns
from ipclab.mechanisms.sync._lock import Lock
from ipclab.processes import registry
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="posix-sem",
    family="synchronisation",
    summary="a named counter at which processes wait; stays taken when its holder dies",
    lifetime="kernel",
    man_pages=("sem_overview(7)", "sem_open(3)", "sem_wait(3)", "sem_post(3)"),
)
LINK: type[Link] | None = None


class NamedSemaphore(Lock):
    """A named semaphore, open in this process. Leaving the `with` closes it and, in its creator, unlinks it."""

    def __init__(self, name: str, semaphore: posix_ipc.Semaphore, *, created: bool) -> None:
        self.name = name
        self._semaphore: posix_ipc.Semaphore | None = semaphore
        self._creator_pid = os.getpid() if created else 0

    @classmethod
    def create(cls, value: int = 1, label: str = "sem") -> Self:
        """A new one under a new name, mode 0600. Raises UsageError for an impossible value, NoRoom, Unavailable."""
        if not 0 <= value <= posix_ipc.SEMAPHORE_VALUE_MAX:
            raise UsageError(f"a semaphore cannot begin with {value}", hint=f"0 to {posix_ipc.SEMAPHORE_VALUE_MAX}")
        name = registry.new_name("posix-sem", label)
        try:
            return cls._open(name, value)
        except BaseException:
            with suppress(posix_ipc.Error, OSError):  # where nothing can be made, nothing can be removed either
                _unlink(name)
            registry.forget("posix-sem", name)
            raise

    @classmethod
    def attach(cls, name: str) -> Self:
        """The existing one of that name. Raises IpclabError when there is none, Unavailable without permission."""
        return cls._open(name, None)

    @classmethod
    def _open(cls, name: str, value: int | None) -> Self:
        flags = 0 if value is None else posix_ipc.O_CREX
        try:
            semaphore = posix_ipc.Semaphore(name, flags, mode=0o600, initial_value=value or 0)
        except (posix_ipc.Error, OSError, ValueError, MemoryError) as err:
            raise open_error(err, f"POSIX semaphore {name}", creating=value is not None) from err
        return cls(name, semaphore, created=value is not None)

    @property
    def value(self) -> int:
        """The counter now; already old when you read it."""
        return int(self._opened().value)

    def acquire(self, timeout_s: float | None = None) -> None:
        """Take one; waits while the counter is 0. Raises TimedOut, also when who had it is dead."""
        semaphore, deadline = self._opened(), Deadline(timeout_s)
        while True:
            try:
                semaphore.acquire(deadline.left_s())
                return
            except posix_ipc.SignalError:
                continue  # a handler has run; if it raised, we are not here
            except posix_ipc.BusyError:
                deadline.check(f"POSIX semaphore {self.name}: nobody has released it")

    def release(self) -> None:
        """Add one and wake a waiter. Any process may, also one that took none."""
        try:
            self._opened().release()
        except OSError as err:
            raise from_os_error(err, f"POSIX semaphore {self.name}", syscall="sem_post") from err

    def close(self) -> None:
        """Close it in this process; the semaphore stays."""
        semaphore, self._semaphore = self._semaphore, None
        if semaphore is not None:
            semaphore.close()

    def unlink(self) -> None:
        """Remove the name, before or after close(); twice is allowed."""
        _unlink(self.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._creator_pid == os.getpid():
            self.unlink()
        self.close()

    def _opened(self) -> posix_ipc.Semaphore:
        if self._semaphore is None:
            raise IpclabError(f"POSIX semaphore {self.name} is closed in this process")
        return self._semaphore


def _unlink(name: str) -> None:
    with suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_semaphore(name)
    registry.forget("posix-sem", name)


def probe() -> Probe:
    """Open a name that nobody has: ENOENT is the answer where there is a /dev/shm. Then: may this user write there?"""
    try:
        posix_ipc.Semaphore("/ipclab-nobody-has-this").close()
    except posix_ipc.ExistentialError:
        pass
    except (posix_ipc.Error, OSError) as err:
        return Probe(works=False, reason=f"sem_open: {err}", remedy="mount a tmpfs on /dev/shm, writable for all")
    return probe_dev_shm()


def limits() -> tuple[Limit, ...]:
    """Room in /dev/shm and the largest value."""
    return (
        Limit(name="largest value", value=os.sysconf("SC_SEM_VALUE_MAX"), unit="", source="sysconf(_SC_SEM_VALUE_MAX)"),
        *_live.room_in(_live.DEV_SHM, "/dev/shm"),
        _live.map_count(),
        Limit(name="length of a name", value=251, unit="bytes", source="NAME_MAX - 4, sem_overview(7)"),
    )


class NamedPingPong(Turns[NamedSemaphore]):
    """Two named semaphores."""

    name = "posix-sem"

    @classmethod
    def _make(cls, stack: ExitStack) -> tuple[NamedSemaphore, NamedSemaphore]:
        first, second = (stack.enter_context(NamedSemaphore.create(0, label)) for label in ("to-a", "to-b"))
        return first, second

    @staticmethod
    def _bell(incoming: NamedSemaphore, outgoing: NamedSemaphore) -> Bell:
        names = f"{incoming.name}\0{outgoing.name}\0".encode()
        return SyncBell.of_locks(incoming, outgoing, NativeSpec("posix-sem", (), names, {}))


PING_PONG = NamedPingPong

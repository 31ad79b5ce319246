"""fcntl-lock: locks on ranges of a file, in two kinds that differ in whom they belong to.

What it is. fcntl(2) with a struct flock locks bytes first to last of a file, shared or exclusive; advisory, like flock.
  - record locks (F_SETLK), the POSIX ones, belong to the *process*: (pid, file).
  - open file description locks (F_OFD_SETLK, Linux 3.15) belong to what open(2) made, like flock, but with ranges.
The two conflict with each other, and neither with flock (but on NFS). A range may be beyond the end of the file.

    RecordLock.create("table")       .acquire(timeout_s, first=0, length=100, shared=False)
    OfdLock.create("table")          the same; after a fork the child needs reopen()

Lifetime. Until unlocked, or the process ends (record), or the last descriptor of the description is closed (OFD). The
trap of record locks: close() of *any* descriptor of the file drops all locks this process has on it, also of one that
a library opened and closed to read the file. Threads of a process are one holder. A child inherits none.
For OFD locks neither holds: use them.

Boundaries. It carries no data.

Order. Waiters queue per range; a new shared lock may overtake a waiting exclusive one.

Capacity and limits. Offsets up to 2^63 - 1; RLIMIT_LOCKS does nothing since Linux 2.4.25.

Blocking. F_SETLKW sleeps until the range is free, a signal interrupts. For record locks the kernel looks for a cycle of
waiters first and refuses the lock that would close it: EDEADLK, here Deadlock; for OFD locks it cannot. There is no
deadline: with one, acquire() asks again and again, with pauses that grow to 20 ms, and the kernel, which sees nobody
wait, finds no cycle.

When an end dies. Its record locks go with it, at once; an OFD lock with the last descriptor, so a child that
inherited it keeps it. The next one gets the lock and is not told that the data may be half written. F_GETLK says who
holds a record lock, by pid; of an OFD lock it says -1.

Use it when parts of a file are to be locked, or a crash must free the lock. Databases do.

Not when threads must exclude each other with record locks, or many locks a second are taken (robust-mutex).

Man pages. fcntl_locking(2), fcntl(2), lockf(3), proc_locks(5).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, Self

from ipclab.errors import IpclabError, UsageError, from_os_error
from ipclab.mechanisms.base import Deadline, Link
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.memfd import create_fd
from ipclab.mechanisms.sync._lock import Lock, poll_until
from ipclab.mechanisms.sync._lock_file import LockFile
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="fcntl-lock",
    family="synchronisation",
    summary="locks on ranges of a file: of the process (record) or of the open file description (OFD)",
    lifetime="process",
    go="syscall.FcntlFlock",
    man_pages=("fcntl_locking(2)", "fcntl(2)", "lockf(3)"),
)
LINK: type[Link] | None = None

#: struct flock on 64-bit Linux: l_type, l_whence, (4 bytes), l_start, l_len, l_pid, (4 bytes). Native alignment puts
#: the first gap in; the last has to be asked for.
_FLOCK = struct.Struct("@hhqqi4x")
LARGEST_OFFSET = 2**63 - 1


class Deadlock(IpclabError):
    """Waiting for this lock would close a cycle of processes that wait for each other; give something back first."""


class Holder(NamedTuple):
    """Who stands in the way of a lock."""

    #: The process; -1 for an OFD lock, which belongs to none.
    pid: int
    first: int
    #: 0: to the end of the file, however long it gets.
    length: int
    shared: bool


class _RangeLock(LockFile, Lock):
    """A file and locks on ranges of it."""

    _set: ClassVar[int]
    _set_wait: ClassVar[int]
    _get: ClassVar[int]

    def acquire(self, timeout_s: float | None = None, *, first: int = 0, length: int = 0, shared: bool = False) -> None:
        """Lock `length` bytes from `first` on (0: to the end), exclusive or shared; waits while others' forbid it.

        Raises TimedOut; RecordLock without a timeout also Deadlock.
        """
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        if timeout_s is None:
            self._call(self._set_wait, _pack(kind, first, length))
            return
        what = f"lock of {self.path}, {length or 'all'} bytes from {first}: nobody has released it"
        poll_until(lambda: self._lock_nowait(kind, first, length), Deadline(timeout_s), what)

    def release(self, *, first: int = 0, length: int = 0) -> None:
        """Unlock the range; part of what was locked is allowed."""
        self._call(self._set, _pack(fcntl.F_UNLCK, first, length))

    @contextmanager
    def held(
        self, timeout_s: float | None = None, *, first: int = 0, length: int = 0, shared: bool = False
    ) -> Iterator[Self]:
        """A block that has the range."""
        self.acquire(timeout_s, first=first, length=length, shared=shared)
        try:
            yield self
        finally:
            self.release(first=first, length=length)

    def holder(self, *, first: int = 0, length: int = 0, shared: bool = False) -> Holder | None:
        """Who would stop us from locking the range (F_GETLK); None: nobody, or only ourselves."""
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        answer = self._call(self._get, _pack(kind, first, length))
        kind, _, start, size, pid = _FLOCK.unpack(answer)
        if kind == fcntl.F_UNLCK:
            return None
        return Holder(pid, start, size, kind == fcntl.F_RDLCK)

    def _lock_nowait(self, kind: int, first: int, length: int) -> bool:
        try:
            fcntl.fcntl(self.fileno(), self._set, _pack(kind, first, length))
        except OSError as err:
            if err.errno in (errno.EAGAIN, errno.EACCES):  # POSIX allows both for "somebody else has it"
                return False
            raise self._error(err) from err
        return True

    def _call(self, command: int, request: bytes) -> bytes:
        try:
            return fcntl.fcntl(self.fileno(), command, request)
        except OSError as err:
            raise self._error(err) from err

    def _error(self, err: OSError) -> IpclabError:
        if err.errno == errno.EDEADLK:
            text = f"lock of {self.path}: its holder waits for a lock of ours"
            return Deadlock(text, errno=err.errno, syscall="fcntl(F_SETLKW)")
        return from_os_error(err, f"lock of {self.path}", syscall="fcntl")


def _pack(kind: int, first: int, length: int) -> bytes:
    if not 0 <= first <= LARGEST_OFFSET or not 0 <= length <= LARGEST_OFFSET - first:
        raise UsageError(f"{length} bytes from {first} are no range of a file", hint="0 to 2**63 - 1")
    return _FLOCK.pack(kind, os.SEEK_SET, first, length, 0)  # l_pid must be 0 for OFD locks


class RecordLock(_RangeLock):
    """POSIX record locks: the process is the holder, and closing any descriptor of the file drops them all."""

    _set, _set_wait, _get = fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK


class OfdLock(_RangeLock):
    """Open file description locks: who shares the description (dup, fork) is the same holder."""

    _set, _set_wait, _get = fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW, fcntl.F_OFD_GETLK


def probe() -> Probe:
    """Lock a memfd that nobody else can have, as an OFD lock."""
    try:
        fd = create_fd("ipclab-probe")
    except IpclabError as err:
        return Probe(works=False, reason=str(err), remedy="raise RLIMIT_NOFILE (ulimit -n)")
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _pack(fcntl.F_WRLCK, 0, 0))
    except OSError as err:
        return Probe(works=False, reason=f"fcntl: {err.strerror}", remedy="a kernel built with CONFIG_FILE_LOCKING")
    finally:
        os.close(fd)
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """The largest offset, and descriptors."""
    return (
        Limit(name="largest offset", value=LARGEST_OFFSET, unit="bytes", source="off_t, fcntl_locking(2)"),
        _live.open_files(),
        _live.sysctl("fs/file-max", "open files of the whole machine", "files"),
    )

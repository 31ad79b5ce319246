"""flock: a lock on a whole file that belongs to the open file description.

What it is. flock(2) locks a file, shared (many readers) or exclusive. The lock is advisory: only who asks is stopped;
read and write do not ask. It belongs to the *open file description*, what open(2) made: dup(2) and fork(2) give more
descriptors of the same one, and all of them are the same holder.

    with FileLock.create("job") as mine:              makes and opens a file, locks nothing yet
        with mine.held(timeout_s=1.0): ...            exclusive
        theirs = FileLock.attach(mine.path)           in another process, or mine.reopen() after a fork

Lifetime. The lock goes when it is released through any descriptor of its description, or the last of them is closed.
The file stays until it is unlinked; unlinking it under its users splits them (see _lock_file.py).

Boundaries. It carries no data.

Order. The kernel keeps waiters in a queue, but shared ones may overtake, and converting shared to exclusive gives the
lock up first: another may get it in between.

Capacity and limits. Descriptors. On NFS Linux turns it into a record lock of the whole file, with what that implies.

Blocking. LOCK_EX and LOCK_SH sleep until it is free, a signal interrupts. There is no deadline: with one, acquire()
here asks again and again with LOCK_NB, with pauses that grow to 20 ms, so it may find the lock late and has no place
in the queue.

When an end dies. The kernel closes its descriptors, and with the last of the description the lock is free: the next one
gets it and is not told. A child that inherited the description keeps the lock alive beyond its parent: the classic
reason why a lock file of a daemon "is still locked".

Use it when programs, scripts too (flock(1)), must not run at the same time, and a crash must not lock them out.

Not when parts of a file are to be locked (fcntl-lock), when the next one must know of the crash (robust-mutex), or when
many locks a second are taken.

Man pages. flock(2), flock(1), open(2), fork(2).
"""

from __future__ import annotations

import errno
import fcntl
import os

from ipclab.errors import IpclabError, from_os_error
from ipclab.mechanisms.base import Deadline, Link
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.memfd import create_fd
from ipclab.mechanisms.sync._lock import Lock, poll_until
from ipclab.mechanisms.sync._lock_file import LockFile
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="flock",
    family="synchronisation",
    summary="a lock on a whole file that belongs to the open file description",
    lifetime="process",
    go="syscall.Flock",
    man_pages=("flock(2)", "flock(1)"),
)
LINK: type[Link] | None = None


class FileLock(LockFile, Lock):
    """A file and its flock. Each process needs a description of its own: attach() or reopen(), not only fork."""

    def acquire(self, timeout_s: float | None = None, *, shared: bool = False) -> None:
        """Lock the file, exclusive or shared; waits while others' locks forbid it. Raises TimedOut."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        if timeout_s is None:
            self._flock(kind)
            return
        what = f"flock of {self.path}: nobody has released it"
        poll_until(lambda: self._flock(kind | fcntl.LOCK_NB), Deadline(timeout_s), what)

    def release(self) -> None:
        """Unlock the file, for all who share this open file description."""
        self._flock(fcntl.LOCK_UN)

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self.fileno(), operation)
        except BlockingIOError:
            return False
        except OSError as err:
            hint = "this file system knows no locks" if err.errno in (errno.ENOLCK, errno.EOPNOTSUPP) else None
            raise from_os_error(err, f"flock of {self.path}", syscall="flock", hint=hint) from err
        return True


def probe() -> Probe:
    """Lock a memfd that nobody else can have."""
    try:
        fd = create_fd("ipclab-probe")
    except IpclabError as err:
        return Probe(works=False, reason=str(err), remedy="raise RLIMIT_NOFILE (ulimit -n)")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        return Probe(works=False, reason=f"flock: {err.strerror}", remedy="a kernel built with CONFIG_FILE_LOCKING")
    finally:
        os.close(fd)
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """Descriptors and open files: there is no other limit."""
    return (_live.open_files(), _live.sysctl("fs/file-max", "open files of the whole machine", "files"))

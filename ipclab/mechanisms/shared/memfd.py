"""memfd: shared memory that is only a descriptor.

What it is. memfd_create(2) gives a descriptor of a file that has no name anywhere: tmpfs pages and nothing else. The
text given to it is for /proc/PID/maps alone. It is sized, mapped and sealed; seals (fcntl F_ADD_SEALS) are promises
that hold for every holder for ever: a file sealed against shrinking can never make a mapped page vanish, so a receiver
need not fear SIGBUS from a sender it does not trust.

    with Memfd.create(4096) as mine:      mine.fd, mine.buffer
        theirs = Memfd.attach(fd)         a process that inherited or was sent the descriptor (see fd-passing)

Lifetime. Process: it is gone with the last descriptor and the last mapping, however its users end. Nothing to unlink,
nothing for a crash to leave.

Boundaries. The memory has none, and no messages: bytes at addresses. The link here keeps them: a bounded buffer with
two semaphores each way (see _slots.py).

Order. None of its own; the semaphores carry it.

Capacity and limits. Memory and swap, the cgroup's limit, address space. The size of /dev/shm plays no part. No
file system says ENOSPC here: more than the machine has would set off the out-of-memory killer, so the size is compared
with the free memory, then reserved by posix_fallocate(3) before anything is touched: NoRoom, not SIGBUS. MFD_CLOEXEC
keeps the descriptor from programs started later; MFD_NOEXEC_SEAL (Linux 6.3) says that this will never be a program,
and vm.memfd_noexec can make that the rule: it is asked for where the kernel knows it. MFD_HUGETLB takes huge pages
where some are reserved.

Blocking. Loads and stores never block. Waiting is the protocol's: here a semaphore's futex sleep.

When an end dies. Its mapping and descriptors go; the memory stays for the others, with what was half written. Here a
slot counts only once its semaphore was posted; a watched peer's death ends a wait.

Use it when related processes share memory, or when a descriptor can be passed: it is what to take first.

Not when strangers must find it by a name (posix-shm), or it has to outlive its users (mmap-file). Any process of the
same user can still open it through /proc/PID/fd, if it may ptrace the holder.

Man pages. memfd_create(2), fcntl(2) (F_ADD_SEALS), mmap(2), unix(7) (SCM_RIGHTS), posix_fallocate(3).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Self

from ipclab.errors import IpclabError, from_os_error
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared._segment import MappedSegment, check_memory, check_size, map_shared, reserve
from ipclab.mechanisms.shared._slots import SlotLink
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="memfd",
    family="shared memory",
    summary="memory that is only a descriptor: no name, sealed against shrinking",
    lifetime="process",
    boundaries=True,
    duplex=True,
    man_pages=("memfd_create(2)", "fcntl(2)", "mmap(2)", "unix(7)"),
)

#: linux/memfd.h; Python has no name for it yet. It includes MFD_ALLOW_SEALING.
MFD_NOEXEC_SEAL = 0x8
#: linux/fcntl.h, Linux 5.1; Python's fcntl has the older seals alone.
F_SEAL_FUTURE_WRITE = 0x10
ROOM_HINT = "free memory, or raise the cgroup's memory limit"


def create_fd(name: str = "ipclab") -> int:
    """A new, empty memfd that can be sealed. `name` shows up in /proc/PID/maps alone. Raises NoRoom, Unavailable."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            return os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
        except OSError as err:
            if err.errno != errno.EINVAL:
                raise
            return os.memfd_create(name, flags)  # Linux before 6.3
    except OSError as err:
        raise from_os_error(err, f"memfd {name}", syscall="memfd_create") from err


class Memfd(MappedSegment):
    """A memfd, mapped. `fd` is open until close(): pass it on. Leaving the `with` closes both."""

    fd: int

    @classmethod
    def create(cls, size_bytes: int, name: str = "ipclab") -> Self:
        """A new, zeroed one, sealed against shrinking. Raises NoRoom."""
        check_size(size_bytes, f"memfd {name}")
        check_memory(size_bytes, f"memfd {name}")
        fd = create_fd(name)
        try:
            reserve(fd, size_bytes, f"memfd {name}", ROOM_HINT)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            return cls._of(fd, f"memfd {name}", created=True)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> Self:
        """Map a memfd that was inherited or received; `fd` is duplicated, the caller keeps its own.

        Raises IpclabError when it is not a memfd, or not sealed against shrinking: its pages could vanish.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as err:
            text = f"descriptor {fd} is not a memfd"
            raise IpclabError(text, errno=err.errno, syscall="fcntl(F_GET_SEALS)") from err
        if not seals & fcntl.F_SEAL_SHRINK:
            hint = "the sender must add F_SEAL_SHRINK"
            raise IpclabError(f"descriptor {fd} is not sealed: whoever shrinks it would kill us by SIGBUS", hint=hint)
        own = os.dup(fd)
        try:
            return cls._of(own, f"memfd {fd}", created=False)
        except BaseException:
            os.close(own)
            raise

    @classmethod
    def _of(cls, fd: int, what: str, *, created: bool) -> Self:
        segment = cls(what, map_shared(fd, what), created=created)
        segment.fd = fd
        return segment

    def seals(self) -> int:
        """The seals it has now: an or of fcntl.F_SEAL_*."""
        return fcntl.fcntl(self.fd, fcntl.F_GET_SEALS)

    def seal(self, seals: int) -> None:
        """Add seals, for ever and for everybody; F_SEAL_SEAL ends that too.

        F_SEAL_WRITE is refused (EBUSY) while a writable mapping exists, ours too: F_SEAL_FUTURE_WRITE lets that one
        stay and forbids new ones.
        """
        try:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        except OSError as err:
            raise from_os_error(err, self.what, syscall="fcntl(F_ADD_SEALS)") from err

    def map_readonly(self) -> mmap.mmap:
        """Another mapping of it, for looking only; the caller closes it."""
        return mmap.mmap(self.fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)

    def _unmap(self) -> None:
        super()._unmap()
        os.close(self.fd)


class MemfdLink(SlotLink):
    """Slots in a memfd."""

    name = "memfd"

    @classmethod
    def _create(cls, size_bytes: int) -> Memfd:
        return Memfd.create(size_bytes, "ipclab-slots")


LINK = MemfdLink


def probe() -> Probe:
    """Make an empty one and close it."""
    try:
        os.close(create_fd("ipclab-probe"))
    except IpclabError as err:
        return Probe(works=False, reason=str(err), remedy="raise RLIMIT_NOFILE (ulimit -n), or allow memfd_create(2)")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """Memory, address space, descriptors."""
    return (
        _live.free_memory(),
        _live.address_space(),
        _live.map_count(),
        _live.open_files(),
        _live.sysctl("vm/memfd_noexec", "executable memfds (0 allowed, 1 if asked for, 2 never)", "mode"),
        Limit(name="length of a name", value=249, unit="bytes", source="memfd_create(2)"),
    )

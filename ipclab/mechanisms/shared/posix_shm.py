"""posix-shm: memory with a name, a file in a file system that has no disk.

What it is. shm_open(3) opens a file in /dev/shm, a tmpfs: its pages are the page cache and nothing else (tmpfs may swap
them out). ftruncate(2) gives it a size, mmap(2) with MAP_SHARED puts its pages into a process's address space. Whoever
maps the same name has the same pages: a store of one is a load of the other, no system call takes part.

    with PosixShm.create(4096, "board") as board:    board.name is "/ipclab-<pid>-...", board.buffer a memoryview
        with PosixShm.attach(board.name) as other:   in another process

Lifetime. Kernel: until shm_unlink(3) or the next boot, whether anybody maps it or not. Unlinking removes the name
alone; the pages live until the last mapping and the last descriptor go. So the tidy pattern is: create, let the other
side attach, unlink at once, and no crash afterwards can leave anything. A mapping is inherited by fork, lost in exec.
The trap: multiprocessing.shared_memory up to Python 3.12 tells its resource tracker of every segment a process
*attaches* to as well, and when that tracker ends it unlinks the segment under its owner's feet, with a warning about
a leak (gh-82300; 3.13 has track=False). This module uses posix_ipc, which unlinks only when asked.

Boundaries. The memory has none, and no messages: bytes at addresses. What makes messages of them is a protocol of the
processes; the link here keeps them, it is a bounded buffer with two semaphores each way (see _slots.py).

Order. None of its own: CPU and compiler may show one process's stores to another in another order. Semaphores, locks
and atomics carry the order; the plain stores between them have none.

Capacity and limits. The size of the tmpfs on /dev/shm (half the RAM by default, 64 MB in a Docker container), address
space, and a name of at most 255 bytes with one slash, the first. ftruncate grants any size: the room is looked for
when a page is first touched, and where there is none the toucher is killed by SIGBUS. So posix_fallocate(3) reserves
every page first and a full /dev/shm is the error NoRoom.

Blocking. Loads and stores never block (a page fault aside). Waiting is the protocol's: here a semaphore's futex sleep.

When an end dies. The memory does not notice and tells nobody, and what was half written stays half written. Here a
slot counts only once its semaphore was posted, so nobody sees half a message; a watched peer's death ends a wait.
A process that shrinks the file makes the others' pages vanish: SIGBUS. Nothing prevents it here; memfd has seals.

Use it when unrelated processes of one machine share much data, or data that outlives its maker.

Not when the data fits a pipe and copying does not matter, when nobody is there to unlink (memfd), or when it has to
survive a reboot (mmap-file).

Man pages. shm_overview(7), shm_open(3), mmap(2), posix_fallocate(3), tmpfs(5), sem_overview(7).
"""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from typing import Self

import posix_ipc

from ipclab.errors import IpclabError, NameInUse, NoRoom, Unavailable, from_os_error
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared._segment import MappedSegment, check_memory, check_size, map_shared, reserve
from ipclab.mechanisms.shared._slots import SlotLink
from ipclab.processes import registry
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="posix-shm",
    family="shared memory",
    summary="a named piece of memory in /dev/shm, mapped by whoever knows the name",
    lifetime="kernel",
    boundaries=True,
    duplex=True,
    man_pages=("shm_overview(7)", "shm_open(3)", "mmap(2)", "posix_fallocate(3)"),
)

#: What to do when /dev/shm has no room.
ROOM_HINT = "make room in /dev/shm (`ipclab clean`), or enlarge it (docker run --shm-size, mount -o remount,size=)"
_CLOSED, _OPEN_IT = "this user cannot write to /dev/shm", "mount a tmpfs there, mode 1777"


def open_error(err: Exception, what: str, *, creating: bool) -> IpclabError:
    """The error for what posix_ipc raised on opening a name; it keeps a sentence, and an errno only sometimes."""
    if creating and isinstance(err, posix_ipc.ExistentialError) and "already" in str(err):
        return NameInUse(f"{what} exists already")
    if creating and isinstance(err, (posix_ipc.ExistentialError, posix_ipc.PermissionsError)):
        # glibc's sem_open says ENOENT where it may not enter the folder.
        return Unavailable(f"{what} cannot be made: {_CLOSED}", hint=_OPEN_IT, errno=errno.EACCES)
    if isinstance(err, posix_ipc.ExistentialError):
        return IpclabError(f"{what} does not exist")
    if isinstance(err, (posix_ipc.PermissionsError, PermissionError)):
        hint = f"it belongs to another user, or {_CLOSED}"
        return Unavailable(f"{what}: no permission", hint=hint, errno=getattr(err, "errno", None))
    if isinstance(err, OSError) and err.errno is not None:
        return from_os_error(err, what)
    if isinstance(err, (OSError, MemoryError)):  # EMFILE, ENFILE, ENOMEM, told by sentence alone
        return NoRoom(f"{what}: {err}", hint="raise RLIMIT_NOFILE (ulimit -n), or free memory")
    return IpclabError(f"{what}: {err}")


class PosixShm(MappedSegment):
    """One named segment, mapped. Leaving the `with` closes it and, in the process that created it, unlinks it."""

    name: str

    @classmethod
    def create(cls, size_bytes: int, label: str = "shm") -> Self:
        """A new, zeroed segment under a new name, mode 0600. Raises NoRoom, Unavailable."""
        check_size(size_bytes, "POSIX shared memory")
        check_memory(size_bytes, "POSIX shared memory")
        name = registry.new_name("posix-shm", label)
        try:
            return cls._open(name, size_bytes)
        except BaseException:
            with suppress(posix_ipc.Error, OSError):  # where nothing can be made, nothing can be removed either
                _unlink(name)
            registry.forget("posix-shm", name)
            raise

    @classmethod
    def attach(cls, name: str) -> Self:
        """The existing segment of that name. Raises IpclabError when there is none, Unavailable without permission."""
        return cls._open(name, None)

    @classmethod
    def _open(cls, name: str, create_bytes: int | None) -> Self:
        what = f"POSIX shared memory {name}"
        flags = 0 if create_bytes is None else posix_ipc.O_CREX
        try:
            fd = posix_ipc.SharedMemory(name, flags, mode=0o600).fd
        except (posix_ipc.Error, OSError, ValueError, MemoryError) as err:
            raise open_error(err, what, creating=create_bytes is not None) from err
        try:
            if create_bytes is not None:
                reserve(fd, create_bytes, what, ROOM_HINT)
            segment = cls(what, map_shared(fd, what), created=create_bytes is not None)
        finally:
            os.close(fd)
        segment.name = name
        return segment

    def unlink(self) -> None:
        """shm_unlink(3), and the registry forgets the name. Whoever has it mapped keeps the memory."""
        _unlink(self.name)


def _unlink(name: str) -> None:
    with suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_shared_memory(name)
    registry.forget("posix-shm", name)


class PosixShmLink(SlotLink):
    """Slots in one named segment."""

    name = "posix-shm"

    @classmethod
    def _create(cls, size_bytes: int) -> PosixShm:
        return PosixShm.create(size_bytes, "slots")


LINK = PosixShmLink


def probe() -> Probe:
    """Open a name that nobody has: ENOENT is the answer where there is a /dev/shm. Then: may this user write there?"""
    try:
        os.close(posix_ipc.SharedMemory("/ipclab-nobody-has-this").fd)
    except posix_ipc.ExistentialError:
        pass
    except (posix_ipc.Error, OSError) as err:
        return Probe(works=False, reason=f"shm_open: {err}", remedy="mount a tmpfs on /dev/shm, writable for all")
    return probe_dev_shm()


def probe_dev_shm() -> Probe:
    """Whether this user can make something in /dev/shm, and it has room for a page."""
    if not os.access(_live.DEV_SHM, os.W_OK | os.X_OK):
        return Probe(works=False, reason=_CLOSED, remedy=_OPEN_IT)
    found = os.statvfs(_live.DEV_SHM)
    if found.f_blocks and found.f_bavail * found.f_frsize < resource.getpagesize():
        return Probe(works=False, reason="/dev/shm is full", remedy=ROOM_HINT)
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """Room in /dev/shm, memory, address space."""
    return (
        *_live.room_in(_live.DEV_SHM, "/dev/shm"),
        _live.free_memory(),
        _live.address_space(),
        _live.map_count(),
        _live.open_files(),
        Limit(name="length of a name", value=255, unit="bytes", source="NAME_MAX, shm_open(3)"),
    )

"""mmap-file: a file on a disk, seen as memory.

What it is. mmap(2) with MAP_SHARED maps a file's pages in the page cache, the same pages read(2) and write(2) use. What
one process stores, another that maps the file loads at once, and a third that reads it with read(2) reads; the disk
follows when the kernel finds time. MAP_PRIVATE would be copy-on-write: others never see those stores.

    with MappedFile.create(4096, "table") as table:     table.path, table.buffer
        with MappedFile.attach(table.path) as other:    in another process

Lifetime. File system: the file is there until it is unlinked, across crashes and reboots; this module's own file
lives in the runtime folder and is removed with its link. What survives what: a kill -9 of the writer loses nothing,
the page cache has every store made. A crash of the kernel or of the power loses what was not written back: msync(2)
with MS_SYNC waits until it is (`flush()` here), and even then two pages may have been written in any order, so a file
that must be right after a crash needs a journal or checksums.

Boundaries. The memory has none, and no messages: bytes at addresses. The link here keeps them: a bounded buffer with
two semaphores each way (see _slots.py). Semaphores in a file survive a reboot, in whatever state: initialise them anew.

Order. None of its own; the semaphores carry it.

Capacity and limits. The room of the file system and the user's quota, RLIMIT_FSIZE, address space. A file that is only
ftruncated is a hole; touching it when the disk is full is SIGBUS, so posix_fallocate(3) reserves the blocks first.
A page beyond the end of the file is SIGBUS too: the tail of the last page reads as zeros and is never written.

Blocking. A first touch waits for the disk if the page is not in memory (state D), a store may wait while the file
system prepares the page for writing; after that nothing does. Waiting for the other side is the protocol's.

When an end dies. Its stores are in the page cache and stay. Nobody is told. Here a slot counts only once its
semaphore was posted; a watched peer's death ends a wait. Whoever truncates the file kills the others by SIGBUS.

Use it when the data is a file anyway, is larger than memory, or has to outlive the processes.

Not when it need not be a file: dirty pages are written to the disk for nothing (memfd, posix-shm). Not on network file
systems, where the processes of two machines do not share a page cache.

Man pages. mmap(2), msync(2), posix_fallocate(3), open(2), proc_sys_vm(5) (dirty_*).
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Self

from ipclab.errors import IpclabError, from_os_error
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared._segment import MappedSegment, check_size, map_shared, reserve
from ipclab.mechanisms.shared._slots import SlotLink
from ipclab.processes import journal, registry
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="mmap-file",
    family="shared memory",
    summary="a file mapped into memory: the page cache is shared, the disk follows",
    lifetime="file system",
    go="syscall.Mmap",
    boundaries=True,
    duplex=True,
    man_pages=("mmap(2)", "msync(2)", "posix_fallocate(3)"),
)

ROOM_HINT = "make room where the runtime folder is (XDG_RUNTIME_DIR, else the temporary folder)"


class MappedFile(MappedSegment):
    """A mapped file. Leaving the `with` closes it and, if create() made the file in this process, removes it."""

    path: Path

    @classmethod
    def create(cls, size_bytes: int, label: str = "mmap") -> Self:
        """A new, zeroed file in the runtime folder, mode 0600, its blocks reserved. Raises NoRoom, Unavailable."""
        check_size(size_bytes, "mapped file")
        path = registry.new_path(label, ".map")
        try:
            return cls._open(path, size_bytes)
        except BaseException:
            _unlink(path)
            raise

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Map an existing file, whole, for reading and writing; it must not be empty."""
        return cls._open(path, None)

    @classmethod
    def _open(cls, path: Path, create_bytes: int | None) -> Self:
        what = f"mapped file {path}"
        created = create_bytes is not None
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if created else 0)
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError as err:
            raise IpclabError(f"{what} does not exist", errno=err.errno, syscall="open") from err
        except OSError as err:
            raise from_os_error(err, what, syscall="open") from err
        try:
            if create_bytes is not None:
                reserve(fd, create_bytes, what, ROOM_HINT)
            segment = cls(what, map_shared(fd, what), created=created)
        finally:
            os.close(fd)
        segment.path = path
        return segment

    def flush(self) -> None:
        """msync(2) with MS_SYNC: returns when what was stored until now is on the disk. May wait for it (state D)."""
        _ = self.buffer  # closed: a clear error
        try:
            self._mapping.flush()
        except OSError as err:
            raise from_os_error(err, self.what, syscall="msync") from err

    def unlink(self) -> None:
        """Remove the file's name; whoever has it mapped keeps the pages."""
        _unlink(self.path)


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    registry.forget("path", path)


class MmapFileLink(SlotLink):
    """Slots in a mapped file."""

    name = "mmap-file"

    @classmethod
    def _create(cls, size_bytes: int) -> MappedFile:
        return MappedFile.create(size_bytes, "slots")


LINK = MmapFileLink


def probe() -> Probe:
    """Make a nameless file where the runtime folder is or would be, map a page of it, and let it go."""
    try:
        folder = _nearest_folder()
    except (IpclabError, OSError) as err:
        return Probe(works=False, reason=str(err), remedy="set XDG_RUNTIME_DIR or TMPDIR to a folder you can write to")
    try:
        fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as err:
        if err.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            return Probe(works=True)  # a file system without O_TMPFILE can still map files
        return Probe(works=False, reason=f"{folder}: {err.strerror}", remedy="set XDG_RUNTIME_DIR or TMPDIR")
    try:
        os.posix_fallocate(fd, 0, mmap.PAGESIZE)
        mmap.mmap(fd, mmap.PAGESIZE).close()
    except OSError as err:
        return Probe(works=False, reason=f"no file can be mapped in {folder}: {err.strerror}", remedy=ROOM_HINT)
    finally:
        os.close(fd)
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """Room where our files are, and what bounds any mapping."""
    return (
        *_room(),
        _live.rlimit(resource.RLIMIT_FSIZE, "largest file this process may write", "bytes", "RLIMIT_FSIZE"),
        _live.address_space(),
        _live.map_count(),
        _live.open_files(),
        _live.sysctl("vm/dirty_expire_centisecs", "age at which a dirty page is written back", "1/100 s"),
    )


def _room() -> tuple[Limit, ...]:
    name = "file system of the runtime folder"
    try:
        return _live.room_in(_nearest_folder(), name)
    except (IpclabError, OSError) as err:
        return (Limit(name=f"{name}, free", value=None, unit="bytes", source=str(err)),)


def _nearest_folder() -> Path:
    """The runtime folder, or where it would be made. Makes nothing."""
    folder = journal.folder_path()
    return folder if folder.is_dir() else folder.parent

"""Shared memory as the programs see it: a run of bytes, some of it perhaps under a name.

The four mechanisms differ in where the bytes come from, in their name and in their end; a `Segment` is what they have
in common. It is created in one process and attached in others, or simply inherited: a fork shares every MAP_SHARED
mapping and every attached SysV segment.

    with PosixShm.create(4096, "counter") as mine:      memory and name; leaving removes both
        mine.buffer[0:5] = b"hello"
                                   with PosixShm.attach(mine.name) as theirs:     in any process of this user
                                       bytes(theirs.buffer[0:5])

Room is reserved before the first touch. A mapped page the file system has no room for is not an error but SIGBUS, at
whatever instruction happened to touch it; posix_fallocate(3) asks first, and its ENOSPC becomes NoRoom. Where no file
system sets a limit (memfd, SysV) asking for more than the machine has is not an error either: the kernel would kill
processes until there is room, anybody's. So a large size is compared with the free memory before.
"""

from __future__ import annotations

import errno
import mmap
import os
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Self

from ipclab.errors import IpclabError, NoRoom, UsageError, from_os_error
from ipclab.mechanisms.shared._live import free_memory

#: Below this the question for free memory, some 50 us, costs more than its answer is worth.
ASK_FROM_BYTES = 1 << 20
#: Beyond this no process of the machines we run on can map: 47 bits of user address space, less a little.
MOST_BYTES = 1 << 46


class Segment(ABC):
    """A run of shared bytes, mapped into this process. A context manager: leaving it closes it, and unlinks it in the
    process that created it."""

    def __init__(self, what: str, buffer: memoryview, *, created: bool) -> None:
        #: How messages call it: "POSIX shared memory /x".
        self.what = what
        self.size_bytes = buffer.nbytes
        self._buffer: memoryview | None = buffer
        self._creator_pid = os.getpid() if created else 0

    @property
    def buffer(self) -> memoryview:
        """The bytes, writable. Slices of it keep the pages mapped, also after close()."""
        if self._buffer is None:
            raise IpclabError(f"{self.what} is closed in this process")
        return self._buffer

    def close(self) -> None:
        """Unmap it from this process; the memory lives on where others have it. Closing twice is allowed."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.release()
            self._unmap()

    def unlink(self) -> None:
        """Remove the name, if it has one; whoever has it mapped keeps the memory. Twice is allowed."""
        return

    @abstractmethod
    def _unmap(self) -> None:
        """Give back what this process holds; called once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The name first: if closing fails, nothing is left that outlives the process.
        if self._creator_pid == os.getpid():
            self.unlink()
        self.close()


class MappedSegment(Segment):
    """A segment that is a MAP_SHARED mapping of a file of some kind."""

    def __init__(self, what: str, mapping: mmap.mmap, *, created: bool) -> None:
        super().__init__(what, memoryview(mapping), created=created)
        self._mapping = mapping

    def _unmap(self) -> None:
        # BufferError: somebody still holds a slice; the mapping goes with the last of them.
        with suppress(BufferError):
            self._mapping.close()


def check_size(size_bytes: int, what: str) -> None:
    """A size that can be asked for at all; UsageError otherwise, NoRoom beyond any address space."""
    if size_bytes < 1:
        raise UsageError(f"{what}: a size of {size_bytes} bytes cannot be", hint="give 1 byte or more")
    if size_bytes > MOST_BYTES:
        raise NoRoom(f"{what}: {size_bytes} bytes are more than a process can map ({MOST_BYTES})")


def check_memory(size_bytes: int, what: str) -> None:
    """NoRoom when the machine, or this container, has not that much left now; somebody else may take it meanwhile."""
    if size_bytes < ASK_FROM_BYTES:
        return
    free = free_memory()
    if free.value is not None and size_bytes > free.value:
        text = f"{what}: no room for {size_bytes} bytes, {free.value} are free ({free.source})"
        raise NoRoom(text, hint="free memory, or raise the container's memory limit", errno=errno.ENOMEM)


def reserve(fd: int, size_bytes: int, what: str, hint: str) -> None:
    """Give the file its size and its pages now. Raises NoRoom (with `hint`) where a touch would have been SIGBUS."""
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as err:
        if err.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
            text = f"{what}: no room for {size_bytes} bytes"
            raise NoRoom(text, hint=hint, errno=err.errno, syscall="fallocate") from err
        raise from_os_error(err, f"{what}, {size_bytes} bytes", syscall="fallocate") from err


def map_shared(fd: int, what: str) -> mmap.mmap:
    """Map the whole file, shared and writable. Raises NoRoom where the address space or the memory is used up."""
    try:
        # Length 0 is the whole file. Python keeps a duplicate of fd until the mapping is closed.
        return mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    except ValueError as err:
        raise IpclabError(f"{what}: the file is empty", hint="whoever makes it has not given it its size yet") from err
    except OSError as err:
        raise from_os_error(err, what, syscall="mmap") from err

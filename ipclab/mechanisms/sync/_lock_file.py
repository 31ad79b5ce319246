"""The file that flock and fcntl locks are about: its path, and an open file description of its own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ipclab.errors import IpclabError, from_os_error
from ipclab.mechanisms.base import Resource
from ipclab.processes import registry


class LockFile(Resource):
    """An open file to be locked. Leaving the `with` closes it and, if create() made it in this process, removes it.

    Removing a lock file while others use it is a trap: they go on locking a file without a name, and who comes next
    makes a new file and locks that one. So only its creator does, at the end.
    """

    def __init__(self, path: Path, fd: int, *, created: bool) -> None:
        self.path = path
        self._fd: int | None = fd
        self._creator_pid = os.getpid() if created else 0

    @classmethod
    def create(cls, label: str = "lock") -> Self:
        """A new, empty file in the runtime folder, mode 0600. Raises NoRoom, Unavailable."""
        path = registry.new_path(label, ".lock")
        try:
            return cls._open(path, os.O_CREAT | os.O_EXCL)
        except BaseException:
            registry.forget("path", path)
            raise

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Open an existing file: an open file description of our own."""
        return cls._open(path, 0)

    @classmethod
    def _open(cls, path: Path, flags: int) -> Self:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        except FileNotFoundError as err:
            raise IpclabError(f"lock file {path} does not exist", errno=err.errno, syscall="open") from err
        except OSError as err:
            raise from_os_error(err, f"lock file {path}", syscall="open") from err
        return cls(path, fd, created=bool(flags))

    def reopen(self) -> Self:
        """The same file opened once more: what a forked child needs to be somebody else than its parent."""
        return type(self).attach(self.path)

    def fileno(self) -> int:
        """The descriptor. IpclabError when closed."""
        if self._fd is None:
            raise IpclabError(f"lock file {self.path} is closed in this process")
        return self._fd

    def close(self) -> None:
        """Close this process's descriptor; what becomes of its locks is the mechanism's point."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def unlink(self) -> None:
        """Remove the file; twice is allowed."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        registry.forget("path", self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._creator_pid == os.getpid():
            self.unlink()
        self.close()

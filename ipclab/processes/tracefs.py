"""tracefs, where the kernel's own tracing is set up: a way in, and the instances in it.

An instance is a set of ring buffers with its own choice of events, a folder below `instances/`. Like a POSIX queue it
outlives who made it, so its name is given, journalled and cleaned up by `registry` (kind "trace-instance").
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ipclab import _core

MOUNTED = "/sys/kernel/tracing"
INSTANCES = "instances"


@contextlib.contextmanager
def root() -> Iterator[int]:
    """A descriptor of tracefs' root: as it is mounted, else of a mount that only we see. Raises OSError."""
    fd = _mounted()
    if fd is None:
        fd = _core.tracefs_open()
    try:
        yield fd
    finally:
        os.close(fd)


def exists(name: str) -> bool:
    """Whether there is an instance of this name; False too where this user may not look."""
    try:
        with root() as fd:
            os.stat(f"{INSTANCES}/{name}", dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def make(name: str) -> None:
    """Make an instance. Raises OSError."""
    with root() as fd:
        os.mkdir(f"{INSTANCES}/{name}", dir_fd=fd)


def remove(name: str) -> bool:
    """Remove an instance; False: it was gone already. Raises OSError EBUSY while somebody has a file of it open."""
    with root() as fd:
        try:
            os.rmdir(f"{INSTANCES}/{name}", dir_fd=fd)
        except FileNotFoundError:
            return False
    return True


def _mounted() -> int | None:
    try:
        fd = os.open(MOUNTED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.stat(INSTANCES, dir_fd=fd)
    except OSError:  # an empty folder: it is not mounted there
        os.close(fd)
        return None
    return fd

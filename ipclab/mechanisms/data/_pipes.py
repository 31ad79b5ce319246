"""What pipe, vmsplice, fifo and process-vm have in common: pipes for two sides, their size, and their limits here."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
from pathlib import Path
from typing import TYPE_CHECKING

from ipclab.errors import from_os_error
from ipclab.mechanisms.data._cloakroom import Cloakroom
from ipclab.records import Limit, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PROC_FS = Path("/proc/sys/fs")
_MOST_PIPE_BYTES = 1 << 31  # F_SETPIPE_SZ takes no more (EINVAL)


def sysctl(path: Path) -> int | None:
    """A number below /proc/sys; None where it cannot be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def fd_limit() -> Limit:
    """How many descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    value = None if soft == resource.RLIM_INFINITY else soft
    return Limit(name="descriptors per process", value=value, unit="descriptors", source="getrlimit(RLIMIT_NOFILE)")


def pipe_limits() -> tuple[Limit, ...]:
    """The limits of every pipe and FIFO, read now."""
    limits = [_default_capacity()]
    for name, file, unit in (
        ("largest capacity without CAP_SYS_RESOURCE", "pipe-max-size", "bytes"),
        ("pages in one user's pipes before new ones get two", "pipe-user-pages-soft", "pages (0: no limit)"),
        ("pages in one user's pipes at most", "pipe-user-pages-hard", "pages (0: no limit)"),
    ):
        limits.append(Limit(name=name, value=sysctl(_PROC_FS / file), unit=unit, source=str(_PROC_FS / file)))
    limits.append(Limit(name="largest atomic write", value=select.PIPE_BUF, unit="bytes", source="PIPE_BUF, pipe(7)"))
    limits.append(fd_limit())
    return tuple(limits)


def _default_capacity() -> Limit:
    name, source = "capacity of a new pipe", "fcntl(F_GETPIPE_SZ)"
    try:
        fds = os.pipe2(os.O_CLOEXEC)
    except OSError as err:
        return Limit(name=name, value=None, unit="bytes", source=f"{source}; no pipe: {err.strerror}")
    try:
        return Limit(name=name, value=fcntl.fcntl(fds[0], fcntl.F_GETPIPE_SZ), unit="bytes", source=source)
    finally:
        close_all(fds)


def probe_pipe() -> Probe:
    """Make a pipe and close it."""
    try:
        fds = os.pipe2(os.O_CLOEXEC)
    except OSError as err:
        return Probe(works=False, reason=f"pipe2: {err.strerror}", remedy="raise RLIMIT_NOFILE (ulimit -n)")
    close_all(fds)
    return Probe(works=True)


def close_all(fds: Sequence[int]) -> None:
    """Close every one of them."""
    for fd in fds:
        os.close(fd)


def resize(fd: int, wanted_bytes: int) -> int:
    """Set a pipe's capacity to at least `wanted_bytes`, or the most the kernel gives; returns what it is now.

    EPERM is over pipe-max-size, or the user is over pipe-user-pages-*; EBUSY is "more than that is in it": both leave
    the pipe as it is, after a try with the largest that needs no privilege.
    """
    for size in (wanted_bytes, sysctl(_PROC_FS / "pipe-max-size") or 0):
        if not 0 < size <= min(wanted_bytes, _MOST_PIPE_BYTES):
            continue
        try:
            return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except OSError as err:
            if err.errno not in (errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.EINVAL):
                raise
    return capacity(fd)


def capacity(fd: int) -> int:
    """Room of a pipe in bytes, as it is now."""
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def enlarge(fd: int, wanted_bytes: int) -> int:
    """As `resize`, but never makes a pipe smaller."""
    have = capacity(fd)
    return resize(fd, wanted_bytes) if wanted_bytes > have else have


def pipe_pairs(what: str, count: int = 1, size: Callable[[int], int] = capacity) -> tuple[Cloakroom, int]:
    """`count` pipes each way, put away until each side fetches its own: its reading ends, then its writing ends.

    `size` sizes one pipe and returns what it got; the smallest is returned. Raises NoRoom, leaving nothing open.
    """
    cloakroom = Cloakroom(what)
    mine: list[int] = []
    try:
        for _ in range(2 * count):
            mine += os.pipe2(os.O_CLOEXEC)
        given = min(size(fd) for fd in mine[1::2])
        reads, writes = mine[::2], mine[1::2]
        mine = reads[:count] + writes[count:]  # the first `count` pipes lead from a to b
        cloakroom.leave("a", reads[count:] + writes[:count])
        for_b, mine = mine, []
        cloakroom.leave("b", for_b)
    except BaseException as err:
        close_all(mine)
        cloakroom.close()
        if isinstance(err, OSError):
            raise from_os_error(err, what, syscall="pipe2", hint="raise RLIMIT_NOFILE (ulimit -n)") from err
        raise
    return cloakroom, given

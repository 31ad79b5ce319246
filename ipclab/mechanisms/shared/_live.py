"""Limits of shared memory and of what synchronises over it, read from this machine at this moment."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from ipclab.records import Limit

#: Where glibc keeps POSIX shared memory and named semaphores: always this folder, whatever is mounted there.
DEV_SHM = Path("/dev/shm")


def sysctl(path: str, name: str, unit: str, field: int = 0) -> Limit:
    """One number of a file below /proc/sys; `field` counts from 0 where the file has several."""
    try:
        value = int(Path("/proc/sys", path).read_text().split()[field])
    except (OSError, ValueError, IndexError) as err:
        return Limit(name=name, value=None, unit=unit, source=f"/proc/sys/{path}: {err}")
    return Limit(name=name, value=value, unit=unit, source=f"/proc/sys/{path}")


def rlimit(which: int, name: str, unit: str, source: str) -> Limit:
    """One soft resource limit of this process; None is no limit."""
    soft, _ = resource.getrlimit(which)
    value = None if soft == resource.RLIM_INFINITY else soft
    return Limit(name=name, value=value, unit=unit, source=f"getrlimit({source})")


def open_files() -> Limit:
    """How many descriptors this process may have."""
    return rlimit(resource.RLIMIT_NOFILE, "open descriptors", "descriptors", "RLIMIT_NOFILE")


def address_space() -> Limit:
    """How much this process may map; every mapping counts, touched or not."""
    return rlimit(resource.RLIMIT_AS, "address space", "bytes", "RLIMIT_AS")


def map_count() -> Limit:
    """How many mappings a process may have."""
    return sysctl("vm/max_map_count", "mappings of a process", "mappings")


def room_in(folder: Path, name: str) -> tuple[Limit, ...]:
    """Free and whole size of the file system a folder is on, as this user may use it."""
    source = f"statvfs({folder})"
    try:
        found = os.statvfs(folder)
    except OSError as err:
        return (Limit(name=f"{name}, free", value=None, unit="bytes", source=f"{source}: {err.strerror}"),)
    return (
        Limit(name=f"{name}, free", value=found.f_bavail * found.f_frsize, unit="bytes", source=source),
        Limit(name=f"{name}, size", value=found.f_blocks * found.f_frsize, unit="bytes", source=source),
    )


def free_memory() -> Limit:
    """What the kernel thinks it can give without swapping."""
    source = "/proc/meminfo, MemAvailable"
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return Limit(name="memory available", value=int(line.split()[1]) * 1024, unit="bytes", source=source)
    except (OSError, ValueError) as err:
        source = f"{source}: {err}"
    return Limit(name="memory available", value=None, unit="bytes", source=source)

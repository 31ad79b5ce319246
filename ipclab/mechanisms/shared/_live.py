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
    """How much memory can be had: of the machine, with its swap, or of the container's cgroup if that has less."""
    name, unit = "memory available", "bytes"
    try:
        found = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        value = sum(int(found[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError) as err:
        return Limit(name=name, value=None, unit=unit, source=f"/proc/meminfo: {err}")
    limit = Limit(name=name, value=value, unit=unit, source="/proc/meminfo, MemAvailable + SwapFree")
    for limit_file, usage_file in _CGROUP_MEMORY:
        room = _cgroup_room(limit_file, usage_file)
        if room is not None and room < value:
            value = room
            limit = Limit(name=name, value=room, unit=unit, source=f"{limit_file} - {usage_file}")
    return limit


#: What a container sees of its own limit, in cgroup v2 and v1: the most it may have, and what it has.
_CGROUP_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def _cgroup_room(limit_file: str, usage_file: str) -> int | None:
    try:
        return max(0, int(Path(limit_file).read_text()) - int(Path(usage_file).read_text()))
    except (OSError, ValueError):  # not there, or "max"
        return None

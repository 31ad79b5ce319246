"""What the control groups allow this process: CPU time and processes, under cgroup v1 and v2.

A limit may sit at any level between the root of the hierarchy and our own group, and the smallest one holds. So each
look-up starts at our group (/proc/self/cgroup), below where the hierarchy is mounted (/proc/self/mountinfo), and walks
up to the mount point. In a container our group's path is often one that exists only outside of it; then the walk starts
at the lowest level that does exist. cgroups(7), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Quota(NamedTuple):
    """A limit and the file it was read from; `value` None: there is no limit, `source` says where was looked."""

    value: float | None
    source: str


class Mount(NamedTuple):
    """One mounted hierarchy: which part of it (`root`) is seen at which path."""

    point: Path
    root: str
    controllers: frozenset[str]
    v2: bool


def cpu_quota(proc: Path = Path("/proc")) -> Quota:
    """How many CPUs' worth of time our group gets: 1.5 is 150 ms in each 100 ms."""
    return _smallest(_levels(proc, "cpu", "cpu.max", "cpu.cfs_quota_us"), _read_cpus, "cpu.max, cpu.cfs_quota_us")


def pids_max(proc: Path = Path("/proc")) -> Quota:
    """How many processes and threads our group may have."""
    return _smallest(_levels(proc, "pids", "pids.max", "pids.max"), _read_count, "pids.max")


def throttled_ns(proc: Path = Path("/proc")) -> int | None:
    """How long our group, and those above it, have been kept from running for having used up their quota; the sum.

    None: no level says so. It only grows; whoever wants to know about a stretch of time looks before and after.
    """
    found = [ns for path in _levels(proc, "cpu", "cpu.stat", "cpu.stat") if (ns := _read_throttled(path)) is not None]
    return sum(found) if found else None


def _read_throttled(path: Path) -> int | None:
    words = _words(path)
    values = dict(zip(words[::2], words[1::2], strict=False))
    if "throttled_usec" in values:  # v2
        return int(values["throttled_usec"]) * 1000
    return int(values["throttled_time"]) if "throttled_time" in values else None


def _smallest(files: Iterator[Path], read: Callable[[Path], float | None], looked_for: str) -> Quota:
    found = [Quota(value, str(path)) for path in files if (value := read(path)) is not None]
    return min(found, key=lambda quota: quota.value or 0.0, default=Quota(None, f"no limit in any {looked_for}"))


def _read_cpus(path: Path) -> float | None:
    words = _words(path)
    if path.name == "cpu.max":
        return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None
    period = _words(path.with_name("cpu.cfs_period_us"))
    return int(words[0]) / int(period[0]) if words and period and int(words[0]) > 0 else None


def _read_count(path: Path) -> float | None:
    words = _words(path)
    return float(words[0]) if words and words[0] != "max" else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _levels(proc: Path, controller: str, v2_file: str, v1_file: str) -> Iterator[Path]:
    """The limit's file at every level from our group up to the mount point, in each hierarchy with that controller."""
    groups = _groups(proc)
    for mount in _mounts(proc):
        if not mount.v2 and controller not in mount.controllers:
            continue
        path = groups.get("" if mount.v2 else controller)
        if path is None:
            continue
        below = path[len(mount.root) :] if mount.root != "/" and path.startswith(mount.root) else path
        if ".." in below.split("/"):
            below = ""  # our group is outside of what this cgroup namespace shows
        level = mount.point / below.strip("/")
        while True:
            yield level / (v2_file if mount.v2 else v1_file)
            if level == mount.point or level == level.parent:
                break
            level = level.parent


def _groups(proc: Path) -> dict[str, str]:
    """Controller -> our group's path; "" is the v2 hierarchy."""
    groups = {}
    for line in _lines(proc / "self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _mounts(proc: Path) -> Iterator[Mount]:
    for line in _lines(proc / "self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, (kind, *rest) = left.split(), right.split() or [""]
        if kind in ("cgroup", "cgroup2") and len(fields) >= 5 and rest:
            point = Path(_unescape(fields[4]))
            yield Mount(point, _unescape(fields[3]), frozenset(rest[-1].split(",")), kind == "cgroup2")


def _unescape(text: str) -> str:
    """mountinfo writes a space as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []

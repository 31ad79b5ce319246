"""Finding schedulers that run: through /proc/PID/fd, where their memfd is, in the caller, the template and every M.

A memfd has no name that others could open: whoever may look into a process's /proc/PID/fd (the same uid, or root) may
map the segment, read-only. Which process is asked about does not matter: all of one scheduler's have the same inode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from ipclab import _core
from ipclab.errors import IpclabError, Unavailable, UsageError, from_os_error
from ipclab.gmp.state import GS_MOST, observed
from ipclab.records.gmp import RunningScheduler, SchedSnapshot

#: The beginning of struct segment_header: magic, version, kind.
_HEADER = struct.Struct("<QII")
_MAGIC = 0x0000424C4C435049
_KIND_GMP = 3
_LINK = "/memfd:ipclab (deleted)"
_WAY_OUT = {errno.ENOMEM: "raise RLIMIT_AS (ulimit -v): a look takes twice the segment's address space, some GB"}


def snapshot(pid: int | None = None, most: int = GS_MOST) -> SchedSnapshot:
    """Of the scheduler that process `pid` belongs to; None: the only one of this user that runs.

    Raises IpclabError when there is none, or it is not of this build; Unavailable for another user's; UsageError when
    there are several.
    """
    pid = _only_one() if pid is None else pid
    with contextlib.closing(attach(pid)) as sched:
        try:
            return observed(sched, most)
        except OSError as err:
            hint = _WAY_OUT.get(err.errno or 0)
            raise from_os_error(err, f"cannot copy the scheduler's segment of process {pid}", hint=hint) from err


def attach(pid: int) -> _core.Sched:
    """A look at the scheduler of process `pid`. Raises as `snapshot`."""
    fd = _open_segment(pid)
    try:
        return _core.Sched.attach(fd)
    except OSError as err:
        if err.errno in _WAY_OUT:
            way_out = _WAY_OUT[err.errno]
            raise from_os_error(err, f"cannot map the scheduler's segment of process {pid}", hint=way_out) from err
        what = {
            errno.EPROTO: "was made by another version of ipclab",
            errno.ENODATA: "is shorter than it says it is",
            errno.EBADMSG: "is none",
        }.get(err.errno or 0, err.strerror)
        hint = "look at it with the ipclab that runs it" if err.errno == errno.EPROTO else None
        raise IpclabError(
            f"the scheduler's segment of process {pid} {what}", errno=err.errno, syscall="gmp_attach", hint=hint
        ) from err
    finally:
        os.close(fd)


def running() -> list[RunningScheduler]:
    """Every scheduler that runs in a process of this user, by its caller's pid."""
    found: dict[tuple[int, int], RunningScheduler] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, IpclabError):  # it has ended, or is none of our business
            if folder.stat().st_uid != os.geteuid():
                continue
            for link in _links(int(folder.name)):
                info = link.stat()
                if (info.st_dev, info.st_ino) not in found and _kind(link) == _KIND_GMP:
                    found[info.st_dev, info.st_ino] = _described(int(folder.name))
    return sorted(found.values(), key=lambda one: one.caller_pid)


def _only_one() -> int:
    found = [one for one in running() if not one.ended]
    if not found:
        raise IpclabError("no scheduler of this user runs", hint="`ipclab gmp sim mixed` runs one; or name a PID")
    if len(found) > 1:
        names = ", ".join(f"{one.caller_pid} ({one.command})" for one in found)
        raise UsageError(f"{len(found)} schedulers run: {names}", hint="name a PID")
    return found[0].caller_pid


def _described(pid: int) -> RunningScheduler:
    with contextlib.closing(attach(pid)) as sched:
        fields = sched.sched_fields()
    caller = fields["callerpid"]
    command = Path(f"/proc/{caller}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return RunningScheduler(
        caller_pid=caller,
        template_pid=fields["templatepid"],
        command=command[:80],
        ended=bool(fields["fatal"] or fields["exiting"]),
    )


def _links(pid: int) -> Iterator[Path]:
    """Descriptors of the process that may be a segment."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(link.readlink()) == _LINK:
                yield link


def _kind(link: Path) -> int:
    with open(link, "rb") as file:
        data = file.read(_HEADER.size)
    if len(data) < _HEADER.size:
        return 0
    magic, _version, kind = _HEADER.unpack(data)
    return int(kind) if magic == _MAGIC else 0


def _open_segment(pid: int) -> int:
    try:
        for link in _links(pid):
            if _kind(link) == _KIND_GMP:
                return os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as err:
        raise Unavailable(
            f"process {pid} is another user's", errno=err.errno, syscall="openat", hint="be that user, or root"
        ) from err
    except (FileNotFoundError, ProcessLookupError) as err:
        raise IpclabError(f"there is no process {pid}", hint="it may have ended") from err
    except OSError as err:
        raise from_os_error(err, f"cannot look into process {pid}") from err
    raise IpclabError(
        f"process {pid} has no scheduler", hint="name a scheduler's caller, its template or one of its Ms"
    )

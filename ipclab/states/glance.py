"""`states.read(pid)`: one process at one moment, and why something of it cannot be read."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import cast

from ipclab.errors import NoRoom
from ipclab.processes import procfs
from ipclab.records import Glance, StateName

#: Reading needs the right that proc(5) calls PTRACE_MODE_READ or PTRACE_MODE_ATTACH.
FOREIGN = "another user's process: needs CAP_SYS_PTRACE"
NO_RIGHT = "ptrace(2) forbids it (it has capabilities that we lack, or Yama wants an ancestor): needs CAP_SYS_PTRACE"
NOT_BUILT = "this kernel does not have the file"
#: Of the flags in /proc/PID/stat.
PF_KTHREAD = 0x00200000
HIDDEN = "the kernel does not tell: no right to trace it"


def read(pid: int) -> Glance:
    """One process at this moment: its state, what it waits for, its counters. A few reads of /proc; never blocks.

    State X, and nothing else, when there is no such process. What may not be read is None, and `unreadable` says why.
    Raises NoRoom when this process has no descriptor left to look with.
    """
    at_ns = time.monotonic_ns()
    fields = procfs.stat(pid)
    if fields is None:
        return Glance(pid=pid, name="", state="X", at_ns=at_ns)
    unreadable: dict[str, str] = {}
    state = cast(StateName, "X" if fields[0] == "x" else fields[0])
    run_ns, wait_ns = _schedstat(pid)
    status = procfs.status(pid)
    wchan = _wchan(pid, unreadable)
    # A kernel thread is in no system call; its file says 0, which is read(2).
    syscall = None if int(fields[6]) & PF_KTHREAD else _syscall(pid, unreadable)
    if state in "SD" and wchan is None and "syscall" in unreadable:
        unreadable["wchan"] = HIDDEN if unreadable["syscall"] == NOT_BUILT else unreadable["syscall"]
    return Glance(
        pid=pid,
        name=status.get("Name", ""),
        state=state,
        at_ns=at_ns,
        ppid=int(fields[1]),
        start_ticks=int(fields[19]),
        threads=int(fields[17]),
        cpu=int(fields[36]),
        wchan=wchan if state in "SDTtIP" else None,
        syscall=syscall if state in "SDTtIP" else None,
        run_ns=run_ns,
        wait_ns=wait_ns,
        voluntary_switches=_number(status, "voluntary_ctxt_switches"),
        involuntary_switches=_number(status, "nonvoluntary_ctxt_switches"),
        unreadable=unreadable,
    )


def why_refused(number: int) -> str:
    """What an errno from /proc/PID/wchan or syscall means, as a reason."""
    if number == errno.EACCES:
        return FOREIGN
    if number == errno.EPERM:
        return NO_RIGHT
    return NOT_BUILT if number == errno.ENOENT else os.strerror(number)


def _schedstat(pid: int) -> tuple[int | None, int | None]:
    try:
        run, wait, _slices = Path(f"/proc/{pid}/schedstat").read_text("ascii").split()
    except (OSError, ValueError):
        return None, None
    return int(run), int(wait)


def _number(status: dict[str, str], key: str) -> int | None:
    return int(status[key]) if key in status else None


def _wchan(pid: int, unreadable: dict[str, str]) -> str | None:
    return procfs.wchan(pid) if _readable(pid, "wchan", unreadable) else None


def _syscall(pid: int, unreadable: dict[str, str]) -> str | None:
    return procfs.syscall(pid) if _readable(pid, "syscall", unreadable) else None


def _readable(pid: int, name: str, unreadable: dict[str, str]) -> bool:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            file.read()
    except ProcessLookupError:
        return False  # it is just dying
    except OSError as err:
        if err.errno in (errno.EMFILE, errno.ENFILE):
            raise NoRoom("no room to look into /proc", hint="see ulimit -n", errno=err.errno, syscall="openat") from err
        if err.errno != errno.ENOENT or Path(f"/proc/{pid}").exists():
            unreadable[name] = why_refused(err.errno or 0)
        return False
    return True

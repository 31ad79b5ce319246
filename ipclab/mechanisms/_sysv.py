"""What the three System V mechanisms share: the extra package they need, and whether there is room for one more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipclab.errors import Unavailable
from ipclab.records import Probe

#: A key of ours that the registry never gives: its objects are numbered from 1 up.
_NOBODYS_KEY = 0x1B_FF_FF_FE
_LIMITS = Path("/proc/sys/kernel")
_TABLES = Path("/proc/sysvipc")


def load(what: str) -> Any:
    """The package sysv_ipc. Raises Unavailable where it is not installed; `what` says what needs it."""
    try:
        import sysv_ipc
    except ImportError as err:
        raise Unavailable(f"{what} need the package sysv_ipc", hint="pip install 'ipclab[sysv]'") from err
    return sysv_ipc


def probe(what: str, table: str, most: int | None, ask: Callable[[Any, int], object]) -> Probe:
    """Whether a process may have one more of these objects.

    `ask` opens the one of a key that nobody has: ENOENT is the answer of a kernel that has SysV IPC. `table` is the
    file below /proc/sysvipc that lists what there is, `most` how many of them the kernel allows.
    """
    try:
        sysv_ipc = load(what)
    except Unavailable as err:
        return Probe(works=False, reason=err.message, remedy=err.hint or "")
    try:
        ask(sysv_ipc, _NOBODYS_KEY)
    except (sysv_ipc.ExistentialError, sysv_ipc.PermissionsError):
        pass
    except (sysv_ipc.Error, OSError, ValueError) as err:
        return Probe(works=False, reason=f"{what}: {err}", remedy="a kernel built with CONFIG_SYSVIPC")
    have = in_use(table)
    if most is not None and have is not None and have >= most:
        remedy = "`ipclab clean`, ipcrm(1), or a higher limit: see `ipcs -l`"
        return Probe(works=False, reason=f"all {most} {what} of this machine are in use", remedy=remedy)
    return Probe(works=True)


def in_use(table: str) -> int | None:
    """How many objects this IPC namespace has now; None where /proc does not tell."""
    try:
        return len((_TABLES / table).read_text().splitlines()) - 1  # the first line is the heading
    except OSError:
        return None


def most(name: str, field: int = 0) -> int | None:
    """A limit below /proc/sys/kernel; `field` counts from 0 where the file has several. None: it cannot be read."""
    try:
        return int((_LIMITS / name).read_text().split()[field])
    except (OSError, ValueError, IndexError):
        return None

"""What flows upward: frozen records with their units in the field names.

Instruments return them, views draw them, `--json` prints them. They hold no live object: no fd, no process handle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Family = Literal["data transfer", "shared memory", "signals", "synchronisation"]
Lifetime = Literal["process", "kernel", "file system"]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Whether something works here, for this user, now."""

    works: bool
    #: Why not, or in what way reduced; empty when all is well.
    reason: str = ""
    #: How to get it; empty when nothing is to be done.
    remedy: str = ""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as read from this machine at this moment."""

    name: str
    #: None: no limit, or it could not be read (then `source` says why).
    value: int | None
    unit: str
    #: Where it was read: a /proc path, a getrlimit name, a system call.
    source: str


class Mechanism(msgspec.Struct, frozen=True, kw_only=True):
    """One IPC mechanism: a row of `ipclab list`."""

    name: str
    family: Family
    #: One line: what it is.
    summary: str
    #: How long the kernel object lives when nobody removes it.
    lifetime: Lifetime
    #: The header, call or module under which Go's standard library offers it; empty where it does not.
    go: str = ""
    #: Whether it carries messages with their boundaries kept. None: it carries no data.
    boundaries: bool | None = None
    #: Whether the kernel object itself goes both ways. None: it carries no data.
    duplex: bool | None = None
    #: Manual pages, "pipe(7)" first.
    man_pages: tuple[str, ...] = ()


class MechanismStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A mechanism with what this machine says of it."""

    mechanism: Mechanism
    probe: Probe
    limits: tuple[Limit, ...] = ()
    #: The page to learn from (the module's docstring); empty unless it was asked for.
    page: str = ""


class MechanismList(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="mechanisms"):
    """What `ipclab list` found."""

    mechanisms: tuple[MechanismStatus, ...]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How one process of ours ended."""

    role: str
    pid: int
    #: None when a signal ended it.
    exit_code: int | None
    #: None when it exited by itself.
    signal: int | None
    #: Who wanted the end: "self", "asked" (orderly stop), "killed" (after the grace time), "deadline".
    cause: Literal["self", "asked", "killed", "deadline"]
    duration_ns: int
    #: Bytes of output beyond the cap that were dropped.
    output_dropped_bytes: int = 0


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A named kernel object (or a file of the runtime folder) whose owner is dead."""

    #: "posix-shm", "posix-sem", "posix-mq", "sysv-shm", "sysv-sem", "sysv-mq", "path"; or "journal": what its owner has
    #: left cannot be judged from here, and `error` says why.
    kind: str
    #: The object's name; of a SysV object the key in hexadecimal; of a path the path.
    name: str
    #: The process that created it, dead by now.
    owner_pid: int
    #: Why it could not be removed; empty when it was, or when that was not tried.
    error: str = ""


class CleanReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="clean"):
    """What `ipclab clean` removed, or would remove."""

    dry_run: bool
    leftovers: tuple[Leftover, ...]


Standing = Literal["runs", "reduced", "not here"]
DemoFamily = Literal["processes", "data transfer", "shared memory", "signals", "synchronisation", "comparison"]


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """One demo, as its file describes itself."""

    name: str
    #: One sentence: what it shows.
    summary: str
    family: DemoFamily
    #: Mechanisms without which it cannot run.
    needs: tuple[str, ...]
    #: Mechanisms without which it shows less.
    better_with: tuple[str, ...]
    path: str


class DemoStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A demo with what this machine says of it."""

    demo: Demo
    standing: Standing
    #: Why it is reduced or not here; empty when it runs.
    reason: str = ""
    #: How to get it; empty when nothing is to be done.
    remedy: str = ""


class DemoList(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="demos"):
    """What `ipclab demo --list` found."""

    demos: tuple[DemoStatus, ...]


class DemoRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one demo, as `ipclab demo` saw it from outside."""

    name: str
    #: "not here": it said so itself (exit code 77); "deadline": it was killed for taking too long.
    status: Literal["passed", "failed", "not here", "deadline"]
    #: The last line it printed.
    verdict: str
    duration_ns: int
    #: None when a signal ended it.
    exit_code: int | None
    #: None when it exited by itself.
    signal: int | None
    #: Processes that outlived the demo and were ended; not 0 is a fault of the demo, unless it was killed.
    orphans: int = 0
    #: Named objects that were left and are now removed; not empty is a fault of the demo, unless it was killed.
    leftovers: tuple[Leftover, ...] = ()


class DemoReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="demo-runs"):
    """What one `ipclab demo` ran, in order."""

    runs: tuple[DemoRun, ...]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing about this machine, this user or this installation."""

    group: Literal["machine", "processors", "memory and queues", "privileges", "python"]
    name: str
    #: None: it could not be read (then `note` says why) or there is none.
    value: bool | int | float | str | None
    #: Of a number: "bytes", "CPUs", ...; else empty.
    unit: str = ""
    #: Where it was read.
    source: str = ""
    #: What follows from it, in a few words.
    note: str = ""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One Python package that ipclab uses."""

    name: str
    #: None: not installed.
    version: str | None
    #: The extra of ipclab that brings it; empty when every installation needs it.
    extra: str = ""
    #: The command that installs it; empty when it is there.
    remedy: str = ""


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One of ipclab's instruments, and how much of it there is here."""

    name: str
    standing: Standing
    #: How many of its parts work, and of how many.
    working: int
    total: int
    reason: str = ""


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="doctor"):
    """What `ipclab doctor` found."""

    version: str
    facts: tuple[Fact, ...]
    limits: tuple[Limit, ...]
    packages: tuple[Package, ...]
    runtime_dir: str
    #: Of dead owners, still there: `ipclab clean` removes them.
    leftovers: tuple[Leftover, ...]
    instruments: tuple[Instrument, ...]
    mechanisms: tuple[MechanismStatus, ...]
    demos: tuple[DemoStatus, ...]

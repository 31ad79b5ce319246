"""Demos, and how one run of one went."""

from __future__ import annotations

from typing import Literal

import msgspec

from ipclab.records.processes import Leftover
from ipclab.records.standing import Standing
from ipclab.records.states import Recording

DemoFamily = Literal[
    "processes", "data transfer", "shared memory", "signals", "synchronisation", "scheduler", "comparison"
]


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """One demo, as its file describes itself."""

    name: str
    #: One sentence: what it shows.
    summary: str
    family: DemoFamily
    #: Mechanisms without which it cannot run.
    needs: tuple[str, ...]
    #: Mechanisms, or programs of others, without which it shows less.
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
    #: What states its processes were in, with --states.
    recording: Recording | None = None


class DemoReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="demo-runs"):
    """What one `ipclab demo` ran, in order."""

    runs: tuple[DemoRun, ...]

"""This machine, this user, this installation: what `ipclab doctor` reports."""

from __future__ import annotations

from typing import Literal

import msgspec

from ipclab.records.demos import DemoStatus
from ipclab.records.mechanisms import Limit, MechanismStatus
from ipclab.records.processes import Leftover
from ipclab.records.standing import Standing
from ipclab.records.states import SourceStatus


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
    #: The sources of the states tracker, best first.
    sources: tuple[SourceStatus, ...] = ()
    mechanisms: tuple[MechanismStatus, ...]
    demos: tuple[DemoStatus, ...]

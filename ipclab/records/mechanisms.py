"""Mechanisms, and what this machine says of them."""

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

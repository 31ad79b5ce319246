"""How processes of ours ended, and what dead ones left."""

from __future__ import annotations

from typing import Literal

import msgspec


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

"""What the bench's database tells of the runs in it."""

from __future__ import annotations

import msgspec

from ipclab.records.bench import Row


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """One stored run: a line of `ipclab bench history`."""

    run_id: str
    #: UTC, ISO 8601.
    started_at: str
    #: ipclab's, when it measured.
    version: str
    command: str
    kernel: str
    cpu_model: str
    mechanisms: tuple[str, ...]
    rows: int
    samples_kept: int
    samples_dropped: int
    #: Of the rows.
    unstable: int
    failed: int
    interrupted: bool


class CoursePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What one run measured of a mechanism in one case."""

    run_id: str
    started_at: str
    #: Whether kernel, CPU or version of ipclab are others than in the run before it in the course.
    surroundings_changed: bool
    row: Row
    #: Median rate over that of the case's first run; None: one of them has no figure.
    change: float | None


class History(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="bench-history"):
    """What `ipclab bench history` found."""

    database: str
    #: Oldest first.
    runs: tuple[StoredRun, ...]
    #: Whose course was asked for; empty: nobody's.
    mechanism: str = ""
    #: Of one case in one cluster one after the other, oldest first.
    course: tuple[CoursePoint, ...] = ()

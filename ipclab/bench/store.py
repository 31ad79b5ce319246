"""The runs of this user, kept: one SQLite database, by default in the user's data folder.

    runs   run_id, started_at, summary (a `StoredRun`: what a list shows), record (the whole `Run` as JSON: the truth)
    rows   one line per row of a run's table, found by mechanism (a copy, so that a course over time reads few bytes)

Several writers. A run is added in one transaction that takes the write lock at its start (BEGIN IMMEDIATE) and is
waited for; readers are not held up, since the journal is a write-ahead log (WAL). That log is shared memory between the
processes, so where the database lies on a file system that other machines share too, the older rollback journal is
used (https://www.sqlite.org/wal.html: "WAL does not work over a network filesystem").

Reading never writes: a database that may only be read, and one of an older version in a folder that is not ours, can be
read all the same (the latter is brought up to date in memory). Writing brings an older one up to date where it lies.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from ipclab.bench import database, schema
from ipclab.errors import IpclabError, UsageError
from ipclab.records import Row, Run, StoredRun

#: How long to wait for other writers. Chosen: adding the largest run takes a hundredth of it.
PATIENCE_S = 10.0

_Record = TypeVar("_Record")


class Store:
    """An open database of runs; a context manager. `Store.to_read` and `Store.to_write` open one.

    Every method may wait `patience_s` for other processes and raises IpclabError naming the file. Belongs to the
    process and thread that opened it: do not use it after a fork.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def to_write(cls, path: Path | None = None, *, patience_s: float = PATIENCE_S) -> Self:
        """Open the database to add runs, and make it (and the default folder, mode 0700) when it is not there."""
        place = path or database.default_path()
        with database.telling(place, "write"):
            database.make(place, folder_too=path is None)
            connection = database.open_to_write(place, patience_s)
            try:
                _bring_up_to_date(connection, place)
            except BaseException:
                connection.close()
                raise
        return cls(place, connection)

    @classmethod
    def to_read(cls, path: Path | None = None, *, patience_s: float = PATIENCE_S) -> Self:
        """Open the database to look at runs; the default one that is not there yet is as good as an empty one."""
        place = path or database.default_path()
        with database.telling(place, "read"):
            if path is None and not place.exists():
                return cls(place, _in_memory(None, place))
            place.stat()
            connection = database.open_to_read(place, patience_s)
            try:
                if database.version_of(connection, place) == database.DATABASE_VERSION:
                    return cls(place, connection)
                copy = _in_memory(connection, place)
            except BaseException:
                connection.close()
                raise
            connection.close()
            return cls(place, copy)

    def add(self, run: Run) -> None:
        """Store a run; it is on the disk when this returns. A run is stored once: a second time is an IpclabError."""
        with database.telling(self.path, "write"), database.transaction(self._connection):
            try:
                _insert(self._connection, run)
            except sqlite3.IntegrityError as err:
                raise IpclabError(f"run {run.run_id} is in {self.path} already") from err

    def find(self, beginning: str) -> Run:
        """The one run whose id begins so. Raises UsageError when there is none, or more than one."""
        with database.telling(self.path, "read"):
            found = self._connection.execute(
                "SELECT run_id, record FROM runs WHERE substr(run_id, 1, ?) = ? ORDER BY run_id <> ?, run_id LIMIT 6",
                (len(beginning), beginning, beginning),
            ).fetchall()
        if not beginning or not found:
            hint = "give a record file, or a run that `ipclab bench history` lists"
            raise UsageError(f"no run in {self.path} begins with {beginning!r}", hint=hint)
        if len(found) > 1 and found[0][0] != beginning:
            names = ", ".join(run_id for run_id, _record in found[:5]) + (", ..." if len(found) > 5 else "")
            raise UsageError(f"{beginning!r} is the beginning of several runs: {names}", hint="give more of it")
        run_id, record = found[0]
        return schema.decode(record, f"run {run_id} in {self.path}")

    def runs(self) -> tuple[StoredRun, ...]:
        """All runs, oldest first. One whose record could not be understood when it was taken over is left out."""
        with database.telling(self.path, "read"):
            found = self._connection.execute(
                "SELECT run_id, summary FROM runs WHERE summary NOTNULL ORDER BY started_at, run_id"
            ).fetchall()
        return tuple(self._decode(summary, run_id, StoredRun) for run_id, summary in found)

    def rows(self, mechanism: str) -> tuple[tuple[str, Row], ...]:
        """Every row of a mechanism in all runs, with the run's id, oldest run first."""
        with database.telling(self.path, "read"):
            found = self._connection.execute(
                "SELECT run_id, row FROM rows JOIN runs USING (run_id) WHERE mechanism = ? "
                "ORDER BY started_at, run_id, position",
                (mechanism,),
            ).fetchall()
        return tuple((run_id, self._decode(row, run_id, Row)) for run_id, row in found)

    def mechanisms(self) -> tuple[str, ...]:
        """Names of everything that was ever measured, in order of the alphabet."""
        with database.telling(self.path, "read"):
            found = self._connection.execute("SELECT DISTINCT mechanism FROM rows ORDER BY mechanism").fetchall()
        return tuple(name for (name,) in found)

    def close(self) -> None:
        """Give the database back. Closing twice is allowed."""
        self._connection.close()

    def _decode(self, data: bytes, run_id: str, kind: type[_Record]) -> _Record:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as err:
            raise IpclabError(f"run {run_id} in {self.path} cannot be listed: {err}") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def summary_of(run: Run) -> StoredRun:
    """What a list of runs shows of one."""
    kept = sum(sample.kept for sample in run.samples)
    return StoredRun(
        run_id=run.run_id,
        started_at=run.started_at,
        version=run.version,
        command=run.command,
        kernel=run.environment.kernel,
        cpu_model=run.environment.cpu_model,
        mechanisms=tuple(dict.fromkeys(case.mechanism for case in run.cases)),
        rows=len(run.rows),
        samples_kept=kept,
        samples_dropped=len(run.samples) - kept,
        unstable=sum(not row.stable for row in run.rows),
        failed=sum(bool(row.failure) for row in run.rows),
        interrupted=run.interrupted,
    )


def _insert(connection: sqlite3.Connection, run: Run) -> None:
    encode = msgspec.json.encode
    connection.execute(
        "INSERT INTO runs (run_id, started_at, summary, record) VALUES (?, ?, ?, ?)",
        (run.run_id, run.started_at, encode(summary_of(run)), schema.encode(run)),
    )
    connection.executemany(
        "INSERT INTO rows (run_id, position, mechanism, row) VALUES (?, ?, ?, ?)",
        [(run.run_id, position, row.case.mechanism, encode(row)) for position, row in enumerate(run.rows)],
    )


# --- versions of the database ----------------------------------------------------------------------------------------


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or make today's of older ones; nothing when they are today's. Two at a time do no harm."""
    if database.version_of(connection, path) == database.DATABASE_VERSION:
        return
    with database.transaction(connection):
        version = database.version_of(connection, path)  # again, now that nobody else can change it
        if version is None:
            for table in database.TABLES:
                connection.execute(table)
        elif version == 0:
            _from_0(connection, path)
        database.stamp(connection)


def _from_0(connection: sqlite3.Connection, path: Path) -> None:
    """Version 0 (drafts, before the first release) had one table: runs (run_id, record)."""
    old = connection.execute("SELECT run_id, record FROM runs").fetchall()
    connection.execute("DROP TABLE runs")
    for table in database.TABLES:
        connection.execute(table)
    for run_id, record in old:
        try:
            _insert(connection, schema.decode(record, f"run {run_id} in {path}"))
        except IpclabError:
            # Kept as it is: one record that nobody understands must not take the others away. `find` says what it is.
            connection.execute("INSERT INTO runs (run_id, started_at, record) VALUES (?, '', ?)", (run_id, record))


def _in_memory(original: sqlite3.Connection | None, path: Path) -> sqlite3.Connection:
    """A copy that is brought up to date and lost afterwards."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        if original is not None:
            original.backup(copy)
        _bring_up_to_date(copy, path)
    except BaseException:
        copy.close()
        raise
    return copy


def load(name: str, database_path: Path | None = None) -> Run:
    """The run that `name` means: a record file, or the beginning of the id of a stored run."""
    path = Path(name)
    if path.exists() or "/" in name or path.suffix == ".json":
        return schema.read(path)
    with closing(Store.to_read(database_path)) as store:
        return store.find(name)

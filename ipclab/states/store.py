"""A recording in an SQLite file: where intervals go that memory has no room for, and the export `sqlite` as it stands.

    spans      one row per interval in the order of their start, numbers only (48 bytes become about as many)
    intervals  a view of it with names instead of numbers: what to ask with SQL
    threads    one row per thread that was followed
    meta       head: the `Recording` as JSON, written when the recording ends; without it the file is one of a tracker
               that was killed, and what it had written until then can be read all the same

A table `WITHOUT ROWID` whose key is (start, thread): intervals come in the order of their end, their starts almost
sorted, so that a new row nearly always goes into the page written last, and reading in order needs no sort and no
index of its own.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ipclab.errors import IpclabError, NoRoom, Unavailable
from ipclab.processes import procfs
from ipclab.records import Completeness, Interval, Recording
from ipclab.states.spans import SOURCES, Span, interval_of, unpack

#: "ipst": written into the file, so that it is known for what it is.
APPLICATION_ID = 0x69707374
VERSION = 1
#: How many rows one read holds the connection for.
_PAGE_ROWS = 4096

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE wchans (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE syscalls (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE threads (pid INTEGER, tid INTEGER, name TEXT, ppid INTEGER, start_ticks INTEGER, first_ns INTEGER,
    last_ns INTEGER, gone INTEGER, exit_code INTEGER, signal INTEGER, switches_seen INTEGER, switches_counted INTEGER,
    uncovered_ns INTEGER);
CREATE TABLE spans (start_ns INTEGER, tid INTEGER, end_ns INTEGER, slack_ns INTEGER, pid INTEGER, cpu INTEGER,
    syscall INTEGER, wchan INTEGER, state TEXT, on_cpu INTEGER, source INTEGER, flags INTEGER,
    PRIMARY KEY (start_ns, tid)) WITHOUT ROWID;
CREATE VIEW intervals AS SELECT pid, tid, state, CASE on_cpu WHEN -1 THEN NULL ELSE on_cpu END AS on_cpu, start_ns,
    end_ns, end_ns - start_ns AS duration_ns, slack_ns AS start_slack_ns, sources.name AS source, wchans.name AS wchan,
    syscalls.name AS syscall, CASE cpu WHEN -1 THEN NULL ELSE cpu END AS cpu, flags & 1 AS assumed FROM spans
    LEFT JOIN sources ON sources.id = source LEFT JOIN wchans ON wchans.id = spans.wchan
    LEFT JOIN syscalls ON syscalls.id = spans.syscall;
"""
_INSERT = "INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SELECT = (
    "SELECT start_ns, end_ns, slack_ns, pid, tid, cpu, syscall, wchan, state, on_cpu, source, flags FROM spans "
    "WHERE (start_ns, tid) > (?, ?) AND end_ns > ? ORDER BY start_ns, tid LIMIT ?"
)


class Store:
    """An open recording file, or (`path` None) a temporary one that nobody else can see and that goes with us.

    May be used by several threads; one at a time is inside. Memory: SQLite's page cache, 2 MB.
    """

    def __init__(self, path: Path | None) -> None:
        """Make the file. Raises IpclabError when it exists and is not empty, or cannot be made."""
        self.path = path
        self._lock = threading.Lock()
        self._syscalls: set[int] = set()
        self._names_stored = 0
        if path is not None and path.exists() and path.stat().st_size:
            raise IpclabError(f"{path} exists already", hint="name a new file: a recording is not added to another")
        try:
            # "": a temporary file that SQLite has unlinked as soon as it is open (https://www.sqlite.org/inmemorydb.html).
            self._db = sqlite3.connect("" if path is None else path, isolation_level=None, check_same_thread=False)
            # One writer, and what counts after a crash is what was written: no sync per transaction.
            self._db.execute("PRAGMA journal_mode = MEMORY").fetchone()
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.executescript(f"BEGIN; {_TABLES} COMMIT;")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.executemany("INSERT INTO sources VALUES (?, ?)", enumerate(SOURCES))
        except sqlite3.Error as err:
            raise _told(err, path, "write") from err

    def append(self, data: bytes) -> int:
        """Add a chunk of spans as the core gives them; how many. Raises NoRoom when the disk is full."""
        rows = [
            (s.start_ns, s.tid, s.end_ns, s.slack_ns, s.pid, s.cpu, s.syscall, s.wchan, s.state.decode(), s.on_cpu,
             s.source, s.flags)
            for s in unpack(data)
        ]  # fmt: skip
        self._syscalls.update({row[6] for row in rows})
        self._write(lambda db: db.executemany(_INSERT, rows))
        return len(rows)

    def finish(self, head: Recording, names: Sequence[str]) -> None:
        """Write the head, the threads and the names: the file is whole."""
        threads = [
            (t.pid, t.tid, t.name, t.ppid, t.start_ticks, t.first_ns, t.last_ns, t.gone, t.exit_code, t.signal,
             t.switches_seen, t.switches_counted, t.uncovered_ns)
            for t in head.threads
        ]  # fmt: skip

        def write(db: sqlite3.Connection) -> None:
            self._write_names(db, names)
            db.execute("DELETE FROM threads")
            db.executemany(f"INSERT INTO threads VALUES ({', '.join('?' * 13)})", threads)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('head', ?)", (msgspec.json.encode(head).decode(),))

        self._write(write)

    def note_names(self, names: Sequence[str]) -> None:
        """Write the names known by now, so that a file whose tracker is killed can be read."""
        if len(names) > self._names_stored:
            self._write(lambda db: self._write_names(db, names))

    def intervals(self, names: Sequence[str], since_ns: int = 0) -> Iterator[Interval]:
        """All that were appended and end after `since_ns`, by their start."""
        at = (-1, -1)
        while True:
            with self._lock:
                page = self._db.execute(_SELECT, (*at, since_ns, _PAGE_ROWS)).fetchall()
            yield from (_interval(row, names) for row in page)
            if len(page) < _PAGE_ROWS:
                return
            at = (page[-1][0], page[-1][4])

    def close(self) -> None:
        """Close the file; a temporary one is gone then."""
        with self._lock:
            self._db.close()

    def _write_names(self, db: sqlite3.Connection, names: Sequence[str]) -> None:
        db.executemany("INSERT OR REPLACE INTO wchans VALUES (?, ?)", enumerate(names, start=1))
        calls = [(number, procfs.syscall_name(number)) for number in self._syscalls if number >= 0]
        db.executemany("INSERT OR REPLACE INTO syscalls VALUES (?, ?)", calls)
        self._names_stored = len(names)

    def _write(self, work: object) -> None:
        assert callable(work)
        with self._lock:
            try:
                self._db.execute("BEGIN")
                work(self._db)
                self._db.execute("COMMIT")
            except sqlite3.Error as err:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise _told(err, self.path, "write") from err


def open_recording(path: Path) -> tuple[Recording, Iterator[Interval]]:
    """The head of a recording file and its intervals, by their start, read from the file as they are asked for.

    The file of a tracker that was killed has no head: it gets one that says so. Raises IpclabError when there is no
    such file or it is not one of ours.
    """
    if not path.exists():
        raise Unavailable(f"there is no file {path}")
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    try:
        _check_ours(db, path)
        names = [name for (name,) in db.execute("SELECT name FROM wchans ORDER BY id")]
        found = db.execute("SELECT value FROM meta WHERE key = 'head'").fetchone()
        head = msgspec.json.decode(found[0], type=Recording) if found else _headless(db)
    except BaseException as err:
        db.close()
        if isinstance(err, sqlite3.Error):
            raise _told(err, path, "read") from err
        raise
    return head, _rows(db, names)


def _check_ours(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise IpclabError(f"{path} is no recording of ipclab states")
    if version > VERSION:
        raise IpclabError(f"{path} is from a newer ipclab", hint="upgrade ipclab")


def _rows(db: sqlite3.Connection, names: Sequence[str]) -> Iterator[Interval]:
    try:
        for row in db.execute(_SELECT, (-1, -1, -1, -1)):
            yield _interval(row, names)
    finally:
        db.close()


def _interval(row: tuple[int, ...], names: Sequence[str]) -> Interval:
    *begin, state, on_cpu, source, flags = row
    return interval_of(Span._make((*begin, str(state).encode(), on_cpu, source, flags)), names)


def _headless(db: sqlite3.Connection) -> Recording:
    count, first, last = db.execute("SELECT count(*), min(start_ns), max(end_ns) FROM spans").fetchone()
    nothing = Completeness(switches_seen=0, switches_counted=0, events_lost=0, uncovered_ns=0, lives_ns=0)
    return Recording(
        command="",
        pids=(),
        started_at="",
        start_ns=first or 0,
        end_ns=last or 0,
        sources=(),
        rate_hz=None,
        intervals_count=count,
        completeness=nothing,
        notes=("the tracker that wrote this was ended before it had finished: no counters, no names of threads",),
    )


def _told(err: sqlite3.Error, path: Path | None, doing: str) -> IpclabError:
    code = getattr(err, "sqlite_errorcode", 0) & 0xFF
    what = f"cannot {doing} the recording {path}" if path else "cannot write the temporary recording"
    if code == sqlite3.SQLITE_FULL:
        return NoRoom(f"{what}: the disk is full", hint="make room, or name another file")
    if code == sqlite3.SQLITE_NOTADB:
        return IpclabError(f"{path} is no recording of ipclab states")
    return IpclabError(f"{what}: {err}")

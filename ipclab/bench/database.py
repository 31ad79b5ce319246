"""The bench's SQLite file, below what is stored in it: opening, journal, schema, and what can go wrong, in one line.

SQLite reports everything as one of a few exceptions; what a user can do differs by its result code
(https://www.sqlite.org/rescode.html), so `telling` goes by that.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ipclab.errors import IpclabError, NoRoom, TimedOut, Unavailable, from_os_error

#: "ipcl": written into the file, so that it is known for what it is.
APPLICATION_ID = 0x6970636C
#: Of the tables; the records in them have a schema of their own.
DATABASE_VERSION = 1
#: File systems that other machines may share, beside those of FUSE.
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs", "ceph", "lustre", "gfs2", "ocfs2", "beegfs"}
#: Those of FUSE that lie on a disk of this machine.
FUSE_LOCAL = {"fuseblk", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.encfs"}
ELSEWHERE = "name another with --db FILE"

TABLES = (
    "CREATE TABLE runs (run_id TEXT PRIMARY KEY, started_at TEXT NOT NULL, summary BLOB, record BLOB NOT NULL)",
    """CREATE TABLE rows (run_id TEXT NOT NULL REFERENCES runs, position INTEGER NOT NULL, mechanism TEXT NOT NULL,
       row BLOB NOT NULL, PRIMARY KEY (run_id, position)) WITHOUT ROWID""",
    "CREATE INDEX runs_by_time ON runs (started_at, run_id)",
    "CREATE INDEX rows_by_mechanism ON rows (mechanism)",
)


def default_path() -> Path:
    """Where the database is unless --db says otherwise: in $XDG_DATA_HOME, else in ~/.local/share."""
    base = os.environ.get("XDG_DATA_HOME", "")
    if base.startswith("/"):  # the XDG rule: a relative path is passed over
        return Path(base, "ipclab", "bench.sqlite3")
    try:
        return Path.home() / ".local" / "share" / "ipclab" / "bench.sqlite3"
    except RuntimeError as err:
        raise Unavailable("you have no home folder to keep runs in", hint="set XDG_DATA_HOME, or give --db") from err


def make(path: Path, *, folder_too: bool) -> None:
    """See to it that there is a file, for its owner alone; and a folder, likewise, where `folder_too`."""
    if path.is_dir():
        raise IpclabError(f"cannot write the database {path}: it is a folder", hint=ELSEWHERE)
    if folder_too:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
    # SQLite gives its log files the mode this file has.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def open_to_write(path: Path, patience_s: float) -> sqlite3.Connection:
    """A connection in autocommit mode, its journal chosen."""
    connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None)
    try:
        _choose_journal(connection, path)
        with transaction(connection):
            pass  # that it is read-only is said before anything is measured, not after
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path, patience_s: float) -> sqlite3.Connection:
    """A connection that cannot write.

    With a write-ahead log a reader too needs files beside the database; where it may not make them, and there is no log
    with something in it, nobody writes, and the file is read as one that does not change (immutable).
    """
    name = f"file:{quote(str(path.absolute()))}?mode=ro"
    log = path.with_name(path.name + "-wal")
    for uri in (name, f"{name}&immutable=1"):
        connection = sqlite3.connect(uri, timeout=patience_s, isolation_level=None, uri=True)
        try:
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        except BaseException as err:
            connection.close()
            logged = log.exists() and log.stat().st_size > 0
            if uri != name or logged or not isinstance(err, sqlite3.Error) or _code(err) not in _NEEDS_FILES:
                raise
        else:
            return connection
    raise AssertionError("the second attempt returns or raises")


def version_of(connection: sqlite3.Connection, path: Path) -> int | None:
    """Which version the tables have; None: there are none yet. Refuses what is not ours and what is newer."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            raise IpclabError(f"{path} is a database of another program", hint=ELSEWHERE)
        return None
    if version > DATABASE_VERSION:
        raise IpclabError(
            f"the database {path} is from a newer ipclab (its version is {version}, this one knows up to "
            f"{DATABASE_VERSION})",
            hint=f"upgrade ipclab, or {ELSEWHERE}",
        )
    return int(version)


def stamp(connection: sqlite3.Connection) -> None:
    """Write into the file whose it is, and of which version; part of the transaction that makes the tables."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {DATABASE_VERSION}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; the write lock is taken (and waited for) at the beginning, so that no two writers get stuck."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back when the disk is full
            connection.execute("ROLLBACK")
        raise


@contextmanager
def telling(path: Path, doing: str) -> Iterator[None]:
    """Turn what SQLite and the kernel say of a database into one line; `doing` is "read" or "write"."""
    try:
        yield
    except IpclabError:
        raise
    except FileNotFoundError as err:
        missing = path if path.parent.is_dir() else path.parent
        raise Unavailable(f"cannot {doing} the database {path}: there is no {missing}", hint=ELSEWHERE) from err
    except OSError as err:
        raise from_os_error(err, f"cannot {doing} the database {path}", hint=ELSEWHERE) from err
    except sqlite3.Error as err:
        raise _named(err, path, doing) from err


def on_network(path: Path, mounts: str | None = None) -> bool:
    """Whether other machines may have the same file system mounted. If in doubt, yes: that journal works everywhere.

    `mounts` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        except OSError:
            return True
    kind, longest = "", -1
    real = Path(os.path.realpath(path))
    for line in mounts.splitlines():
        before, _dash, after = line.partition(" - ")
        point = Path(_unescaped(before.split()[4]))
        # Of two on one point the later one hides the other.
        if real.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = after.split()[0], len(point.parts)
    return kind in NETWORK or (kind.startswith("fuse") and kind not in FUSE_LOCAL) or not kind


# --- below -----------------------------------------------------------------------------------------------------------

#: What a reader gets where it may not make the files a write-ahead log needs.
_NEEDS_FILES = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


def _choose_journal(connection: sqlite3.Connection, path: Path) -> None:
    """A write-ahead log, but not on a network file system; it stays chosen, and so is chosen once."""
    wished = "delete" if on_network(path) else "wal"
    (current,) = connection.execute("PRAGMA journal_mode").fetchone()
    if current == wished:
        return
    try:
        connection.execute(f"PRAGMA journal_mode = {wished}").fetchone()
    except sqlite3.OperationalError as err:
        # Somebody else is at it. Either journal is correct on a disk; the next who writes chooses.
        if _code(err) != sqlite3.SQLITE_BUSY or wished != "wal":
            raise


def _code(err: sqlite3.Error) -> int:
    """The primary result code; 0 where the sqlite3 module itself complains."""
    return getattr(err, "sqlite_errorcode", 0) & 0xFF


def _named(err: sqlite3.Error, path: Path, doing: str) -> IpclabError:
    code = _code(err)
    cannot = f"cannot {doing} the database {path}"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TimedOut(f"{cannot}: another process has it locked", hint="wait for that process, or end it")
    if code == sqlite3.SQLITE_FULL:
        return NoRoom(f"{cannot}: no room is left", errno=errno.ENOSPC, hint=f"make room there, or {ELSEWHERE}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        why = "it is read-only for you" if doing == "write" else "it cannot be opened"
        return Unavailable(f"{cannot}: {why}", hint=ELSEWHERE)
    if code == sqlite3.SQLITE_NOTADB:
        return IpclabError(f"{path} is not a database", hint=ELSEWHERE)
    if code == sqlite3.SQLITE_CORRUPT:
        return IpclabError(f"the database {path} is damaged", hint=f"restore it from a copy, or {ELSEWHERE}")
    return IpclabError(f"{cannot}: {err}", hint=ELSEWHERE)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)

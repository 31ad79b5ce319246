"""Recordings in a file: what goes in comes out, in order; a full disk, a killed tracker, another program's file."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest
from followed import actor, recorded

from ipclab import states
from ipclab.errors import IpclabError, NoRoom, Unavailable
from ipclab.records import Recording
from ipclab.states import tracker as front
from ipclab.states.spans import LAYOUT, Span

TICKER = "while True: time.sleep(0.001)"


def chunk(*spans: tuple[int, int, int]) -> bytes:
    """Spans (start, end, tid) as the core gives them."""
    made = (Span(start, end, 0, 1, tid, -1, 0, 1, b"S", -1, 0, 0) for start, end, tid in spans)
    return b"".join(LAYOUT.pack(*one) for one in made)


def test_a_record_goes_into_a_file_and_comes_out_the_same(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    with actor(TICKER) as process, states.Tracker([process.pid], source="poll", spill=path) as tracker:
        head = recorded(tracker, lambda head: head.intervals_count > 10)
        before = list(tracker.intervals())
    opened, intervals = states.open_recording(path)
    assert opened == head
    assert list(intervals) == before
    assert len(before) == head.intervals_count > 10
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM intervals WHERE state = 'S'").fetchone()[0] > 0
        assert db.execute("SELECT count(*) FROM threads").fetchone()[0] == 1
    db.close()


def test_intervals_come_by_their_start() -> None:
    store = states.Store(None)
    store.append(chunk((30, 40, 2), (10, 50, 1)))
    store.append(chunk((5, 60, 3), (50, 61, 1)))
    assert [one.start_ns for one in store.intervals(["f"])] == [5, 10, 30, 50]
    assert [one.start_ns for one in store.intervals(["f"], since_ns=50)] == [5, 50]
    assert {one.wchan for one in store.intervals(["f"])} == {"f"}
    store.close()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "MEMORY_BYTES", 20_000)
    with actor(TICKER) as process, states.Tracker([process.pid], source="poll") as tracker:
        head = recorded(tracker, lambda head: head.intervals_count * 48 > 20_000)
        assert tracker._chunk_bytes <= 20_000 < head.intervals_count * 48
        assert len(list(tracker.intervals())) == head.intervals_count
        assert tracker.recent(30)


def test_a_full_disk_is_told() -> None:
    store = states.Store(None)
    store._db.execute("PRAGMA max_page_count = 12")  # SQLite says SQLITE_FULL, as when the disk is
    with pytest.raises(NoRoom, match="disk is full"):
        store.append(chunk(*((at, at + 1, 1) for at in range(100_000))))
    store.close()


def test_a_tracker_on_a_full_disk_goes_on_without(tmp_path: Path) -> None:
    with actor(TICKER) as process, states.Tracker([process.pid], source="poll", spill=tmp_path / "x") as tracker:
        assert tracker._store
        tracker._store._db.execute("PRAGMA max_page_count = 1")
        head = recorded(tracker, is_short_of_disk)
    assert is_short_of_disk(head)
    assert head.threads[0].time_ns["S"] > 0


def is_short_of_disk(head: Recording) -> bool:
    return any("disk is full" in note and "missing" in note for note in head.notes)


def test_the_file_of_a_killed_tracker_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    script = (
        "from ipclab import states\n"
        "with states.Tracker([int(sys.argv[1])], source='poll', spill=__import__('pathlib').Path(sys.argv[2])) as t:\n"
        "    time.sleep(100)"
    )
    with actor(TICKER) as process, actor(script, process.pid, path) as tracker:
        end = time.monotonic() + 30
        while time.monotonic() < end and not _rows(path):
            time.sleep(0.05)
        tracker.kill()
        tracker.wait()
        head, intervals = states.open_recording(path)
        assert "was ended before" in head.notes[0]
        assert len(list(intervals)) == head.intervals_count > 0


def _rows(path: Path) -> int:
    if not path.exists():
        return 0
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM spans").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        db.close()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no file"):
        states.open_recording(tmp_path / "nothing")
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(IpclabError, match="no recording"):
        states.open_recording(tmp_path / "text")
    with pytest.raises(IpclabError, match="exists already"):
        states.Store(tmp_path / "text")
    with pytest.raises(IpclabError, match="cannot write"):
        states.Store(tmp_path / "no" / "folder")


def test_a_glance() -> None:
    with actor("os.read(0, 1)") as process:
        end = time.monotonic() + 30
        while states.read(process.pid).syscall != "read" and time.monotonic() < end:
            time.sleep(0.01)
        seen = states.read(process.pid)
        assert (seen.state, seen.syscall, seen.ppid, seen.threads) == ("S", "read", os.getpid(), 1)
        assert seen.voluntary_switches
        assert seen.run_ns
    assert states.read(process.pid).state == "X"

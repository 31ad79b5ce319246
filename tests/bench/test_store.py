"""Runs kept and found again; whatever is wrong with a database or a record file is one clear line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
from made import a_case, a_run, samples

from ipclab.bench import database, schema
from ipclab.bench.history import history
from ipclab.bench.store import Store, load
from ipclab.errors import IpclabError, NoRoom, TimedOut, Unavailable, UsageError
from ipclab.records import Run

PIPE = a_case("pipe")
RUN = a_run("2026-a", [(PIPE, samples(PIPE, [1e6] * 3))])
LATER = a_run("2026-b", [(PIPE, samples(PIPE, [2e6] * 3))], started_at="2026-02-01T00:00:00Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "bench.sqlite3"
    with Store.to_write(place) as store:
        store.add(RUN)
    return place


def old_record() -> bytes:
    """RUN as schema 0 had it."""
    plain = msgspec.to_builtins(RUN)
    plain["schema_version"] = 0
    plain["started"] = plain.pop("started_at")
    del plain["rows"]
    return msgspec.json.encode(plain)


def old_database(place: Path) -> None:
    with sqlite3.connect(place) as connection:
        connection.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        connection.execute("CREATE TABLE runs (run_id TEXT PRIMARY KEY, record BLOB)")
        connection.execute("INSERT INTO runs VALUES (?, ?)", (RUN.run_id, old_record()))
        connection.execute("INSERT INTO runs VALUES ('broken', '{')")
    connection.close()


def test_a_run_comes_back_whole(path: Path) -> None:
    with Store.to_read(path) as store:
        assert store.find("2026-a") == RUN
    assert load("2026", path) == RUN


def test_the_default_place_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert history().runs == ()
    assert not (tmp_path / "data").exists()
    with Store.to_write() as store:
        store.add(RUN)
    assert (tmp_path / "data" / "ipclab").stat().st_mode & 0o777 == 0o700
    assert len(history().runs) == 1


def test_two_writers_at_once(path: Path) -> None:
    with Store.to_write(path) as one, Store.to_write(path) as other:
        other.add(LATER)
        one.add(msgspec.structs.replace(RUN, run_id="2026-c"))
    assert [run.run_id for run in history(path).runs] == ["2026-a", "2026-c", "2026-b"]


def test_history_follows_a_mechanism(path: Path) -> None:
    with Store.to_write(path) as store:
        store.add(LATER)
    assert [point.change for point in history(path, "pipe").course] == [1.0, pytest.approx(2.0)]
    with pytest.raises(UsageError, match="did you mean 'pipe'"):
        history(path, "pip")


def test_a_beginning_must_mean_one_run(path: Path) -> None:
    with Store.to_write(path) as store:
        store.add(LATER)
        with pytest.raises(UsageError, match="several runs: 2026-a, 2026-b"):
            store.find("2026")
        with pytest.raises(UsageError, match="no run in"):
            store.find("1999")
        with pytest.raises(IpclabError, match="already"):
            store.add(RUN)


@pytest.mark.parametrize("writing", [False, True])
def test_an_older_database_opens(tmp_path: Path, writing: bool) -> None:
    place = tmp_path / "old.sqlite3"
    old_database(place)
    before = place.read_bytes()
    with Store.to_write(place) if writing else Store.to_read(place) as store:
        assert store.find("2026-a") == RUN
        assert [run.run_id for run in store.runs()] == ["2026-a"]
        with pytest.raises(IpclabError, match="broken"):
            store.find("broken")
    assert (place.read_bytes() == before) is not writing


def test_a_newer_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for way in (Store.to_read, Store.to_write):
        with pytest.raises(IpclabError, match="newer ipclab"):
            way(path)


def test_what_is_no_database_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, this is a text\n" * 50)
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    for name, words in (("text", "is not a database"), ("other", "another program"), ("none", "there is no")):
        with pytest.raises(IpclabError, match=words):
            Store.to_read(tmp_path / name)
    with pytest.raises(IpclabError, match="is a folder"):
        Store.to_write(tmp_path)


def test_a_locked_database_is_said_to_be_locked(path: Path) -> None:
    with Store.to_write(path, patience_s=0.05) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimedOut, match="locked"):
            store.add(LATER)
        other.close()
        store.add(LATER)


def test_a_full_disk_leaves_the_database_as_it_was(path: Path) -> None:
    big = msgspec.structs.replace(LATER, command="x" * 1_000_000)
    with Store.to_write(path) as store:
        store._connection.execute("PRAGMA max_page_count = 20").fetchall()
        with pytest.raises(NoRoom, match="no room"):
            store.add(big)
        assert [run.run_id for run in store.runs()] == ["2026-a"]


def test_a_database_that_may_only_be_read(path: Path) -> None:
    connection = database.open_to_read(path, 0.05)
    with pytest.raises(Unavailable, match="read-only"), database.telling(path, "write"):
        connection.execute("DELETE FROM runs")
    connection.close()


def test_network_file_systems_are_known() -> None:
    line = "30 1 0:25 / {} rw - {} x rw\n"
    mounts = line.format("/", "ext4") + line.format("/n\\040s", "nfs4") + line.format("/s", "fuse.sshfs")
    assert not database.on_network(Path("/home/x"), mounts)
    assert database.on_network(Path("/n s/x"), mounts)
    assert database.on_network(Path("/s/x"), mounts)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (schema.encode(RUN)[:-40], "it ends after"),
        (b'{"record": "bench-run", "schema_version": 1, }', "is not whole"),
        (b'{"record": "bench-run", "schema_version": 7}', "newer ipclab"),
        (b'{"record": "clean", "schema_version": 1}', "record of 'clean'"),
        (b"[]", "not a record"),
        (b'{"record": "bench-run", "schema_version": 0}', "not a record"),
        (schema.encode(RUN).replace(b'"messages":1000000', b'"messages":"x"', 1), r"at \$.samples\[0\].messages"),
    ],
)
def test_a_record_file_that_cannot_be_read(tmp_path: Path, data: bytes, words: str) -> None:
    place = tmp_path / "x.json"
    place.write_bytes(data)
    with pytest.raises(IpclabError, match=words) as caught:
        load(str(place))
    assert "x.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_older_record_file_opens(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_bytes(old_record())
    run: Run = load(str(tmp_path / "old.json"))
    assert run == RUN

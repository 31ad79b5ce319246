"""`ipclab bench` as a user meets it: small runs, comparisons, the past, and requests that are wrong."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import TIMEOUT_S, environment

Ipclab = Callable[..., "subprocess.CompletedProcess[str]"]

#: On one CPU: where two are too busy to tell how far apart they lie, a sample does not count.
SMALL = (
    *("--size", "64", "--rounds", "1", "--sample-ms", "2"),
    *("--driver", "native", "--pattern", "throughput", "--placement", "cpu"),
)


@pytest.mark.parametrize("command", ["run", "compare", "history"])
def test_help_has_an_example(ipclab: Ipclab, command: str) -> None:
    done = ipclab("bench", command, "--help")
    assert done.returncode == 0
    assert f"Example: ipclab bench {command}" in done.stdout
    assert "--json" in done.stdout
    assert "-o," in done.stdout


def test_run_is_stored_written_listed_and_compared(ipclab: Ipclab, tmp_path: Path) -> None:
    db, record = tmp_path / "runs.sqlite3", tmp_path / "run.json"
    done = ipclab("bench", "run", "pipe", *SMALL, "--db", str(db), "-o", str(record))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no bar where there is no terminal"
    assert "msg/s" in done.stdout
    run = json.loads(record.read_text())
    assert (run["record"], run["schema_version"]) == ("bench-run", 1)
    assert run["samples"]
    listed = ipclab("bench", "history", "--db", str(db))
    assert run["run_id"] in listed.stdout
    course = json.loads(ipclab("bench", "history", "pipe", "--db", str(db), "--json").stdout)
    assert [point["run_id"] for point in course["course"]] == [run["run_id"]]
    compared = ipclab("bench", "compare", str(record), run["run_id"], "--db", str(db))
    assert compared.returncode == 0, compared.stderr
    assert "both are the same run" in compared.stdout


def test_what_a_mechanism_cannot_is_a_row_and_the_rest_runs(ipclab: Ipclab) -> None:
    done = ipclab("bench", "run", "pipe", "udp", *SMALL[2:], "--size", "128K", "--no-store", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["case"]["mechanism"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["udp"]["refusal"]
    assert rows["pipe"]["median_per_s"] > 0


@pytest.mark.parametrize("form", ["markdown", "csv"])
def test_other_formats(ipclab: Ipclab, form: str) -> None:
    done = ipclab("bench", "run", "pipe", *SMALL, "--no-store", "--format", form)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# " if form == "markdown" else "run_id,")


def test_interleaved_is_stored_as_other_runs(ipclab: Ipclab, tmp_path: Path) -> None:
    db = tmp_path / "runs.sqlite3"
    done = ipclab("bench", "compare", "--interleaved", "pipe", "ring", *SMALL, "--json", "--db", str(db))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["a"], found["b"], found["interleaved"]) == ("pipe", "ring", True)
    assert found["run_id"] in ipclab("bench", "history", "--db", str(db)).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "pipee"], "did you mean 'pipe'"),
        (["run", "--size", "0"], "0 bytes"),
        (["run", "--size", "-64"], "-64"),
        (["run", "--size", "many"], "whole numbers"),
        (["run", "--size", "64,,65"], "empty word"),
        (["run", "--size", "8G"], "cannot be measured"),
        (["run", "--cpus", "0,99999"], "CPU 99999 does not exist"),
        (["run", "--driver", "rust"], "no driver"),
        (["run", "--pattern", "sideways"], "no pattern"),
        (["run", "--pattern", "openloop"], "--rate"),
        (["run", "--placement", "moon"], "no placement"),
        (["run", "--rounds", "0"], "--rounds 0"),
        (["run", "--format", "xml"], "xml"),
        (["run", "--db", "x", "--no-store"], "exclude each other"),
        (["compare", "a.json", "b.json", "--size", "64"], "--size is of --interleaved"),
        (["compare", "--interleaved", "pipe", "pipe"], "itself"),
        (["compare", "--interleaved", "pipe", "ring", "--db", "x", "--no-store"], "exclude each other"),
        (["compare", "a.json", "b.json", "--no-store"], "--no-store is of --interleaved"),
        (["compare", "--interleaved", "pipe", "rng"], "did you mean 'ring'"),
        (["compare", "nothing", "nothing"], "no run"),
        (["comprae"], "comprae"),
    ],
)
def test_a_wrong_request_is_one_line_and_2(ipclab: Ipclab, arguments: list[str], words: str, tmp_path: Path) -> None:
    done = ipclab("bench", *arguments, XDG_DATA_HOME=str(tmp_path / "data"))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_truncated_record(ipclab: Ipclab, tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    record.write_text('{"record": "bench-run", "schema_ver')
    done = ipclab("bench", "compare", str(record), str(record))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "in the middle of the record" in done.stderr


def test_a_newer_database(ipclab: Ipclab, tmp_path: Path) -> None:
    db = tmp_path / "runs.sqlite3"
    assert ipclab("bench", "run", "pipe", *SMALL, "--db", str(db)).returncode == 0
    connection = sqlite3.connect(db)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    for command in (["history"], ["run", "pipe", *SMALL]):
        done = ipclab("bench", *command, "--db", str(db))
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "newer" in done.stderr


def test_a_database_that_cannot_be_written(ipclab: Ipclab) -> None:
    done = ipclab("bench", "run", "pipe", *SMALL, "--db", "/proc/runs.sqlite3")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "/proc/runs.sqlite3" in done.stderr
    assert done.stdout == "", "told before anything is measured"


@pytest.mark.parametrize(("signo", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_measured(signo: signal.Signals, code: int, tmp_path: Path) -> None:
    db = tmp_path / "runs.sqlite3"
    # What announces each sample tells when the first one is done; then Ctrl-C comes, as from a terminal.
    announce = """
import contextlib, sys
from ipclab.cli import progress
@contextlib.contextmanager
def told():
    def tell(step):
        sys.stderr.write(f"{step.done} {step.label}\\n")
        sys.stderr.flush()
    yield tell
progress.progress = told
from ipclab.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", announce, "bench", "run", "pipe", *SMALL, "--rounds", "100000", "--db", str(db)],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    rounds = 0
    for line in process.stderr:
        rounds += "calibrating" not in line
        if rounds == 3:
            break
    os.kill(process.pid, signo)
    out, _err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == code
    assert "msg/s" in out
    assert "ended early" in out
    assert db.exists()


def test_a_refused_comparison_is_no_success(ipclab: Ipclab, tmp_path: Path) -> None:
    records = [str(tmp_path / f"{number}.json") for number in (1, 2)]
    for record, depth in zip(records, ("8", "16"), strict=True):
        done = ipclab("bench", "run", "ring", *SMALL, "--depth", depth, "--no-store", "-o", record)
        assert done.returncode == 0, done.stderr
    done = ipclab("bench", "compare", *records)
    assert done.returncode == 1
    assert "depths differ: 8 and 16 messages" in done.stdout

"""`ipclab report` as a user meets it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Ipclab = Callable[..., "subprocess.CompletedProcess[str]"]

#: On one CPU: where two are too busy to tell how far apart they lie, a sample does not count.
SMALL = (
    *("--size", "64", "--rounds", "1", "--sample-ms", "2"),
    *("--driver", "native", "--pattern", "throughput", "--placement", "cpu"),
)


def test_a_run_becomes_a_picture(ipclab: Ipclab, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record, db = tmp_path / "run.json", tmp_path / "runs.sqlite3"
    assert ipclab("bench", "run", "pipe", *SMALL, "--db", str(db), "-o", str(record)).returncode == 0
    run_id = json.loads(record.read_text())["run_id"]
    done = ipclab("report", "--plot", str(record), run_id, "--db", str(db), "-o", str(tmp_path / "run.svg"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run.svg").read_bytes().startswith(b"<?xml")
    shown = ipclab("report", "--plot", str(record), "--json")
    assert [run["run_id"] for run in json.loads(shown.stdout)] == [run_id]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot", "run.json"], "no file was named"),
        (["--plot", "run.json", "-o", "run.pdf"], "neither .png nor .svg"),
        (["run.json"], "--plot"),
        (["--plot", "nothing", "-o", "x.png"], "no run"),
        (["--plot"], "RECORD"),
    ],
)
def test_a_wrong_request_is_one_line_and_2(ipclab: Ipclab, arguments: list[str], words: str, tmp_path: Path) -> None:
    done = ipclab("report", *arguments, XDG_DATA_HOME=str(tmp_path / "data"))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""

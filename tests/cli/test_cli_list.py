"""`ipclab list` and `ipclab clean` as a user meets them."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ipclab import survey
from ipclab.errors import Unavailable
from ipclab.mechanisms import CATALOGUE
from ipclab.records import Demo, Probe

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_every_mechanism_stands_below_its_family(ipclab: Run) -> None:
    done = ipclab("list")
    assert done.returncode == 0
    heads = [line for line in done.stdout.splitlines()[:-2] if line and line[0] not in "|` "]
    assert heads == [
        "communication by data transfer",
        "communication by shared memory",
        "signals",
        "synchronisation",
    ]
    names = re.findall(r"^[|`]-- (\S+)", done.stdout, flags=re.MULTILINE)
    assert names == list(CATALOGUE)
    assert re.search(r"-- pipe +works ", done.stdout)
    assert "Go: os.Pipe" in done.stdout


def test_limits_are_shown_when_asked_for(ipclab: Run) -> None:
    assert "limit: " not in ipclab("list").stdout
    shown = ipclab("list", "--limits").stdout
    assert shown.count("limit: ") >= len(CATALOGUE)
    listed = json.loads(ipclab("list", "--limits", "--json").stdout)["mechanisms"]
    for status in listed:
        assert status["limits"], status["mechanism"]["name"]
        for limit in status["limits"]:
            assert limit["source"], limit


def test_every_page(ipclab: Run) -> None:
    done = ipclab("list", *CATALOGUE)
    assert done.returncode == 0
    starts = [
        done.stdout.index(f"{name}: ") if name == "pipe" else done.stdout.index(f"\n{name}: ") for name in CATALOGUE
    ]
    assert starts == sorted(starts), "one after the other, as they were asked for"
    for begin, end in itertools.pairwise([*starts, len(done.stdout)]):
        page = done.stdout[begin:end]
        for heading in ("What it is.", "Lifetime.", "When an end dies.", "Not when", "Man pages."):
            assert heading in page


def test_pages_in_the_order_asked_for(ipclab: Run) -> None:
    done = ipclab("list", "fifo", "pipe")
    assert re.findall(r"^(fifo|pipe): ", done.stdout, flags=re.MULTILINE)[0] == "fifo"
    assert "\npipe: " in done.stdout


def test_on_a_terminal(on_terminal: Callable[..., str]) -> None:
    shown = on_terminal("list", columns=60)
    assert "├── " in shown
    assert "\x1b[32mworks\x1b[0m" in shown
    assert "\x1b" not in on_terminal("list", NO_COLOR="1")
    plain = on_terminal("list", NO_COLOR="1", PYTHONIOENCODING="ascii")
    assert plain.isascii()
    assert "|-- " in plain


def test_a_probe_that_fails_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def probe() -> Probe:
            raise Unavailable("no room for it", hint="make some")

    monkeypatch.setattr(survey, "load", lambda _name: Broken)
    assert survey._asked("x") == Probe(works=False, reason="no room for it", remedy="make some")


@pytest.mark.parametrize(
    ("needs", "better_with", "standing", "reason"),
    [
        ((), (), "runs", ""),
        (("good",), ("good",), "runs", ""),
        (("good", "bad"), (), "not here", "needs bad: broken"),
        (("good",), ("bad",), "reduced", "goes without bad: broken"),
        (("weak",), (), "reduced", "uses weak: small"),
        (("weak", "bad"), (), "not here", "needs bad: broken"),
    ],
)
def test_a_demo_is_what_its_mechanisms_are(
    needs: tuple[str, ...], better_with: tuple[str, ...], standing: str, reason: str
) -> None:
    probes = {
        "good": Probe(works=True),
        "weak": Probe(works=True, reason="small", remedy="enlarge it"),
        "bad": Probe(works=False, reason="broken", remedy="mend it"),
    }
    demo = Demo(name="d", summary="", family="signals", needs=needs, better_with=better_with, path="/d.py")
    (status,) = survey.demo_statuses([demo], probes)
    assert (status.standing, status.reason) == (standing, reason)
    assert bool(status.remedy) == bool(reason)


def test_doctor_changes_nothing(ipclab: Run, tmp_path: Path) -> None:
    assert ipclab("doctor").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_doctor_has_every_demo_and_every_instrument_there_is(ipclab: Run) -> None:
    report = json.loads(ipclab("doctor", "--json").stdout)
    instruments = [instrument["name"] for instrument in report["instruments"]]
    assert instruments == ["mechanisms", "bench", "states", "demos", "portable coroutines"]
    assert [source["source"] for source in report["sources"]] == ["trace", "switch", "events", "poll"]
    assert [status["mechanism"]["name"] for status in report["mechanisms"]] == list(CATALOGUE)
    listed = json.loads(ipclab("demo", "--list", "--json").stdout)["demos"]
    assert report["demos"] == listed


def test_nothing_to_clean(ipclab: Run, tmp_path: Path) -> None:
    done = ipclab("clean")
    assert (done.returncode, done.stdout) == (0, "nothing to clean\n")
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_folder_of_somebody_else_is_one_line(ipclab: Run, tmp_path: Path) -> None:
    folder = tmp_path / f"ipclab-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    done = ipclab("clean")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("ipclab: ")
    assert str(folder) in line
    assert ipclab("doctor").returncode == 0

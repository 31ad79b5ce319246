"""The Go program that the scheduler is measured against: it compiles, and gives a figure for every key. `tox -e go`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ipclab.machine import programs

SOURCE = Path(__file__).resolve().parents[2] / "ipclab/core/tests/gmp_bench.go"
KEYS = ("create", "yield", "channel", "stream", "select", "mutex", "locked", "mixed", "sysmon")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> str:
    ready = programs.ready("go")
    if not ready.works:
        pytest.skip(f"{ready.reason}; {ready.remedy}")
    found = programs.find("go")
    assert found
    path = tmp_path_factory.mktemp("go") / "gmp_bench"
    subprocess.run([found, "vet", str(SOURCE)], check=True, timeout=100)
    subprocess.run([found, "build", "-o", str(path), str(SOURCE)], check=True, timeout=100)
    return str(path)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_gives_a_figure(bench: str, key: str) -> None:
    done = subprocess.run([bench, key, "2"], capture_output=True, text=True, timeout=100, check=True)
    assert float(done.stdout) > 0


@pytest.mark.parametrize("arguments", [["nonsense", "1"], ["yield"], ["yield", "0"], ["yield", "many"]])
def test_what_makes_no_sense_is_refused(bench: str, arguments: list[str]) -> None:
    done = subprocess.run([bench, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1

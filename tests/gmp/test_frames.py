"""A coroutine that moves at every await comes to the same end as one that stays: tests/frames_cases.py has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from frames_cases import CASES, HERE_ONLY, moved_here, outcome_of, unmoved

from ipclab.gmp import frames

pytestmark = pytest.mark.skipif(not frames.available(), reason=frames.reason())

SCRIPT = Path(__file__).parents[1] / "frames_cases.py"


@pytest.mark.parametrize("name", CASES)
def test_moved_within_its_process(name: str) -> None:
    result, moves = unmoved(name)
    assert outcome_of(CASES[name](), moved_here) == (result, moves)
    assert moves > 0 or "empty" in name, "a case that never waits tests nothing"


@pytest.fixture(scope="module")
def through_processes() -> dict[str, Any]:
    """Every case once in the script itself, as __main__, and once through two processes that it starts."""
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    done = subprocess.run(
        [sys.executable, SCRIPT, "drive"], capture_output=True, text=True, env=environment, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    assert "RuntimeWarning" not in done.stderr
    return results


@pytest.mark.parametrize("name", [name for name in CASES if name not in HERE_ONLY])
def test_moved_through_spawned_processes(name: str, through_processes: dict[str, Any]) -> None:
    stayed, moved = through_processes[name]
    assert moved == stayed

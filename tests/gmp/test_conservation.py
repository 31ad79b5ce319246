"""scripts/gmp_conservation.py: it sees a lost wake-up, excuses who has no CPU, and can judge a real run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ipclab.records import SchedEvent

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gmp_conservation.py"
TIMEOUT_S = 300
US = 1_000
PIDS = {0: 100, 1: 101, 2: 102}
ALWAYS = {pid: [(0, 10**9)] for pid in PIDS.values()}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gmp_conservation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def at(us: int, m: int, kind: str, goid: int = 0, arg: int = 0) -> SchedEvent:
    return SchedEvent(time_ns=us * US, kind=kind, m=m, p=None, goid=goid, arg=arg)


#: P 1 is on the list; M 1 runs G 2 and makes G 3 runnable.
BEFORE = [at(1, 2, "P idle", arg=1 << 1 | 1), at(2, 2, "park"), at(3, 1, "start", 2), at(10, 1, "create", 3, 2)]


def counted_us(script: ModuleType, events: list[SchedEvent], on_cpu: dict[int, list[tuple[int, int]]]) -> float:
    _count, most = script.worst(script.stretches(events, PIDS, on_cpu))
    return float(most.counted_ns / US)


def test_a_wake_up_that_never_comes_counts_from_beginning_to_end(script: ModuleType) -> None:
    events = [*BEFORE, at(5000, 1, "block", 2), at(5001, 1, "start", 3)]
    assert counted_us(script, events, ALWAYS) == 4991
    # Also when the one who should have woken somebody sleeps: then nobody is there who must.
    asleep = [*BEFORE, at(20, 1, "syscall enter", 2), at(5000, 1, "syscall exit", 2), at(5001, 2, "start", 3)]
    assert counted_us(script, asleep, {101: [(0, 20 * US)]}) >= 4970


def test_who_was_woken_is_waited_for_until_it_has_a_cpu(script: ModuleType) -> None:
    # A second P stays on the list; the one that was given away is on its way to M 2.
    two = [at(0, 2, "P idle", arg=2 << 1 | 1), *BEFORE]
    woken = [at(12, 1, "P idle", arg=1 << 1), at(13, 1, "wakep", arg=1)]
    comes = [at(9000, 2, "unpark"), at(9001, 2, "acquirep", arg=1), at(9004, 2, "start", 3)]
    assert counted_us(script, [*two, *woken, *comes], ALWAYS) == 3 + 4  # until wakep, and from its first step on


def test_who_looks_for_work_is_excused_without_a_cpu_alone(script: ModuleType) -> None:
    looks = [at(0, 1, "P idle", arg=1 << 1 | 1), at(1, 2, "unpark"), at(2, 1, "start", 2), at(10, 1, "create", 3, 2)]
    takes = [at(8000, 2, "start", 3)]
    assert counted_us(script, [*looks, *takes], {102: [(0, 100 * US), (7990 * US, 8000 * US)]}) == 100
    assert counted_us(script, [*looks, *takes], ALWAYS) == 7990


def test_no_idle_p_or_no_runnable_g_is_nothing(script: ModuleType) -> None:
    assert script.worst(script.stretches(BEFORE[:3], PIDS, ALWAYS))[0] == 0
    assert script.worst(script.stretches(BEFORE[2:], PIDS, ALWAYS))[0] == 0


def test_a_real_run_is_judged() -> None:
    """Which way is a measurement: a virtual CPU that is taken away counts as one that an M has."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--steps", "50000", "--procs", "3"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert " stretches with an idle P beside a runnable G" in done.stdout

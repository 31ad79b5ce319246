"""A run: interleaved, ended early without loss, failed cases left alone."""

from __future__ import annotations

import time

import pytest

from ipclab.bench import calibrate, overheads, plan, run, sample
from ipclab.records import Case, Options, Run, Sample

OPTIONS = Options(
    mechanisms=("pipe", "fifo"),
    sizes_bytes=(64,),
    drivers=("native",),
    patterns=("throughput",),
    placements=("cpu",),
    rounds=3,
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that cost nothing: what is tested is their order."""
    monkeypatch.setattr(overheads, "measure", lambda *_args, **_names: overheads.NONE)
    monkeypatch.setattr(sample, "take", planted)


def planted(_driver: object, order: sample.Order) -> sample.Taken:
    failure = "message 7 is wrong" if order.case.mechanism == "fifo" and order.round == 1 else ""
    found = Sample(
        case_key=order.case.key,
        round=order.round,
        messages=order.messages,
        duration_ns=order.messages * 1000,
        fingerprint_before_ns=0,
        fingerprint_after_ns=0,
        failure=failure,
        kept=not failure,
        cluster="same",
        started_ns=time.monotonic_ns() - order.origin_ns,
    )
    return sample.Taken(found, 8, {"pipe": 65536})


def measure(progress: run.Callback | None = None) -> Run:
    cases, refusals = plan.expand(OPTIONS)
    return run.run(cases, OPTIONS, refusals=refusals, progress=progress)


def test_rounds_interleave_and_a_failed_case_is_left_alone() -> None:
    found = measure()
    order = [(each.case_key.split()[0], each.round) for each in found.samples]
    assert order == [("pipe", 0), ("fifo", 0), ("pipe", 1), ("fifo", 1), ("pipe", 2)]
    assert [row.failure for row in found.rows] == ["", "message 7 is wrong"]
    assert found.cases[0].buffers == {"pipe": 65536}


def test_ctrl_c_keeps_what_was_measured() -> None:
    def press(progress: run.Progress) -> None:
        if progress.label.startswith("fifo"):
            raise KeyboardInterrupt

    found = measure(press)
    assert found.interrupted
    assert [each.case_key.split()[0] for each in found.samples] == ["pipe"]


def test_calibration_grows_until_a_sample_is_long_enough() -> None:
    case = Case(mechanism="pipe", driver="native", pattern="throughput", size_bytes=64)
    messages, final = calibrate.next_count(case, 256, 1000, 20_000_000)
    assert not final
    assert messages == 256 * 64
    assert calibrate.next_count(case, 1000, 10_000_000, 20_000_000) == (2000, True)

"""A run: interleaved, ended early without loss, failed cases left alone."""

from __future__ import annotations

import signal
import time

import msgspec
import pytest

from ipclab.bench import calibrate, overheads, plan, run, sample, traced
from ipclab.records import Case, Options, Run, Sample, SideCost, TracedCalls

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
    monkeypatch.setattr(
        traced, "trace", lambda _driver, case: TracedCalls(case_key=case.key, messages=1, per_message=2.5)
    )


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
    assert found.ended_by_signal == signal.SIGINT
    assert [each.case_key.split()[0] for each in found.samples] == ["pipe"]


def test_another_signal_is_named() -> None:
    class Terminated(KeyboardInterrupt):
        signo = int(signal.SIGTERM)

    def press(progress: run.Progress) -> None:
        raise Terminated

    found = measure(press)
    assert found.ended_by_signal == signal.SIGTERM
    assert any("SIGTERM" in note for note in found.notes)


def test_what_the_driver_does_not_count_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def sides(counted: bool) -> tuple[SideCost, ...]:
        calls = 10 if counted else None
        return (
            SideCost(
                role="a", cpu=0, messages=10, cpu_ns=1, voluntary_switches=0, involuntary_switches=0, system_calls=calls
            ),
        )

    def take(driver: object, order: sample.Order) -> sample.Taken:
        found = planted(driver, order)
        counted = order.case.mechanism == "fifo"
        return found._replace(sample=msgspec.structs.replace(found.sample, failure="", kept=True, sides=sides(counted)))

    monkeypatch.setattr(sample, "take", take)
    found = measure()
    assert [trace.case_key.split()[0] for trace in found.traces] == ["pipe"]
    pipe, fifo = found.rows
    assert pipe.system_calls_per_message == 2.5
    assert fifo.system_calls_per_message == 10 / fifo_messages(found)


def fifo_messages(found: Run) -> int:
    return next(each.messages for each in found.samples if each.case_key.startswith("fifo"))


def test_a_case_calibrated_in_a_slow_moment_gets_more_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty times as slow while it is calibrated: the first sample is then far too short, and taken again."""

    def take(driver: object, order: sample.Order) -> sample.Taken:
        found = planted(driver, order)
        slower = 50 if order.round < 0 else 1
        longer = found.sample.duration_ns * slower
        return found._replace(sample=msgspec.structs.replace(found.sample, duration_ns=longer, failure="", kept=True))

    monkeypatch.setattr(sample, "take", take)
    found = measure()
    assert [each.round for each in found.samples if each.case_key.startswith("pipe")] == [0, 1, 2]
    assert min(each.duration_ns for each in found.samples) >= 90_000_000


def test_calibration_grows_until_a_sample_is_long_enough() -> None:
    case = Case(mechanism="pipe", driver="native", pattern="throughput", size_bytes=64)
    messages, final = calibrate.next_count(case, 256, 1000, 20_000_000)
    assert not final
    assert messages == 256 * 64
    assert calibrate.next_count(case, 1000, 10_000_000, 20_000_000) == (2000, True)

"""One sample: what it reports, what makes it fail, what makes it not count."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import msgspec

from ipclab.bench import clusters, plan, sample
from ipclab.bench.driver import Job, Lane, SideResult
from ipclab.mechanisms.base import Side
from ipclab.records import Case, Sample

CPU = min(os.sched_getaffinity(0))
CASE = Case(mechanism="pipe", driver="native", pattern="throughput", size_bytes=64, cpus=(CPU, CPU))


class Planted:
    """A driver and its lane in one: side b is killed in the middle, side a waits for ever."""

    name = "planted"
    depth: int | None = None
    buffers: dict[str, int] = {}  # noqa: RUF012 - as the protocol has it

    def cost_free_reason(self, case: Case) -> str | None:
        return None

    @contextlib.contextmanager
    def open(self, case: Case) -> Iterator[Lane]:
        yield self

    def run(self, side: Side, job: Job) -> SideResult:
        job.meter.start()
        if side == "b":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
        return SideResult()


def test_a_sample_counts_what_both_sides_did() -> None:
    taken = sample.take(plan.driver("native"), sample.Order(CASE, 0, 500, 10, 60.0))
    assert taken.sample.failure == ""
    assert [side.role for side in taken.sample.sides] == ["a", "b"]
    assert taken.sample.duration_ns > 0
    assert taken.sample.cluster == "same"
    assert taken.sample.sides[0].system_calls == 500


def test_a_killed_receiver_is_named_and_nobody_waits() -> None:
    taken = sample.take(Planted(), sample.Order(CASE, 0, 10, 0, 60.0))
    assert "receiver b was ended by SIGKILL" in taken.sample.failure
    assert not taken.sample.kept


class Deaf(Planted):
    """Side b says at once what is wrong, and side a does not notice that it is alone."""

    def run(self, side: Side, job: Job) -> SideResult:
        job.meter.start()
        if side == "a":
            time.sleep(60)
        return SideResult(error="message 0 did not come before the deadline")


def test_what_one_side_says_counts_and_not_the_silence_of_the_other() -> None:
    taken = sample.take(Deaf(), sample.Order(CASE, 0, 10, 0, 60.0))
    assert taken.sample.failure == "the receiver b: message 0 did not come before the deadline"


def test_why_a_sample_does_not_count() -> None:
    cuts = clusters.borders(())
    good = Sample(case_key="x", round=0, messages=1, duration_ns=1, fingerprint_before_ns=100, fingerprint_after_ns=100)
    assert sample.judge(good, cuts).kept
    for changed, reason in (
        (msgspec.structs.replace(good, fingerprint_after_ns=400), sample.MOVED),
        (msgspec.structs.replace(good, fingerprint_after_ns=None), sample.UNKNOWN),
        (msgspec.structs.replace(good, throttled_ns=1), sample.THROTTLED),
    ):
        judged = sample.judge(changed, cuts)
        assert (judged.kept, judged.dropped_reason) == (False, reason)

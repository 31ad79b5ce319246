"""The bench's instruments in the C core: histogram, fingerprint, the price of verification; what a Carrier refuses."""

from __future__ import annotations

import copy
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipclab import _core

#: Values as they occur: spread over the powers of two, not over the numbers.
DURATIONS_NS = st.integers(0, 41).flatmap(lambda bits: st.integers(0, 2 ** (bits + 1) - 1))
SAMPLES = st.lists(DURATIONS_NS, min_size=1, max_size=200)
#: No bucket is wider than 1/32 of its lower bound, and a percentile tells its middle.
TOLERANCE = 1 / 32
#: Of messages where it does not matter.
SIZE = 64


def histogram_of(values: list[int]) -> _core.Histogram:
    histogram = _core.Histogram()
    histogram.record_many(values)
    return histogram


# --- the histogram ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(SAMPLES, st.floats(0, 100))
def test_percentiles_are_those_of_the_sorted_sample(values: list[int], q: float) -> None:
    values.sort()
    exact = values[max(0, math.ceil(q / 100 * len(values)) - 1)]
    assert abs(histogram_of(values).percentile(q) - exact) <= exact * TOLERANCE


@settings(deadline=None)
@given(SAMPLES)
def test_the_ends_are_exact(values: list[int]) -> None:
    histogram = histogram_of(values)
    assert (histogram.count, histogram.min, histogram.max) == (len(values), min(values), max(values))
    assert (histogram.percentile(0), histogram.percentile(100)) == (min(values), max(values))


@settings(deadline=None)
@given(SAMPLES, SAMPLES)
def test_merging_is_recording_both(first: list[int], second: list[int]) -> None:
    merged = histogram_of(first)
    merged.merge(histogram_of(second))
    both = histogram_of(first + second)
    assert merged.buckets() == both.buckets()
    assert (merged.count, merged.min, merged.max) == (both.count, both.min, both.max)


@settings(deadline=None)
@given(SAMPLES)
def test_buckets_there_and_back(values: list[int]) -> None:
    histogram = histogram_of(values)
    again = _core.Histogram.from_buckets(histogram.buckets(), min=histogram.min, max=histogram.max)
    assert again.buckets() == histogram.buckets()
    for q in (0, 1, 50, 99, 99.9, 100):
        assert again.percentile(q) == histogram.percentile(q)


@settings(deadline=None)
@given(SAMPLES)
def test_buckets_without_ends_lose_less_than_a_bucket(values: list[int]) -> None:
    again = _core.Histogram.from_buckets(histogram_of(values).buckets())
    assert again.min <= min(values) <= again.min * (1 + TOLERANCE)
    assert max(values) <= again.max <= max(values) * (1 + TOLERANCE)


@settings(deadline=None)
@given(SAMPLES)
def test_buckets_are_in_order_and_count_everything(values: list[int]) -> None:
    buckets = histogram_of(values).buckets()
    assert [lower for lower, _ in buckets] == sorted({lower for lower, _ in buckets})
    assert sum(count for _, count in buckets) == len(values)
    assert all(count > 0 for _, count in buckets)


def test_a_histogram_merged_with_itself() -> None:
    histogram = histogram_of([1, 2, 3])
    histogram.merge(histogram)
    assert histogram.count == 6


def test_an_empty_histogram_says_so() -> None:
    histogram = _core.Histogram()
    assert (histogram.count, histogram.min, histogram.max, histogram.buckets()) == (0, 0, 0, [])
    with pytest.raises(ValueError, match="nothing was recorded"):
        histogram.percentile(50)
    assert _core.Histogram.from_buckets([], min=3).count == 0


def test_what_a_histogram_refuses() -> None:
    histogram = histogram_of([1])
    wrong: list[tuple[type[Exception], Any]] = [
        (ValueError, lambda: histogram.record(-1)),
        (TypeError, lambda: histogram.record(1.5)),  # type: ignore[arg-type]
        (OverflowError, lambda: histogram.record(2**63)),
        (TypeError, lambda: histogram.record_many(7)),  # type: ignore[arg-type]
        (ValueError, lambda: histogram.record_many([2, -2])),
        (TypeError, lambda: histogram.merge(object())),  # type: ignore[arg-type]
        (ValueError, lambda: histogram.percentile(100.1)),
        (ValueError, lambda: histogram.percentile(-0.1)),
        (ValueError, lambda: histogram.percentile(math.nan)),
        (TypeError, lambda: histogram.percentile("p50")),  # type: ignore[arg-type]
        (TypeError, lambda: _core.Histogram.from_buckets([(1,)])),  # type: ignore[list-item]
        (ValueError, lambda: _core.Histogram.from_buckets([(1, -1)])),
        (ValueError, lambda: _core.Histogram.from_buckets([(1, 1)], max=-1)),
        (TypeError, lambda: _core.Histogram(1)),  # type: ignore[call-arg]
    ]
    for error, call in wrong:
        with pytest.raises(error):
            call()
    assert (histogram.min, histogram.max) == (1, 2)


# --- counts -----------------------------------------------------------------------------------------------------------


def test_counts_are_a_tuple_with_names() -> None:
    counts = _core.Counts((1, 2, 3, 4, 5, -1))  # type: ignore[call-arg,arg-type]
    assert (counts.messages, counts.duration_ns, counts.system_calls) == (1, 2, 3)
    assert (counts.sleeps, counts.wakes, counts.bad_sequence) == (4, 5, -1)
    assert tuple(counts) == (1, 2, 3, 4, 5, -1)
    assert copy.copy(counts) == counts
    assert pickle.loads(pickle.dumps(counts)) == counts


# --- the fingerprint, and what verification costs ---------------------------------------------------------------------


def test_a_cpu_is_at_no_distance_from_itself() -> None:
    cpu = min(os.sched_getaffinity(0))
    assert _core.fingerprint(cpu, cpu) == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_the_distance_of_two_cpus() -> None:
    before = os.sched_getaffinity(0)
    first, second = sorted(before)[:2]
    with suppress(TimeoutError):  # others keep these CPUs too busy to tell
        assert 0 < _core.fingerprint(first, second) < 500_000_000
    assert os.sched_getaffinity(0) == before


def test_a_cpu_that_is_not_there() -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    for cpus in ((cpu, 4095), (4095, cpu), (4095, 4095), (-1, cpu)):
        with pytest.raises(OSError, match="Invalid argument"):
            _core.fingerprint(*cpus)
    with pytest.raises(OSError, match="Invalid argument"):
        _core.fingerprint(cpu, cpu, 0)
    assert os.sched_getaffinity(0) == before


def test_verification_costs_something() -> None:
    assert 0 < _core.verification_cost(64) < _core.verification_cost(1 << 20)
    for size in (0, -1):
        with pytest.raises(ValueError, match="1 byte or more"):
            _core.verification_cost(size)


# --- a carrier in one process -----------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    fds = os.pipe()
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture
def loopback(pipe: tuple[int, int]) -> Iterator[_core.Carrier]:
    """A carrier that receives what it sends."""
    carrier = _core.Carrier("stream", pipe, None, {})
    yield carrier
    carrier.close()


def test_it_receives_what_it_sends(loopback: _core.Carrier) -> None:
    assert loopback.kind == "stream"
    sent = loopback.send(SIZE, 100)
    assert (sent.messages, sent.system_calls, sent.bad_sequence) == (100, 100, -1)
    received = loopback.receive(SIZE, 100)
    assert (received.messages, received.system_calls, received.bad_sequence) == (100, 100, -1)
    assert received.duration_ns > 0


def test_sides_that_disagree_about_first_are_told(loopback: _core.Carrier) -> None:
    loopback.send(SIZE, 10, first=5)
    counts = loopback.receive(SIZE, 10, first=4)
    assert (counts.messages, counts.bad_sequence) == (0, 4)


def test_a_deadline_ends_a_wait(loopback: _core.Carrier) -> None:
    loopback.send(SIZE, 3)
    counts = loopback.receive(SIZE, 10, deadline_ns=time.monotonic_ns() + 20_000_000)
    assert (counts.messages, counts.bad_sequence) == (3, -1)
    assert loopback.receive(SIZE, 10, 0, 1).messages == 0  # long ago


def test_what_a_loop_refuses(loopback: _core.Carrier) -> None:
    wrong: list[tuple[type[Exception], Any]] = [
        (ValueError, lambda: loopback.send(0, 1)),
        (ValueError, lambda: loopback.send(1, 0)),
        (ValueError, lambda: loopback.send(-1, 1)),
        (ValueError, lambda: loopback.send(1, -1)),
        (ValueError, lambda: loopback.send(1, 1, first=-1)),
        (ValueError, lambda: loopback.send_on_schedule(1, 1, 0, -1)),
        (TypeError, lambda: loopback.ping(1, 1, object())),  # type: ignore[arg-type]
        (TypeError, lambda: loopback.send(1, 1, deadline_ns="soon")),  # type: ignore[arg-type]
        (OverflowError, lambda: loopback.send(2**64, 1)),
        (OSError, lambda: loopback.send(2**62, 1)),  # no memory, or no such size
    ]
    for error, call in wrong:
        with pytest.raises(error):
            call()


def test_a_closed_carrier_says_so(loopback: _core.Carrier) -> None:
    loopback.close()
    loopback.close()
    with pytest.raises(RuntimeError, match="closed"):
        loopback.send(1, 1)


def test_what_no_carrier_can_be_made_of() -> None:
    wrong: list[tuple[type[Exception], Any]] = [
        (ValueError, ("pigeon", (), None, {})),
        (ValueError, ("stream", (0,), None, {})),
        (ValueError, ("stream", (0, 1, 2, 3, 4), None, {})),
        (OSError, ("stream", (-1, -1), None, {})),
        (ValueError, ("sysv-mq", (), None, {"id": 0})),
        (ValueError, ("slots", (), None, {"side": 0})),
        (ValueError, ("slots", (), bytearray(8), {"side": 0})),
        (BufferError, ("slots", (), bytes(4096), {"side": 0})),
        (ValueError, ("futex", (), bytearray(8), {"in": 0, "out": 8})),
        (ValueError, ("posix-sem", (), b"/one-name-only\0", {})),
        (TypeError, ("stream", [0, 1], None, {})),
        (TypeError, ("stream", (0, "1"), None, {})),
        (ValueError, ("stream", (0, 1), None, {str(i): i for i in range(20)})),
        (TypeError, ("stream", (0, 1), None, {"watch": "me"})),
    ]
    for error, arguments in wrong:
        with pytest.raises(error):
            _core.Carrier(*arguments)


def test_a_carrier_in_use_is_nobody_elses(loopback: _core.Carrier, pipe: tuple[int, int]) -> None:
    """Another thread is refused, in the carrier and in the histogram; the loop goes on."""
    counts: list[_core.Counts] = []
    histogram = _core.Histogram()
    start_ns = time.monotonic_ns()
    thread = threading.Thread(
        target=lambda: counts.append(loopback.receive_on_schedule(SIZE, 1, start_ns, 0, histogram))
    )
    thread.start()
    give_up = time.monotonic() + 20
    while not refused(lambda: histogram.record(0)):
        assert time.monotonic() < give_up
    for call in (loopback.close, lambda: loopback.receive(SIZE, 1), lambda: histogram.merge(histogram)):
        assert refused(call)
    message = bytearray(SIZE)
    _core.message_fill(message)
    os.write(pipe[1], message)
    thread.join(20)
    assert counts[0].messages == 1
    assert not refused(lambda: histogram.record(0))


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except RuntimeError as err:
        return "running" in str(err) or "recording" in str(err)
    return False


@pytest.mark.parametrize("spins", [False, True])
def test_ctrl_c_ends_a_loop(loopback: _core.Carrier, spins: bool) -> None:
    """Asleep in read(2), or awake all the time: the handler runs and what it raises ends the loop."""

    class Struck(Exception):
        pass

    def strike(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    far = time.monotonic_ns() + 60 * 10**9
    try:
        with pytest.raises(Struck):
            until_struck(loopback, spins, far)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert loopback.send(SIZE, 1).messages == 1  # it is as good as before


def until_struck(loopback: _core.Carrier, spins: bool, far: int) -> None:
    # More than once: the first may come just before the loop's system call, which then does not end by it.
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    if spins:
        loopback.send_on_schedule(SIZE, 1, far, 0, spin_ns=10**12, deadline_ns=far)
    else:
        loopback.receive(SIZE, 1, deadline_ns=far)


def test_a_handler_that_does_not_raise_ends_nothing(loopback: _core.Carrier) -> None:
    struck = []
    before = signal.signal(signal.SIGALRM, lambda *_: struck.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        counts = loopback.receive(SIZE, 1, deadline_ns=time.monotonic_ns() + 60_000_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert counts.messages == 0
    assert struck


def test_a_reader_that_has_gone() -> None:
    """EPIPE, not SIGPIPE, whatever that does in this process; what was done is told with it."""
    (reader, spare), (other, writer) = os.pipe(), os.pipe()
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    carrier = _core.Carrier("stream", (reader, writer), None, {})
    try:
        assert carrier.send(SIZE, 2).messages == 2
        os.close(other)
        with pytest.raises(BrokenPipeError) as caught:
            carrier.send(SIZE, 2, first=2)
    finally:
        signal.signal(signal.SIGPIPE, before)
        carrier.close()
        for fd in (reader, spare, writer):
            os.close(fd)
    error: Any = caught.value
    assert error.syscall == "stream"
    assert error.counts.messages == 0

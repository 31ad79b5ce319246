"""Rows from samples: against scipy and numpy where they are installed, against sorted lists everywhere."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import product
from statistics import median

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ENVIRONMENT, a_case, a_sample, a_side, samples

from ipclab import _core
from ipclab.bench import bootstrap, statistics
from ipclab.records import Case, Refusal, Sample

LATENCIES = st.lists(st.integers(0, 1 << 41), min_size=1, max_size=300)
VALUES = st.lists(st.floats(0.5, 2.0), min_size=1, max_size=12)


def bucket_of(ns: int) -> int:
    """The lower bound of the bucket that counts a value."""
    shift = max(0, ns.bit_length() - 6)
    return ns >> shift << shift


# --- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_the_interval_is_that_of_all_draws_there_are(n: int) -> None:
    # Of six values there are 6**6 draws: all of them, instead of a sample of them.
    values = [math.exp(random.Random(n).gauss(0, 1)) for _ in range(n)]
    draws = sorted(median(draw) for draw in product(values, repeat=n))
    interval = bootstrap.of_median(values)
    assert interval.middle == median(values)
    assert interval.low == pytest.approx(draws[math.ceil(0.025 * len(draws)) - 1])
    assert interval.high == pytest.approx(draws[math.ceil(0.975 * len(draws)) - 1])
    assert interval.size == n


@pytest.mark.parametrize("n", [7, 8, 15, 30])
def test_the_interval_is_scipys(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    numpy = pytest.importorskip("numpy")
    values = numpy.random.default_rng(n).lognormal(0, 0.1, n)
    other = stats.bootstrap(
        (values,), numpy.median, n_resamples=20_000, method="percentile", rng=numpy.random.default_rng(1)
    ).confidence_interval
    interval = bootstrap.of_median([float(value) for value in values])
    assert interval.low == pytest.approx(other.low, rel=0.01)
    assert interval.high == pytest.approx(other.high, rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (7, 10), (30, 7)])
def test_the_interval_of_a_ratio_is_that_of_drawing(n: int, m: int) -> None:
    chance = random.Random(n * m)
    tops = [math.exp(chance.gauss(0.2, 0.1)) for _ in range(n)]
    bottoms = [math.exp(chance.gauss(0, 0.1)) for _ in range(m)]
    drawn = sorted(median(chance.choices(tops, k=n)) / median(chance.choices(bottoms, k=m)) for _ in range(8000))
    interval = bootstrap.of_ratio(tops, bottoms)
    assert interval.middle == pytest.approx(median(tops) / median(bottoms))
    assert interval.low == pytest.approx(drawn[200], rel=0.02)
    assert interval.high == pytest.approx(drawn[7800], rel=0.02)
    assert interval.size == min(n, m)


@settings(deadline=None)
@given(VALUES)
def test_an_interval_holds_its_middle_and_stays_in_the_range(values: list[float]) -> None:
    interval = bootstrap.of_median(values)
    assert min(values) <= interval.low <= interval.middle <= interval.high <= max(values)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_turning_a_ratio_round_turns_its_interval_round(tops: list[float], bottoms: list[float]) -> None:
    there, back = bootstrap.of_ratio(tops, bottoms), bootstrap.of_ratio(bottoms, tops)
    assert there.middle == pytest.approx(1 / back.middle)
    assert min(tops) / max(bottoms) <= there.low * (1 + 1e-8)
    assert there.high <= max(tops) / min(bottoms) * (1 + 1e-8)


def test_no_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no values"):
        bootstrap.of_median([])


# --- percentiles -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(LATENCIES, st.sampled_from([1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_the_sorted_one_within_its_bucket(latencies: list[int], q: float) -> None:
    found = statistics.percentile(Counter(map(bucket_of, latencies)), q)
    exact = sorted(latencies)[max(1, math.ceil(q / 100 * len(latencies))) - 1]
    assert found is not None
    assert abs(found - exact) <= exact / 32
    assert bucket_of(found) == bucket_of(exact)


@settings(deadline=None)
@given(LATENCIES, st.sampled_from([50.0, 90.0, 99.0, 99.9]))
def test_a_percentile_is_the_cores(latencies: list[int], q: float) -> None:
    histogram = _core.Histogram()
    histogram.record_many(latencies)
    found = statistics.percentile(dict(histogram.buckets()), q, histogram.max)
    # The core knows the least value too, which no record carries; below it nothing is told.
    assert max(found or 0, histogram.min) == histogram.percentile(q)


@settings(deadline=None)
@given(LATENCIES, LATENCIES)
def test_merged_histograms_are_the_histogram_of_all(some: list[int], others: list[int]) -> None:
    case = a_case(pattern="pingpong")
    both = [a_sample(case, histogram=Counter(map(bucket_of, part))) for part in (some, others)]
    assert statistics.merged(both) == Counter(map(bucket_of, some + others))


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.floats(0, 1))
def test_a_quantile_is_numpys(values: list[float], share: float) -> None:
    numpy = pytest.importorskip("numpy")
    assert statistics.quantile(values, share) == pytest.approx(float(numpy.quantile(values, share)), abs=1e-3)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_samples_become_one_row_per_case_and_cluster() -> None:
    pipe, ring = a_case("pipe"), a_case("ring")
    measured = [*samples(pipe, [1e6, 1.1e6, 1.2e6]), *samples(pipe, [2e5] * 4, "slow"), *samples(ring, [9e6] * 5)]
    table = statistics.rows([ring, pipe], measured)
    assert [(row.case.mechanism, row.cluster, row.samples_kept) for row in table] == [
        ("ring", "fast", 5),
        ("pipe", "slow", 4),
        ("pipe", "fast", 3),
    ]
    assert table[2].median_per_s == pytest.approx(1.1e6)
    assert table[2].bytes_per_s == pytest.approx(1.1e6 * 64)
    assert table[2].spread_ratio == pytest.approx(1.2)


def test_dropped_samples_count_but_do_not_measure() -> None:
    case = a_case()
    lost = a_sample(case, 5e6, cluster="?", kept=False, dropped="x")
    (row,) = statistics.rows([case], [*samples(case, [1e6] * 3), lost])
    assert (row.samples_kept, row.samples_dropped) == (3, 1)
    assert row.median_per_s == pytest.approx(1e6)
    assert row.stable


def test_one_failed_sample_fails_the_row() -> None:
    case = a_case()
    wrong = a_sample(case, kept=False, failure="message 999999: checksum")
    (row,) = statistics.rows([case], [*samples(case, [1e6] * 5), wrong])
    assert row.failure == "message 999999: checksum"
    assert row.median_per_s is None
    assert not row.stable


def test_refused_cases_come_last_with_their_reason() -> None:
    case, refused = a_case(), a_case("posix-mq", size_bytes=1 << 20)
    table = statistics.rows([case], samples(case, [1e6] * 3), [Refusal(case=refused, reason="limit 8192 bytes")])
    assert [(row.case.mechanism, row.refusal) for row in table] == [("pipe", ""), ("posix-mq", "limit 8192 bytes")]


@pytest.mark.parametrize(
    ("rates", "messages", "advice"),
    [
        ([1e6, 1e6], 1_000_000, "only 2 of 2 samples kept"),
        ([1e6] * 5, 10, "make samples longer"),
        ([1e6, 1.3e6, 0.8e6, 1.2e6], 1_000_000, "samples scatter by"),
        ([1e6] * 59 + [1.6e6], 1_000_000, "one sample lies 50% off or more"),
    ],
)
def test_an_unstable_row_says_what_to_do(rates: list[float], messages: int, advice: str) -> None:
    case = a_case()
    (row,) = statistics.rows([case], samples(case, rates, messages=messages))
    assert not row.stable
    assert advice in row.advice
    assert ": " in row.advice


def test_throttled_samples_ask_for_quota() -> None:
    case = a_case()
    (row,) = statistics.rows([case], samples(case, [1e6] * 4, kept=False, dropped="throttled by cpu.max"))
    assert (row.samples_kept, row.samples_dropped, row.cluster) == (0, 4, "")
    assert "4 dropped: throttled by cpu.max" in row.advice
    assert "quota" in row.advice


def test_a_spinning_row_under_a_small_quota_is_marked() -> None:
    case = a_case("ring", spins=True)
    tight = msgspec.structs.replace(ENVIRONMENT, cpu_quota=1.5)
    (row,) = statistics.rows([case], samples(case, [1e6] * 3), (), tight)
    assert "1.5 CPUs" in row.advice
    assert row.stable
    (row,) = statistics.rows([case], samples(case, [1e6] * 3), (), ENVIRONMENT)
    assert row.advice == ""


def test_costs_are_of_both_sides_per_message() -> None:
    case = a_case()
    sides = (a_side("a", calls=1000, switches=10, cpu_ns=5000), a_side("b", calls=2000, switches=20, cpu_ns=7000))
    (row,) = statistics.rows([case], samples(case, [1e6] * 3, sides=sides, messages=1000))
    assert row.system_calls_per_message == 3
    assert row.voluntary_switches_per_message == pytest.approx(0.03)
    assert row.cpu_ns_per_message == 12


def test_a_count_one_side_has_not_got_is_not_told() -> None:
    case = a_case("zmq-ipc")
    sides = (a_side("a"), a_side("b", calls=None, reason="only through pyzmq"))
    (row,) = statistics.rows([case], samples(case, [1e6] * 3, sides=sides))
    assert row.system_calls_per_message is None
    assert row.system_calls_reason == "only through pyzmq"


def test_a_high_percentile_needs_enough_messages() -> None:
    case = a_case(pattern="pingpong")
    (row,) = statistics.rows([case], samples(case, [1e6] * 3, histogram={1024: 100}))
    assert row.p50_ns is not None
    assert row.p99_ns is not None
    assert row.p999_ns is None
    assert row.bytes_per_s is None


def test_the_slowest_of_several_pairs() -> None:
    case = a_case(pairs=2)
    sample = msgspec.structs.replace(
        a_sample(case, messages=2000), duration_ns=2_000_000, pair_durations_ns=(1_000_000, 2_000_000)
    )
    (row,) = statistics.rows([case], [sample])
    assert row.slowest_pair_per_s == pytest.approx(500_000)


def test_waiting_for_a_cpu_is_told_of_processes_that_had_one_each() -> None:
    def waiting(case: Case, delay_ns: int) -> list[Sample]:
        side = msgspec.structs.replace(a_side(), run_delay_ns=delay_ns)
        return samples(case, [1e6] * 3, messages=1_000_000, sides=(side, side))  # a second each

    apart, together = a_case("pipe"), a_case("fifo", cpus=(0, 0))
    both = [*waiting(apart, 250_000_000), *waiting(together, 900_000_000)]
    assert statistics.waited_share((apart, together), both) == 0.25
    assert statistics.waited_share((together,), both) is None

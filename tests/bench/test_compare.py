"""Verdicts, and what is not compared at all."""

from __future__ import annotations

import pytest
from made import a_case, a_run, samples

from ipclab.bench.compare import compare_interleaved, compare_runs
from ipclab.errors import UsageError
from ipclab.records import Case, Run

NEAR = [1.00e6, 1.01e6, 0.99e6, 1.02e6, 0.98e6, 1.00e6, 1.01e6]


def run_of(run_id: str, case: Case, factor: float = 1.0, cluster: str = "fast", n: int = 7) -> Run:
    return a_run(run_id, [(case, samples(case, [rate * factor for rate in NEAR[:n]], cluster))])


@pytest.mark.parametrize(
    ("factor", "n", "verdict"),
    [
        (2.0, 7, "faster"),
        (0.5, 7, "slower"),
        (1.0, 7, "no difference shown"),
        (1.08, 7, "no difference shown"),
        (2.0, 4, "no difference shown"),
    ],
)
def test_two_runs(factor: float, n: int, verdict: str) -> None:
    (row,) = compare_runs(run_of("a", a_case(), n=n), run_of("b", a_case(), factor, n=n)).rows
    assert row.verdict == verdict
    assert row.ratio == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize(
    ("other", "cluster", "words"),
    [
        (a_case(placement="smt"), "fast", "placements differ: llc and smt"),
        (a_case(), "slow", "clusters differ: fast and slow"),
        (a_case(buffers={"pipe": 1}), "fast", "buffers differ: pipe"),
        (a_case(depth=3), "fast", "depths differ"),
        (a_case(size_bytes=1024), "fast", "size differs: 64 here, 1024 in B"),
        (a_case(pattern="pingpong"), "fast", "pattern differs"),
        (a_case("ring"), "fast", "B did not measure pipe"),
    ],
)
def test_what_differs_elsewhere_is_not_compared(other: Case, cluster: str, words: str) -> None:
    rows = compare_runs(run_of("a", a_case()), run_of("b", other, cluster=cluster)).rows
    assert all(row.verdict == "not comparable" and row.ratio is None for row in rows)
    assert words in rows[0].reason


def test_interleaved_pairs_are_of_one_round_and_cluster() -> None:
    pipe, ring = a_case("pipe"), a_case("ring")
    # The machine drifts by a factor of ten; within a round both drift alike.
    drift = [1e6 * 1.4**number for number in range(7)]
    measured = [(pipe, samples(pipe, drift)), (ring, samples(ring, [rate * 5 for rate in drift]))]
    (row,) = compare_interleaved(a_run("x", measured), "pipe", "ring").rows
    assert (row.verdict, row.pairs) == ("faster", 7)
    assert row.low == pytest.approx(5)
    with pytest.raises(UsageError, match="has no tcp"):
        compare_interleaved(a_run("x", measured), "pipe", "tcp")


def test_the_open_loop_compares_latency() -> None:
    case = a_case(pattern="openloop", rate_per_s=1000.0)
    fast = a_run("b", [(case, samples(case, NEAR, histogram={1024: 100}))])
    slow = a_run("a", [(case, samples(case, NEAR, histogram={4096: 100}))])
    (row,) = compare_runs(slow, fast).rows
    assert (row.verdict, row.measure) == ("faster", "p50 latency")

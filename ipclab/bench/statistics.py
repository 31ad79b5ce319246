"""From raw samples to the table: one `Row` per case and placement cluster, with its verdict on itself.

    samples of one case --- cluster "fast" ---> Row      median of the kept samples, 10th to 90th percentile, interval
                        \\-- cluster "slow" ---> Row
                        \\-- dropped                      counted in a row, with what to do about the reason
                        \\-- one has failed  ---> one Row without figures: what is wrong once is wrong

The middle is a median throughout: a sample during which the machine did something else is far off to one side, never
to both. Percentiles of latency are of all messages of all kept samples (histograms are added), not medians of medians.

When is a row unstable? As pyperf asks (stdev of 10 % of the mean, a sample 50 % off, raw samples too short), and when
too few samples are left. The advice says what to do about it, since a warning without a way out is noise.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from ipclab.bench import bootstrap
from ipclab.records import Case, Environment, Refusal, Row, Sample, SideCost, TracedCalls

#: From here on a standard deviation, as a share of the mean, is too much (pyperf's threshold).
UNSTEADY_SHARE = 0.10
#: A sample so far off the mean, as a share of it, is too much (pyperf's threshold).
OUTLIER_SHARE = 0.50
#: A raw sample shorter than this measures the clock and the scheduler (pyperf's threshold).
SHORTEST_NS = 1_000_000
#: Kept samples below which a median means little: of three one may be off.
FEW_KEPT = 3
#: A percentile is told when at least one value can lie above it: p99.9 needs 1000.
PERCENTILES = {"p50_ns": 50.0, "p90_ns": 90.0, "p99_ns": 99.0, "p999_ns": 99.9}
#: 32 buckets for each power of two, as core/histogram.h has them.
_SUB_BITS = 5


def rows(
    cases: Sequence[Case],
    samples: Iterable[Sample],
    refusals: Iterable[Refusal] = (),
    environment: Environment | None = None,
    traces: Iterable[TracedCalls] = (),
) -> tuple[Row, ...]:
    """The table, in the order of the plan; of one case the cluster with most samples first. Refused cases come last.

    `samples` may be of any moment of a run: a case that has none yet has no row. `traces` tell of the system calls that
    a driver did not count.
    """
    by_case: dict[str, list[Sample]] = {case.key: [] for case in cases}
    for sample in samples:
        by_case.setdefault(sample.case_key, []).append(sample)
    table = [row for case in cases for row in _case_rows(case, by_case[case.key], environment)]
    traced = {trace.case_key: trace for trace in traces}
    table = [_with_trace(row, traced.get(row.case.key)) for row in table]
    return (*table, *(Row(case=refusal.case, refusal=refusal.reason) for refusal in refusals))


def usable(sample: Sample) -> bool:
    """Whether a sample counts."""
    return sample.kept and sample.per_s > 0


def merged(samples: Iterable[Sample]) -> dict[int, int]:
    """The histograms of samples, added: lower bound of a bucket in ns -> count."""
    total: Counter[int] = Counter()
    for sample in samples:
        total.update(sample.histogram or {})
    return dict(total)


def percentile(histogram: Mapping[int, int], q: float, max_ns: int | None = None) -> int | None:
    """The value at or below which q percent lie, in ns: the middle of its bucket, off by 1.6 % at most.

    None when the histogram is empty. `max_ns`, where it is known, is never exceeded.

    >>> percentile({10: 1, 20: 1, 30: 2}, 50)
    20
    """
    count = sum(histogram.values())
    if not count:
        return None
    # The same rank as core/histogram.c: so many of `count` that they are q percent, at least one.
    rank = max(1, min(count, math.ceil(q / 100 * count)))
    seen = 0
    for lower in sorted(histogram):
        seen += histogram[lower]
        if seen >= rank:
            break
    middle = lower + (width(lower) - 1) // 2
    return middle if max_ns is None else min(middle, max_ns)


def width(lower_ns: int) -> int:
    """How many values share the bucket that begins at `lower_ns`.

    >>> [width(31), width(32), width(64), width(1024)]
    [1, 1, 2, 32]
    """
    return 1 << max(0, lower_ns.bit_length() - 1 - _SUB_BITS)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies, between two of them where it falls there (numpy's default).

    >>> quantile([1, 2, 3, 4], 0.5)
    2.5
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# --- one case --------------------------------------------------------------------------------------------------------


def _case_rows(case: Case, samples: list[Sample], environment: Environment | None) -> list[Row]:
    if not samples:
        return []
    failed = next((sample for sample in samples if sample.failure), None)
    if failed is not None:
        kept = sum(sample.kept for sample in samples)
        return [
            Row(
                case=case,
                cluster=failed.cluster,
                samples_kept=kept,
                samples_dropped=len(samples) - kept,
                stable=False,
                failure=failed.failure,
            )
        ]
    clusters: dict[str, list[Sample]] = {}
    for sample in samples:
        if usable(sample):
            clusters.setdefault(sample.cluster, []).append(sample)
    dropped = [sample for sample in samples if not usable(sample)]
    if not clusters:
        advice = f"none of {len(samples)} samples could be kept ({_reasons(dropped)}): {_cure(dropped)}"
        return [Row(case=case, samples_dropped=len(dropped), stable=False, advice=advice)]
    ordered = sorted(clusters, key=lambda name: -len(clusters[name]))
    # A sample that was dropped because its placement moved belongs to no cluster: the largest one shows it.
    lost: dict[str, list[Sample]] = {name: [] for name in ordered}
    for sample in dropped:
        lost[sample.cluster if sample.cluster in lost else ordered[0]].append(sample)
    return [_row(case, name, clusters[name], lost[name], environment) for name in ordered]


def _row(case: Case, cluster: str, kept: list[Sample], dropped: list[Sample], environment: Environment | None) -> Row:
    rates = [sample.per_s for sample in kept]
    interval = bootstrap.of_median(rates)
    faults = _faults(kept, dropped)
    hints = [*faults, *_hints(case, cluster, environment)]
    moves_bytes = case.size_bytes and case.pattern != "pingpong"
    row = Row(
        case=case,
        cluster=cluster,
        samples_kept=len(kept),
        samples_dropped=len(dropped),
        median_per_s=interval.middle,
        p10_per_s=quantile(rates, 0.1),
        p90_per_s=quantile(rates, 0.9),
        low_per_s=interval.low,
        high_per_s=interval.high,
        slowest_pair_per_s=_slowest_pair(case, kept),
        spread_ratio=max(rates) / min(rates),
        bytes_per_s=interval.middle * case.size_bytes if moves_bytes else None,
        stable=not faults,
        advice="; ".join(hints),
    )
    return msgspec.structs.replace(row, **_latency(kept), **_costs(kept))


def _slowest_pair(case: Case, kept: list[Sample]) -> float | None:
    """The slowest pair's rate, in the middle of the samples; every pair moves the same number of messages."""
    if case.pairs < 2:
        return None
    rates = [
        sample.messages / len(sample.pair_durations_ns) * 1e9 / max(sample.pair_durations_ns)
        for sample in kept
        if sample.pair_durations_ns and min(sample.pair_durations_ns) > 0
    ]
    return statistics.median(rates) if rates else None


def _latency(kept: list[Sample]) -> dict[str, int | None]:
    histogram = merged(kept)
    count = sum(histogram.values())
    if not count:
        return {}
    maxima = [sample.max_ns for sample in kept if sample.max_ns is not None]
    max_ns = max(maxima) if maxima else None
    told = {name: q for name, q in PERCENTILES.items() if count * (100 - q) >= 100 * (1 - 1e-9) or q <= 50}
    return {name: percentile(histogram, q, max_ns) for name, q in told.items()} | {"max_ns": max_ns}


# --- costs -----------------------------------------------------------------------------------------------------------


def _costs(kept: list[Sample]) -> dict[str, float | str | None]:
    calls = _per_message(kept, lambda side: side.system_calls)
    reasons = [side.system_calls_reason for sample in kept for side in sample.sides if side.system_calls_reason]
    missing = "the driver did not count them" if calls is None else ""
    return {
        "cpu_ns_per_message": _per_message(kept, lambda side: side.cpu_ns),
        "voluntary_switches_per_message": _per_message(kept, lambda side: side.voluntary_switches),
        "involuntary_switches_per_message": _per_message(kept, lambda side: side.involuntary_switches),
        "system_calls_per_message": calls,
        "system_calls_reason": reasons[0] if reasons else missing,
        "wakes_per_message": _per_message(kept, lambda side: side.wakes),
    }


def _with_trace(row: Row, trace: TracedCalls | None) -> Row:
    """The row with the calls that were traced, where its driver counted none."""
    if trace is None or row.system_calls_per_message is not None or not row.samples_kept or row.failure:
        return row
    return msgspec.structs.replace(row, system_calls_per_message=trace.per_message, system_calls_reason=trace.reason)


def _per_message(kept: list[Sample], cost: Callable[[SideCost], int | None]) -> float | None:
    """What all sides together spent on a message, in the middle of the samples; None when one side does not tell."""
    shares = []
    for sample in kept:
        known = [value for side in sample.sides if (value := cost(side)) is not None]
        if not sample.sides or len(known) != len(sample.sides) or not sample.messages:
            return None
        shares.append(sum(known) / sample.messages)
    return statistics.median(shares)


def waited_share(cases: Sequence[Case], samples: Iterable[Sample]) -> float | None:
    """How much of their time the processes were ready to run and had no CPU, in the middle of the kept samples.

    Only of those that had a CPU each and are driven by one thread each: there it is other work that had it. None when
    nothing tells.
    """
    lone = {case.key for case in cases if case.driver == "native" and len(set(case.cpus)) == len(case.cpus) > 0}
    shares = []
    for sample in samples:
        delays = [side.run_delay_ns for side in sample.sides if side.run_delay_ns is not None]
        if sample.kept and sample.case_key in lone and delays and sample.duration_ns:
            shares.append(min(1.0, sum(delays) / (len(delays) * sample.duration_ns)))
    return statistics.median(shares) if shares else None


# --- the verdict on itself -------------------------------------------------------------------------------------------


def _faults(kept: list[Sample], dropped: list[Sample]) -> list[str]:
    """What makes a row unstable, each with what to do; the cause before its symptoms, and no more than needed."""
    rates = [sample.per_s for sample in kept]
    if len(kept) < FEW_KEPT:
        total = len(kept) + len(dropped)
        why = f" ({_reasons(dropped)})" if dropped else ""
        return [f"only {len(kept)} of {total} samples kept{why}: {_cure(dropped)}"]
    shortest = min(sample.duration_ns for sample in kept)
    if shortest < SHORTEST_NS:
        return [f"a sample took {shortest / 1e6:.2g} ms: make samples longer (--sample-ms)"]
    mean = statistics.fmean(rates)
    # The figure is the row's spread; the same words for every row are said once.
    if statistics.stdev(rates) >= mean * UNSTEADY_SHARE:
        return [f"samples scatter by {UNSTEADY_SHARE:.0%} of their mean or more: {_calm(dropped)}"]
    if max(rates) >= mean * (1 + OUTLIER_SHARE) or min(rates) <= mean * (1 - OUTLIER_SHARE):
        return [f"one sample lies {OUTLIER_SHARE:.0%} off or more: {_calm(dropped)}"]
    return []


def _hints(case: Case, cluster: str, environment: Environment | None) -> list[str]:
    """What to keep in mind about a row that may be as steady as can be."""
    hints = []
    if cluster == "?":
        hints.append("its placement is not known: do not compare it")
    if case.spins and cluster == "same":
        hints.append("spins, with both sides on one CPU: it shows the scheduler's time slice")
    elif case.spins and environment is not None and (limit := _cpus(environment)) < 2 * case.pairs:
        hints.append(f"spins, with {limit:g} CPUs allowed: each side waits for the other's CPU time")
    return hints


def _cpus(environment: Environment) -> float:
    """How many CPUs' worth of time we may use."""
    allowed = len(environment.cpus_allowed) or environment.cpus_online
    return allowed if environment.cpu_quota is None else min(allowed, environment.cpu_quota)


def _reasons(dropped: list[Sample]) -> str:
    counts = Counter(sample.dropped_reason or "no reason given" for sample in dropped)
    return ", ".join(f"{count} dropped: {reason}" for reason, count in counts.most_common())


def _cure(dropped: list[Sample]) -> str:
    """What to do about too few samples."""
    if any("throttl" in sample.dropped_reason for sample in dropped):
        return "raise the CPU quota (cpu.max) or measure fewer pairs at once"
    return "measure longer (--rounds)" if not dropped else "measure longer (--rounds) on a machine with less to do"


def _calm(dropped: list[Sample]) -> str:
    """What to do about samples that do not agree."""
    if dropped:
        return "stop what else runs here, or name CPUs that are free (--cpus), and take more samples (--rounds)"
    return "stop what else runs here, make samples longer (--sample-ms), or take more (--rounds)"

"""Is B faster than A? Two runs, or two mechanisms within one run.

    two runs       per case: the ratio of the two medians, each with its own scatter     drift between the runs remains
    interleaved    per round: B over A, measured one right after the other; their median  drift cancels

What is compared must be alike in everything but what is compared: another placement, another cluster, other buffers,
another size make a difference larger than most that one looks for. So nothing is compared that differs there, and the
difference is named. What else may matter (kernel, CPU, Python) is noted: it may be the very thing one compares.

A verdict is "faster" or "slower" when the whole interval lies on one side of 1, and "no difference shown" otherwise:
not "equal", which nothing measured can show. Two runs of the same thing, an hour apart, differ by more than either one
scatters in itself, which the interval cannot know; so there the ratio must also be beyond DRIFT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ipclab.bench import bootstrap
from ipclab.bench.statistics import percentile, usable
from ipclab.errors import UsageError
from ipclab.records import Case, ComparedRow, Comparison, Run, Sample

#: By how much the medians of two runs of the same thing may differ: what the bench promises of its own repetition.
DRIFT = 1.10
#: Placements that say how the two CPUs stand to each other, whichever they are.
_RELATIONS = {"cpu", "smt", "llc", "node", "socket"}
#: What of the machine is noted when it is not the same: field -> words.
_SURROUNDINGS = {
    "kernel": "kernel",
    "architecture": "architecture",
    "cpu_model": "CPU",
    "virtual": "virtualisation",
    "governor": "frequency governor",
    "deepest_idle_state": "deepest idle state",
    "smt_active": "SMT",
    "mitigations": "mitigations",
    "numa_balancing": "NUMA balancing",
    "cpu_quota": "CPU quota",
    "python": "Python",
    "c_library": "C library",
}


class Group(NamedTuple):
    """The kept samples of one case in one cluster; none, and why, when the case failed or was refused."""

    case: Case
    cluster: str
    samples: tuple[Sample, ...]
    trouble: str = ""


# --- two runs --------------------------------------------------------------------------------------------------------


def compare_runs(a: Run, b: Run) -> Comparison:
    """Every case of both runs: B against A. What only one of them has is listed, with the reason."""
    found_a, found_b = _groups(a), _groups(b)
    rows: list[ComparedRow] = []
    for what in dict.fromkeys(_what(group.case) for group in (*found_a, *found_b)):
        ours = [group for group in found_a if _what(group.case) == what]
        theirs = [group for group in found_b if _what(group.case) == what]
        rows.extend(_compare_case(ours, theirs, found_a, found_b))
    notes = _surroundings(a, b)
    if a.run_id == b.run_id:
        notes.append("both are the same run")
    elif any(row.ratio is not None for row in rows):
        notes.append(
            f"the runs were not interleaved: differences below {DRIFT - 1:.0%} cannot be told from drift between them; "
            "`ipclab bench compare --interleaved A B` can"
        )
    return Comparison(a=a.run_id, b=b.run_id, rows=tuple(rows), notes=tuple(notes))


def _compare_case(
    ours: list[Group], theirs: list[Group], all_ours: list[Group], all_theirs: list[Group]
) -> Iterator[ComparedRow]:
    """Rows for one case of both runs, or of one of them."""
    left = list(theirs)
    for group in ours:
        if not theirs:
            yield _apart(group, group, f"only A has it: {_nearest(group.case, all_theirs, 'B')}")
            continue
        partner = min(theirs, key=lambda other: _distance(group, other))
        differences = _differences(group, partner)
        if partner in left:
            left.remove(partner)
        trouble = _trouble(group, partner)
        if trouble or differences:
            yield _apart(group, partner, trouble or "; ".join(differences))
        else:
            yield _separate(group, partner)
    for group in left:
        if not ours:
            yield _apart(group, group, f"only B has it: {_nearest(group.case, all_ours, 'A')}")
        else:
            partner = min(ours, key=lambda other: _distance(other, group))
            yield _apart(partner, group, _trouble(partner, group) or "; ".join(_differences(partner, group)))


def _separate(a: Group, b: Group) -> ComparedRow:
    """Two groups of samples that were measured apart from each other."""
    measure = _measure(a.case)
    values_a, values_b = _values(a.samples, a.case), _values(b.samples, b.case)
    if not values_a or not values_b:
        return _apart(a, b, "no latency was measured")
    tops, bottoms = (values_b, values_a) if measure == "rate" else (values_a, values_b)
    return _judged(a, b, bootstrap.of_ratio(tops, bottoms), drift=DRIFT)


def _groups(run: Run) -> list[Group]:
    """What a run measured, case by case and cluster by cluster, in its order."""
    found: list[Group] = []
    for case in run.cases:
        mine = [sample for sample in run.samples if sample.case_key == case.key]
        failed = next((sample for sample in mine if sample.failure), None)
        if failed is not None:
            found.append(Group(case, failed.cluster, (), f"failed: {failed.failure}"))
            continue
        kept = [sample for sample in mine if usable(sample)]
        for cluster in dict.fromkeys(sample.cluster for sample in kept):
            found.append(Group(case, cluster, tuple(sample for sample in kept if sample.cluster == cluster)))
        if mine and not kept:
            found.append(Group(case, "", (), "kept none of its samples"))
    found.extend(Group(refusal.case, "", (), f"refused: {refusal.reason}") for refusal in run.refusals)
    return found


def _what(case: Case) -> tuple[object, ...]:
    """What is measured, as opposed to where and with what room."""
    fan = (case.pairs, case.producers, case.consumers)
    return (case.mechanism, case.driver, case.pattern, case.size_bytes, *fan, case.rate_per_s)


def _differences(a: Group, b: Group) -> list[str]:
    """Why two groups of the same case must not be compared; empty when they may."""
    found: list[str] = []
    if a.trouble or b.trouble:
        return found
    if a.case.placement != b.case.placement:
        found.append(f"placements differ: {a.case.placement} and {b.case.placement}")
    elif a.case.cpus != b.case.cpus and (a.case.placement not in _RELATIONS or "?" in (a.cluster, b.cluster)):
        found.append(f"CPUs differ: {_list(a.case.cpus)} and {_list(b.case.cpus)}")
    if a.cluster != b.cluster:
        found.append(f"placement clusters differ: {a.cluster} and {b.cluster}")
    if a.case.depth != b.case.depth:
        found.append(f"depths differ: {_or_default(a.case.depth)} and {_or_default(b.case.depth)} messages")
    for name in sorted(a.case.buffers.keys() | b.case.buffers.keys()):
        mine, other = a.case.buffers.get(name), b.case.buffers.get(name)
        if mine != other:
            found.append(f"buffers differ: {name} {_or_default(mine)} and {_or_default(other)} bytes")
    return found


def _distance(a: Group, b: Group) -> tuple[bool, int]:
    """How far two groups are from being comparable: first of all there must be something to compare."""
    return bool(_trouble(a, b)), len(_differences(a, b))


def _nearest(case: Case, others: list[Group], name: str) -> str:
    """What the other run has instead of a case."""
    same = [group.case for group in others if group.case.mechanism == case.mechanism]
    if not same:
        return f"{name} did not measure {case.mechanism}"
    near = max(same, key=lambda other: sum(x == y for x, y in zip(_what(case), _what(other), strict=True)))
    names = ("", "driver", "pattern", "size", "pairs", "producers", "consumers", "rate")
    pairs = zip(names, _what(case), _what(near), strict=True)
    return "; ".join(f"{word} differs: {x} here, {y} in {name}" for word, x, y in pairs if x != y)


def _trouble(a: Group, b: Group) -> str:
    return "; ".join(f"{name} {group.trouble}" for name, group in (("A", a), ("B", b)) if group.trouble)


def _surroundings(a: Run, b: Run) -> list[str]:
    """What else differs between the machines, one line each."""
    notes = [_note("ipclab", a.version, b.version)] if a.version != b.version else []
    return notes + [
        _note(words, getattr(a.environment, name), getattr(b.environment, name))
        for name, words in _SURROUNDINGS.items()
        if getattr(a.environment, name) != getattr(b.environment, name)
    ]


def _note(what: str, a: object, b: object) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
        return f"{what} differ: {', '.join(names)}"
    return f"{what} differs: {_shown(a)} and {_shown(b)}"


# --- two mechanisms of one run ---------------------------------------------------------------------------------------


class Contender(NamedTuple):
    """One side of an interleaved comparison: "ring", or "ring:python" for one driver of it."""

    mechanism: str
    driver: str | None

    @classmethod
    def of(cls, text: str) -> Contender:
        """Parse it. Raises UsageError for a driver that there is not."""
        mechanism, colon, driver = text.partition(":")
        if colon and driver not in ("native", "python"):
            raise UsageError(f"{text!r}: there is no driver {driver!r}", hint="native or python")
        return cls(mechanism, driver or None)

    def has(self, case: Case) -> bool:
        """Whether a case is one of this side."""
        return case.mechanism == self.mechanism and self.driver in (None, case.driver)


def contenders(a: str, b: str) -> tuple[Contender, Contender]:
    """Both sides, parsed. Raises UsageError when they are one: to be known before anything is measured."""
    sides = Contender.of(a), Contender.of(b)
    if sides[0] == sides[1]:
        raise UsageError(f"{a} against itself says nothing", hint="name two mechanisms")
    return sides


def compare_interleaved(run: Run, a: str, b: str) -> Comparison:
    """B against A within one run that measured them in turn, by the pairs of samples of one round and one cluster.

    `a` and `b` are names of mechanisms, each with ":native" or ":python" behind it if only that driver is meant; with
    both given so, drivers may differ. Raises UsageError when the run has nothing of one of them.
    """
    sides = contenders(a, b)
    across = None not in (sides[0].driver, sides[1].driver)
    found = _groups(run)
    ours, theirs = ([group for group in found if side.has(group.case)] for side in sides)
    for side, groups in ((a, ours), (b, theirs)):
        if not groups:
            raise UsageError(f"run {run.run_id} has no {side}", hint="name two mechanisms that it measured")
    rows: list[ComparedRow] = []
    for like in dict.fromkeys(_like(group.case, across) for group in (*ours, *theirs)):
        mine = [group for group in ours if _like(group.case, across) == like]
        other = [group for group in theirs if _like(group.case, across) == like]
        rows.extend(_compare_pairs(mine, other))
    notes = (*run.notes, *_room(ours, theirs))
    return Comparison(a=a, b=b, interleaved=True, run_id=run.run_id, rows=tuple(rows), notes=notes)


def _like(case: Case, across_drivers: bool) -> tuple[object, ...]:
    """Everything that has to be the same of two mechanisms; the room each has is its own."""
    driver = "" if across_drivers else case.driver
    fan = (case.pairs, case.producers, case.consumers)
    return (driver, case.pattern, case.size_bytes, case.placement, case.cpus, *fan, case.rate_per_s)


def _compare_pairs(ours: list[Group], theirs: list[Group]) -> Iterator[ComparedRow]:
    if not ours or not theirs:
        for group in (*ours, *theirs):
            name = "A" if ours else "B"
            yield _apart(group, group, f"only {name} was measured with this size, pattern and placement")
        return
    shown = False
    for a in ours:
        for b in theirs:
            if a.cluster == b.cluster and not _trouble(a, b) and (ratios := _by_round(a, b)):
                shown = True
                yield _judged(a, b, bootstrap.of_median(ratios), drift=1.0)
    if not shown:
        a, b = ours[0], theirs[0]
        yield _apart(a, b, _trouble(a, b) or "in no round samples of both were kept in one placement cluster")


def _by_round(a: Group, b: Group) -> list[float]:
    """B over A for every round both have a sample of."""
    ratios = []
    for number in dict.fromkeys(sample.round for sample in a.samples):
        mine = _values([sample for sample in a.samples if sample.round == number], a.case)
        other = _values([sample for sample in b.samples if sample.round == number], b.case)
        for x, y in zip(mine, other, strict=False):
            ratios.append(y / x if _measure(a.case) == "rate" else x / y)
    return ratios


def _room(ours: list[Group], theirs: list[Group]) -> list[str]:
    """With which buffers each was measured: their sizes are part of the result."""
    rooms: dict[str, None] = {}
    for group in (*ours, *theirs):
        case = group.case
        parts = [f"{name} {size} bytes" for name, size in sorted(case.buffers.items())]
        parts += [f"depth {case.depth}"] if case.depth is not None else []
        if parts:
            rooms[f"{case.mechanism} had {', '.join(parts)}"] = None
    return list(rooms)


# --- both ------------------------------------------------------------------------------------------------------------


def _measure(case: Case) -> Literal["rate", "p50 latency"]:
    """What is compared: in the open loop the rate is given, and latency is the result."""
    return "p50 latency" if case.pattern == "openloop" else "rate"


def _values(samples: Sequence[Sample], case: Case) -> list[float]:
    """The figure of each sample that is compared, above 0."""
    if _measure(case) == "rate":
        return [sample.per_s for sample in samples]
    middles = (percentile(sample.histogram or {}, 50, sample.max_ns) for sample in samples)
    return [float(middle) for middle in middles if middle]


def _judged(a: Group, b: Group, interval: bootstrap.Interval, *, drift: float) -> ComparedRow:
    """The verdict on a ratio; `drift` is by how much it must pass 1 whatever the interval says."""
    verdict: Literal["faster", "slower", "no difference shown"] = "no difference shown"
    reason = ""
    if interval.size < bootstrap.FEWEST:
        reason = f"{interval.size} samples are too few for a verdict, {bootstrap.FEWEST} are needed (--rounds)"
    elif interval.low <= 1 <= interval.high:
        reason = "the interval holds 1"
    elif 1 / drift < interval.middle < drift:
        reason = f"within the {drift - 1:.0%} by which two runs of the same thing may differ"
    else:
        verdict = "faster" if interval.low > 1 else "slower"
    return ComparedRow(
        a=a.case,
        b=b.case,
        cluster=a.cluster,
        measure=_measure(a.case),
        ratio=interval.middle,
        low=interval.low,
        high=interval.high,
        pairs=interval.size,
        verdict=verdict,
        reason=reason,
    )


def _apart(a: Group, b: Group, reason: str) -> ComparedRow:
    cluster = a.cluster if a.cluster == b.cluster else ""
    return ComparedRow(a=a.case, b=b.case, cluster=cluster, measure=_measure(a.case), reason=reason)


def _list(cpus: tuple[int, ...]) -> str:
    return ",".join(map(str, cpus)) or "any"


def _or_default(value: int | None) -> str:
    return "the default" if value is None else str(value)


def _shown(value: object) -> str:
    return "not told" if value is None else str(value) or "none"

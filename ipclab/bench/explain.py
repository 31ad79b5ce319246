"""Why the table is as it is: three sentences, made of the counts in it.

    1   who is fastest at each size, by how much, and which counts it has fewer of than the next
    2   who is slowest, and what it pays for a message
    3   what the turn of the other side costs (ping-pong), or what being fast costs in CPU time

Only what was measured is said, and only of rows of one pattern, driver, placement and cluster, since others are not
comparable. A count that a row has not got is left out, or named as not counted with the row's reason. Counts stand
beside speed; where no count of the faster is smaller, the sentence says so instead of finding a cause.

Copies are the one figure that is not counted: how often a mechanism copies a message follows from how it works. They
are declared below, from the buffer in which the sender has made it to the one in which the receiver verifies it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from ipclab.records import Case, Row

#: How often a message is copied, by mechanism. None stands for "not known": libraries have buffers of their own.
COPIES = {
    # write(2) or its like copies into the kernel's memory, read(2) out of it.
    "pipe": 2,
    "fifo": 2,
    "posix-mq": 2,
    "sysv-mq": 2,
    "unix-stream": 2,
    "unix-datagram": 2,
    "unix-seqpacket": 2,
    "tcp": 2,
    "udp": 2,
    # The memfd is written by the one and read by the other.
    "fd-passing": 2,
    # The receiver has the kernel copy straight out of the sender's memory.
    "process-vm": 1,
    # Into the segment, and out of it.
    "posix-shm": 2,
    "sysv-shm": 2,
    "memfd": 2,
    "mmap-file": 2,
    "ring": 2,
}
#: By mechanism and driver, where the driver matters: the native one builds messages in the pages it splices, while
#: End.send has to copy the caller's into pages of its own.
COPIES_BY_DRIVER = {("vmsplice", "native"): 1, ("vmsplice", "python"): 2}

#: A count is smaller when it is so by this share, and by this much: below, it is scatter.
_LESS_SHARE, _LESS = 0.8, 0.02
#: From this size on copying costs more than calling: memcpy(3) moves about 50 bytes in a nanosecond, a system call
#: takes some hundred.
_LARGE_BYTES = 16384


def copies(case: Case) -> int | None:
    """How often a message of that case is copied; None: it is not known, or there is no message."""
    if case.size_bytes == 0:
        return None
    return COPIES_BY_DRIVER.get((case.mechanism, case.driver), COPIES.get(case.mechanism))


def sentences(rows: Iterable[Row]) -> tuple[str, ...]:
    """Three sentences about the rows; none when no row has a figure."""
    usable = [row for row in rows if row.median_per_s and not row.failure and not row.refusal]
    if not usable:
        return ()
    scope = _scope(usable, ("throughput", "pingpong", "openloop"))
    return (_fastest(scope), _slowest(scope), _third(usable, scope))


# --- which rows ------------------------------------------------------------------------------------------------------


def _scope(rows: list[Row], patterns: Sequence[str]) -> list[Row]:
    """The largest set of comparable rows of the first pattern that there is; of native ones, where several can be
    compared: what a mechanism costs is to be explained, not what Python adds."""
    for pattern in patterns:
        counts = Counter(_setting(row) for row in rows if row.case.pattern == pattern)
        if counts:
            best = max(counts, key=lambda setting: (setting[1] == "native" and counts[setting] > 1, counts[setting]))
            return [row for row in rows if _setting(row) == best]
    return []


def _setting(row: Row) -> tuple[object, ...]:
    case = row.case
    fan = (case.pairs, case.producers, case.consumers, case.rate_per_s)
    return (case.pattern, case.driver, case.placement, case.cpus, row.cluster, *fan)


def _by_size(rows: list[Row]) -> list[tuple[int, list[Row]]]:
    """Size -> rows of that size, best first."""
    ordered = sorted(rows, key=lambda row: (row.case.size_bytes, _rank(row)))
    return [(size, list(same)) for size, same in groupby(ordered, key=lambda row: row.case.size_bytes)]


def _rank(row: Row) -> float:
    """Less is better: in the open loop the rate is given, and latency is what differs."""
    if row.case.pattern == "openloop":
        return row.p50_ns if row.p50_ns is not None else float("inf")
    return -(row.median_per_s or 0.0)


def _name(row: Row) -> str:
    return row.case.mechanism


# --- the sentences ---------------------------------------------------------------------------------------------------


def _fastest(scope: list[Row]) -> str:
    """The first sentence: who wins where, and why."""
    parts = []
    for winner, group in groupby(_by_size(scope), key=lambda entry: _name(entry[1][0])):
        sizes = [(size, ranked) for size, ranked in group]
        ranked = sizes[0][1]  # of several sizes with one winner the figures of the smallest are told
        text = f"{_sizes([size for size, _ranked in sizes])} {winner} is fastest ({_figure(ranked[0])}"
        if len(ranked) == 1:
            parts.append(f"{text}, and alone)")
            continue
        parts.append(f"{text}, {_lead(ranked[0], ranked[1])}){_why(ranked[0], ranked[1])}")
    return f"{_heading(scope[0])}, {'; '.join(parts)}."


def _lead(first: Row, second: Row) -> str:
    """By how much, and whether that is more than scatter."""
    if first.case.pattern == "openloop":
        return f"before {_name(second)}"
    ratio = (first.median_per_s or 0.0) / (second.median_per_s or 1.0)
    overlap = None not in (first.low_per_s, second.high_per_s) and (first.low_per_s or 0) <= (second.high_per_s or 0)
    shaky = "" if first.stable and second.stable else ", as far as unstable rows tell"
    return (f"not told apart from {_name(second)}" if overlap else f"{_times(ratio)} {_name(second)}") + shaky


def _why(first: Row, second: Row) -> str:
    """Which counts the faster one has fewer of; those that matter most at that size first."""
    found = []
    unknown = []
    for count in _ordered(first.case.size_bytes):
        mine, other = count.of(first), count.of(second)
        if mine is None or other is None:
            if count.name == "system calls":
                row = first if mine is None else second
                unknown.append(f"system calls of {_name(row)} were not counted{_because(row)}")
        elif mine <= other * _LESS_SHARE and other - mine >= _LESS:
            found.append(f"{_number(mine)} against {_number(other)} {count.name}")
    reason = f": {', '.join(found)} a message" if found else ", though no count of its own is smaller"
    return reason + (f" ({unknown[0]})" if unknown else "")


def _slowest(scope: list[Row]) -> str:
    """The second sentence: who loses where, and what it pays."""
    sizes = _by_size(scope)
    if all(len(ranked) == 1 for _size, ranked in sizes):
        return f"There is nothing here to compare it with; {_pays(sizes[-1][1][0])} at {_size(sizes[-1][0])}."
    parts = []
    several = [(size, ranked) for size, ranked in sizes if len(ranked) > 1]
    for loser, group in groupby(several, key=lambda entry: _name(entry[1][-1])):
        same = list(group)
        row = same[-1][1][-1]
        at = _sizes([size for size, _ranked in same])
        where = f" (at {_size(row.case.size_bytes)})" if len(same) > 1 else ""
        parts.append(f"{at} {loser} is slowest ({_figure(row)}) and {_pays(row, named=False)}{where}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _pays(row: Row, *, named: bool = True) -> str:
    """What a message costs in that row."""
    paid = [_counted(value, count.name) for count in _ordered(row.case.size_bytes) if (value := count.of(row))]
    if row.cpu_ns_per_message is not None:
        paid.append(f"{_time(row.cpu_ns_per_message)} of CPU time")
    if row.system_calls_per_message is None:
        paid.append(f"system calls that were not counted{_because(row)}")
    subject = f"{_name(row)} pays " if named else "pays "
    return subject + (_and(paid) if paid else "what was not counted here") + " a message"


def _third(rows: list[Row], scope: list[Row]) -> str:
    """The third sentence: turns, where they were measured beside throughput; else the price in CPU time."""
    turns = _scope(rows, ("pingpong",)) if scope[0].case.pattern != "pingpong" else []
    # Of the sizes the smallest that carries data: there it is waking that costs, not copying.
    known = [(size, ranked) for size, ranked in _by_size(turns) if len(ranked) > 1]
    if known:
        size, ranked = next((entry for entry in known if entry[0]), known[0])
        first, last = ranked[0], ranked[-1]
        took = f"{_name(first)} takes {_turn(first)} and {_name(last)} {_turn(last)}"
        return f"{_heading(turns[0])}, {_sizes([size])} {took}: {_sleeping(first)}, {_sleeping(last)}."
    size, ranked = _by_size(scope)[0]
    costs = [row for row in ranked if row.cpu_ns_per_message is not None]
    if not costs:
        return "What this costs in CPU time was not measured."
    cheapest = min(costs, key=lambda row: row.cpu_ns_per_message or 0.0)
    price = f"{_time(cheapest.cpu_ns_per_message or 0.0)} a message of both sides' CPU time {_sizes([size])}"
    if cheapest is ranked[0]:
        return f"{_name(cheapest)[0].upper()}{_name(cheapest)[1:]} is also the cheapest: {price}."
    dear = ranked[0].cpu_ns_per_message
    against = f", {_name(ranked[0])} {_time(dear)}" if dear is not None else ""
    return f"Fastest is not cheapest: {_name(cheapest)} takes {price}{against}."


def _sleeping(row: Row) -> str:
    """How often the sides of a row gave their CPU away for a round trip."""
    switches = row.voluntary_switches_per_message
    if switches is None:
        return f"how often {_name(row)} slept was not measured"
    text = f"{_name(row)} slept {_number(switches)} times a round trip"
    return f"{text} and spins meanwhile" if row.case.spins else text


# --- counts ----------------------------------------------------------------------------------------------------------


class _Count(NamedTuple):
    """Something that a message costs, and how to find it in a row."""

    name: str
    of: Callable[[Row], float | None]


def _switches(row: Row) -> float | None:
    parts = (row.voluntary_switches_per_message, row.involuntary_switches_per_message)
    return None if None in parts else sum(part or 0.0 for part in parts)


_COPIES = _Count("copies", lambda row: copies(row.case))
_COUNTS = (
    _Count("system calls", lambda row: row.system_calls_per_message),
    _Count("context switches", _switches),
    _Count("wake-ups", lambda row: row.wakes_per_message),
)


def _ordered(size_bytes: int) -> tuple[_Count, ...]:
    """All counts; copies come first where there is much to copy."""
    return (_COPIES, *_COUNTS) if size_bytes >= _LARGE_BYTES else (*_COUNTS, _COPIES)


def _because(row: Row) -> str:
    return f": {row.system_calls_reason}" if row.system_calls_reason else ""


# --- words -----------------------------------------------------------------------------------------------------------


def _heading(row: Row) -> str:
    """Which pattern and driver: the beginning of a sentence."""
    pattern = {"throughput": "One way", "pingpong": "There and back", "openloop": "On a schedule"}[row.case.pattern]
    return f"{pattern} with the {row.case.driver} driver"


def _figure(row: Row) -> str:
    if row.case.pattern == "openloop":
        return _turn(row)
    unit = "round trips" if row.case.pattern == "pingpong" else "messages"
    return f"{_scaled(row.median_per_s or 0.0)}{unit}/s"


def _turn(row: Row) -> str:
    """A row's middle latency; of a ping-pong without a histogram the mean that follows from its rate."""
    if row.p50_ns is not None:
        return _time(row.p50_ns)
    return "an unknown time" if row.case.pattern == "openloop" else _time(1e9 / (row.median_per_s or 1.0))


def _scaled(number: float) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {letter} "
    return f"{number:.3g} "


def _time(ns: float) -> str:
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns:.3g} ns"


def _size(size_bytes: int) -> str:
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B" if size_bytes else "no data"


def _sizes(sizes: list[int]) -> str:
    """ "at 64 B and 1 KiB"; "without data"."""
    if sizes == [0]:
        return "without data"
    return f"at {_and([_size(size) for size in sizes])}"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"


def _counted(value: float, name: str) -> str:
    """ "2 copies", "1 copy"."""
    return "1 copy" if name == "copies" and value == 1 else f"{_number(value)} {name}"


def _number(value: float) -> str:
    """A count a message: as many digits as tell something."""
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"

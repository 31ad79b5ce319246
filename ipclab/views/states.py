"""A recording as text: who was in which state for how long, what was waited for, and how complete all of it is."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence

from ipclab.records import Completeness, Interval, Recording, Tracked
from ipclab.views.digest import Digest, label
from ipclab.views.gantt import label_width, longest_lives, picture, shorten
from ipclab.views.medium import Medium, wrap
from ipclab.views.units import span

#: Why a source tells nothing that the user did not want: no news.
_UNWANTED = "not asked for"
#: Columns of the table: key of `Tracked.time_ns` -> heading. A column that is empty in every row is left out.
_COLUMNS = {
    "running": "running",
    "runnable": "runnable",
    "R": "R",
    "S": "S",
    "D": "D",
    "T": "T",
    "t": "t",
    "Z": "Z",
    "X": "X",
    "I": "I",
    "P": "P",
}


def states_report(head: Recording, intervals: Iterable[Interval], medium: Medium, *, hidden: Sequence[str] = ()) -> str:
    """Everything: the picture, the table, completeness. Threads whose name begins with one of `hidden` have no row."""
    threads = [one for one in head.threads if not one.name.startswith(tuple(hidden))]
    digest = Digest(threads, intervals, head.start_ns, head.end_ns, medium.columns - label_width(threads) - 1)
    return "\n".join([picture(digest, medium), summary(digest, medium), completeness_text(head, medium)])


def summary(digest: Digest, medium: Medium) -> str:
    """One line per thread: its life, the share of each state, its switches, its end; below it what it waited for."""
    threads = digest.threads
    shown, left_out = longest_lives(threads)
    keys = [key for key in _COLUMNS if any(threads[i].time_ns.get(key) for i in shown)]
    heads = ["process", "life", *[_COLUMNS[key] for key in keys], "switches", "end"]
    rows = [_row(threads[i], keys) for i in shown]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [medium.paint(_aligned(heads, widths), "head")]
    for index, row in zip(shown, rows, strict=True):
        lines.append(_aligned(row, widths))
        lines += _below(digest, index, medium)
    if left_out:
        lines.append(f"... and {left_out} more, with shorter lives")
    return "\n".join([*lines, ""])


def completeness_text(head: Recording, medium: Medium) -> str:
    """What told, how much of the truth it told, and what a reader has to know."""
    lines = wrap(completeness_line(head.completeness), medium, medium.paint("complete: ", "head"), "  ")
    used = [standing.source for standing in head.sources if standing.used]
    rate = "" if head.reached_hz is None else f", {head.reached_hz:.0f} looks a second"
    cost = "" if head.own_cpu_share is None else f", {head.own_cpu_share:.1%} of a CPU"
    lines += wrap(f"{', '.join(used) or 'none'}{rate}{cost}", medium, "source: ", "  ")
    for standing in head.sources:
        if standing.reason and standing.reason != _UNWANTED:
            lines += wrap(standing.reason, medium, f"not {standing.source}: ", "  ")
    lines += _unreadable(head.threads, medium)
    if head.completeness.disagreement:
        lines += wrap(head.completeness.disagreement, medium, medium.paint("wrong: ", "bad"), "  ")
    for note in head.notes:
        lines += wrap(note, medium, medium.paint("note: ", "warn"), "  ")
    return "\n".join([*lines, ""])


def completeness_line(told: Completeness) -> str:
    """How much of the truth is in the record, in one line."""
    share = "no switch was counted" if told.share is None else f"{_percent(told.share)} of the switches"
    parts = [f"{share} ({told.switches_seen} seen, {told.switches_counted} counted by the kernel)"]
    parts.append(f"{told.events_lost} events lost")
    uncovered = f"{span(told.uncovered_ns)} of {span(told.lives_ns)} not covered"
    parts.append(uncovered if told.uncovered_ns else "no time uncovered")
    if told.assumed_ns:
        parts.append(f"{span(told.assumed_ns)} asleep too shortly to be looked at, taken for S")
    if told.unseen_processes:
        parts.append(f"{_count(told.unseen_processes, 'process', 'processes')} lived and died unseen")
    if told.uncounted_threads:
        parts.append(f"{_count(told.uncounted_threads, 'thread', 'threads')} ended before a counter could be read")
    return ", ".join(parts)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _row(thread: Tracked, keys: Sequence[str]) -> list[str]:
    life_ns = max(1, thread.last_ns - thread.first_ns)
    counted = "-" if thread.switches_counted is None else f"{thread.switches_counted}"
    shares = [_percent(thread.time_ns[key] / life_ns) if thread.time_ns.get(key) else "" for key in keys]
    return [shorten(label(thread), 30), span(life_ns), *shares, f"{thread.switches_seen}/{counted}", _end(thread)]


def _end(thread: Tracked) -> str:
    if not thread.gone:
        return "lives on"
    if thread.signal is not None:
        return _signal_name(thread.signal)
    return "gone" if thread.exit_code is None else f"exit {thread.exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _below(digest: Digest, index: int, medium: Medium) -> list[str]:
    """What it slept in."""
    places = []
    for call, function, ns in digest.waits(index)[:3]:
        where = f"{call or '-'} ({function})" if function else call
        places.append(f"{where} {span(ns)}")
    return wrap("slept in " + "; ".join(places), medium, "    ", "      ") if places else []


def _unreadable(threads: Sequence[Tracked], medium: Medium) -> list[str]:
    """What could not be read, each reason once."""
    of: dict[tuple[str, str], int] = {}
    for thread in threads:
        for what, why in thread.unreadable.items():
            of[what, why] = of.get((what, why), 0) + 1
    lines = []
    for (what, why), count in of.items():
        whose = "all" if count == len(threads) else f"{count} of {len(threads)}"
        lines += wrap(f"- for {whose}: {why}", medium, f"{what}: ", "  ")
    return lines


def _percent(share: float) -> str:
    """Never "100 %" or "0 %" of what is not all or nothing.

    >>> _percent(0.9999), _percent(1.0), _percent(0.00001)
    ('>99.9%', '100%', '<0.1%')
    """
    if share >= 1:
        return "100%"
    if share > 0.999:
        return ">99.9%"
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *middle, last = cells
    inner = "  ".join(f"{cell:>{width}}" for cell, width in zip(middle, widths[1:-1], strict=True))
    return f"{first:<{widths[0]}}  {inner}  {last}".rstrip()

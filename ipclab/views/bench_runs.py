"""What stands beside one run: two of them compared, all of them in a list, and the bar while one is going on."""

from __future__ import annotations

from collections.abc import Sequence

from ipclab.records import Case, ComparedRow, Comparison, CoursePoint, History
from ipclab.views.medium import Medium, wrap
from ipclab.views.units import rate, size

_VERDICTS = {"faster": "good", "slower": "bad", "no difference shown": "faint", "not comparable": "warn"}


def comparison_table(found: Comparison, medium: Medium) -> str:
    """One line for each case: B against A, the interval, the verdict; below it why."""
    lines = [medium.paint(f"A: {found.a}", "head"), medium.paint(f"B: {found.b}", "head")]
    lines += [f"run {found.run_id}"] if found.run_id else []
    lines += wrap("Above 1 B is faster; in brackets the 95 % interval.", medium, "", "")
    names = [_name(row, interleaved=found.interleaved) for row in found.rows]
    if len({row.cluster for row in found.rows if row.cluster}) > 1:
        names = [f"{name}, {row.cluster or '?'}" for name, row in zip(names, found.rows, strict=True)]
    width = max(map(len, names), default=0)
    for row, name in zip(found.rows, names, strict=True):
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} [{_bound(row.low)}, {_bound(row.high)}]"
        verdict = medium.paint(row.verdict, _VERDICTS[row.verdict])
        of = f" ({row.measure})" if row.measure != "rate" else ""
        lines.append(f"  {name:<{width}}  {ratio:<20}  {verdict}{of}".rstrip())
        if row.reason:
            lines += wrap(row.reason, medium, "      ", "      ")
    lines += [] if found.rows else ["  nothing to compare"]
    for note in found.notes:
        lines += wrap(note, medium, medium.paint("note", "warn") + ": ", "      ")
    return "\n".join([*lines, ""])


def history_table(found: History, medium: Medium) -> str:
    """One line for each run; with a mechanism its course over time instead."""
    if found.mechanism:
        return _course(found.course, found.mechanism, medium)
    if not found.runs:
        return f"no runs in {found.database}: `ipclab bench run` stores one\n"
    lines = []
    for run in found.runs:
        troubles = [
            f"{number} {word}" for number, word in ((run.unstable, "unstable"), (run.failed, "failed")) if number
        ]
        words = [f"{run.rows} rows", f"{run.samples_kept} samples kept, {run.samples_dropped} dropped", *troubles]
        text = ", ".join([*words, *(["ended early"] if run.interrupted else []), run.command])
        lines += wrap(text, medium, f"{medium.paint(run.run_id, 'head')}  ", "    ")
    return "\n".join([*lines, f"{len(found.runs)} in {found.database}", ""])


def left(seconds: float | None) -> str:
    """The time left, as the bar shows it.

    >>> left(None), left(7.2), left(125)
    ('', '7 s left', '2 min 05 s left')
    """
    if seconds is None:
        return ""
    whole = round(seconds)
    return f"{whole} s left" if whole < 60 else f"{whole // 60} min {whole % 60:02} s left"


def _course(points: Sequence[CoursePoint], mechanism: str, medium: Medium) -> str:
    lines: list[str] = []
    before = ""
    for point in points:
        title = f"{_case(point.row.case)}, placement {point.row.case.placement}, cluster {point.row.cluster or '?'}"
        if title != before:
            lines += [*([""] if lines else []), medium.paint(title, "head")]
            before = title
        change = "" if point.change is None else f"{point.change:.2f}x of the first"
        figure = (
            "failed"
            if point.row.failure
            else "refused"
            if point.row.refusal
            else rate(point.row.median_per_s, "trips" if point.row.case.pattern == "pingpong" else "msg")
        )
        marks = [
            change,
            *(["unstable"] if not point.row.stable else []),
            *(["kernel, CPU or version changed"] if point.surroundings_changed else []),
        ]
        text = ", ".join(mark for mark in marks if mark)
        lines += wrap(text, medium, f"  {point.started_at}  {point.run_id}  {figure:>14}  ", "      ")
    return "\n".join([*lines, ""]) if lines else f"no figures of {mechanism}\n"


def _name(row: ComparedRow, *, interleaved: bool) -> str:
    """The case; of two mechanisms what both have in common."""
    if interleaved and row.a.driver == row.b.driver:
        return " ".join([row.a.driver, row.a.pattern, size(row.a.size_bytes)])
    return " ".join([row.a.pattern, size(row.a.size_bytes)]) if interleaved else _case(row.a)


def _case(case: Case) -> str:
    words = [case.mechanism, case.driver, case.pattern, *([size(case.size_bytes)] if case.size_bytes else [])]
    if case.pairs > 1:
        words.append(f"{case.pairs} pairs")
    if (case.producers, case.consumers) != (1, 1):
        words.append(f"{case.producers} to {case.consumers}")
    return " ".join(words)


def _bound(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"

"""A bench run as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ipclab.records import Case, Placement, Row, Run
from ipclab.views.medium import Medium, wrap
from ipclab.views.units import bandwidth, count, rate, size, span

_PATTERNS = {"throughput": "one way", "pingpong": "there and back", "openloop": "on a schedule"}


class _Column(NamedTuple):
    """One column of the table: its heading and what it shows of a row."""

    head: str
    of: Callable[[Row], str]


def bench_table(run: Run, medium: Medium) -> str:
    """The whole run for a person: a table for each size, what could not be measured, why it is so, what to mind."""
    lines: list[str] = []
    for section in sections(run.rows):
        lines += [*_section(section, run.placements, medium), ""]
    if how := traced_calls(run):
        lines += [*wrap(how, medium, "~ calls: ", "  "), ""]
    lines += _refused(run.rows, medium)
    for sentence in run.explanation:
        lines += wrap(sentence, medium, "", "")
    lines += [""] if run.explanation else []
    for note in run.notes:
        lines += wrap(note, medium, medium.paint("note", "warn") + ": ", "      ")
    return "\n".join([*lines, *wrap(_summary(run), medium, "", "  "), ""])


def sections(rows: Sequence[Row]) -> list[list[Row]]:
    """Measured and failed rows that may be held against each other, best first; failed ones last."""
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if not row.refusal:
            found.setdefault(_like(row), []).append(row)
    # A failed case may lie in no cluster: it is shown with the others of its kind.
    for key in [key for key in found if not key[-1]]:
        near = next((other for other in found if other[:-1] == key[:-1] and other[-1]), None)
        if near is not None:
            found[near] += found.pop(key)
    return [sorted(found[key], key=_rank) for key in sorted(found, key=lambda key: (_order(found[key][0]), str(key)))]


# --- one section -----------------------------------------------------------------------------------------------------


def _section(rows: Sequence[Row], placements: Sequence[Placement], medium: Medium) -> list[str]:
    columns = columns_of(rows[0].case)
    cells = [[column.head for column in columns], *[[column.of(row) for column in columns] for row in rows]]
    measured = [line for line, row in zip(cells[1:], rows, strict=True) if not row.failure]
    widths = [max(map(len, column)) for column in zip(cells[0], *measured, strict=True)]
    for index in (0, 1):
        widths[index] = max(len(line[index]) for line in cells)
    while len(widths) > 4 and sum(widths) + 2 * len(widths) > medium.columns:
        widths.pop()  # what is left out is in the record, and in markdown
    head = wrap(title(rows[0]) + _where(rows[0], placements), medium, "", "  ")
    lines = [*[medium.paint(line, "head") for line in head], medium.paint(_line(cells[0], widths), "faint")]
    for row, texts in zip(rows, cells[1:], strict=True):
        if row.failure:
            start = "  ".join(text.ljust(width) for text, width in zip(texts[:2], widths[:2], strict=True))
            lines += wrap(row.failure, medium, f"  {start}  {medium.paint('FAILED', 'bad')}: ", "      ")
            continue
        lines.append(_line(texts, widths))
    return [*lines, *_below(rows, medium)]


def _below(rows: Sequence[Row], medium: Medium) -> list[str]:
    lines = []
    for style, word, text in remarks_below([row for row in rows if not row.failure]):
        lines += wrap(text, medium, f"    {medium.paint(word, style)}: ", "      ")
    return lines


def remarks_below(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """What is to be said of rows, once for all of whom it is said: style, word, and the text with their names."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        for style, text in remarks_of(row):
            word, _colon, why = text.partition(": ")
            found.setdefault((style, word, why), []).append(row)
        if row.system_calls_reason and row.system_calls_per_message is None and not row.failure:
            found.setdefault(("faint", "calls n/a", row.system_calls_reason), []).append(row)
    return [(style, word, f"{why} ({_who(some, rows)})") for (style, word, why), some in found.items()]


def _who(some: Sequence[Row], rows: Sequence[Row]) -> str:
    """The names of some rows; "all", "all python" where that is what they are."""
    if len(some) == len(rows) > 1:
        return "all"
    drivers = {row.case.driver for row in some}
    if len(some) == sum(row.case.driver in drivers for row in rows) > 1 and len(drivers) == 1:
        return f"all {drivers.pop()}"
    return ", ".join(f"{row.case.mechanism} {row.case.driver}" for row in some)


def _calls(row: Row) -> str:
    """System calls a message; with a ~ where they were not counted in the samples themselves."""
    traced = row.system_calls_reason and row.system_calls_per_message is not None
    return ("~" if traced else "") + count(row.system_calls_per_message)


def traced_calls(run: Run) -> str:
    """How the figures with a ~ were got; "" when there are none."""
    return next((row.system_calls_reason for row in run.rows if _calls(row).startswith("~")), "")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, figures to the right."""
    shown = [
        cell.ljust(width) if index < 2 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=False))
    ]
    return f"  {'  '.join(shown)}".rstrip()


def columns_of(case: Case) -> list[_Column]:
    """What is shown of a pattern, most important first: a narrow terminal leaves out the last ones."""
    names = [
        _Column("mechanism", lambda row: row.case.mechanism + ("" if row.stable else " !")),
        _Column("driver", lambda row: row.case.driver),
    ]
    spread = _Column("spread", lambda row: "" if row.spread_ratio is None else f"{row.spread_ratio:.2f}x")
    costs = [
        _Column("CPU", lambda row: span(row.cpu_ns_per_message)),
        _Column("calls", _calls),
        _Column("switches", lambda row: count(_switches(row))),
        _Column("wake-ups", lambda row: count(row.wakes_per_message)),
    ]
    slowest = [_Column("slowest pair", lambda row: rate(row.slowest_pair_per_s))] if case.pairs > 1 else []
    if case.pattern == "throughput":
        speed = [
            _Column("rate", lambda row: rate(row.median_per_s)),
            _Column("bytes", lambda row: bandwidth(row.bytes_per_s)),
        ]
        return [*names, *speed, *slowest, spread, *costs]
    turns = [
        _Column("p50", lambda row: span(row.p50_ns)),
        _Column("p99", lambda row: span(row.p99_ns)),
        _Column("p99.9", lambda row: span(row.p999_ns)),
        _Column("max", lambda row: span(row.max_ns)),
    ]
    p90 = _Column("p90", lambda row: span(row.p90_ns))
    trips = [_Column("rate", lambda row: rate(row.median_per_s, "" if case.pattern == "openloop" else "trips"))]
    return [*names, turns[0], p90, *turns[1:], spread, *slowest, *trips, *costs]


def remarks_of(row: Row) -> list[tuple[str, str]]:
    """What stands below a row: style and text."""
    if row.failure:
        return [("bad", f"FAILED: {row.failure}")]
    if not row.stable:
        return [("warn", f"! unstable: {row.advice or 'measure again when the machine is quiet'}")]
    return [("faint", f"mind: {row.advice}")] if row.advice else []


def _refused(rows: Sequence[Row], medium: Medium) -> list[str]:
    if not any(row.refusal for row in rows):
        return []
    lines = [medium.paint("Not measured", "head")]
    for text in not_measured(rows):
        lines += wrap(text, medium, "  ", "      ")
    return [*lines, ""]


def not_measured(rows: Sequence[Row]) -> list[str]:
    """A sentence for each mechanism and reason, whatever number of rows it is about."""
    found: dict[tuple[str, str], list[Case]] = {}
    for row in rows:
        if row.refusal:
            reason = row.refusal.removeprefix(f"{row.case.mechanism}: ")
            found.setdefault((row.case.mechanism, reason), []).append(row.case)
    texts = []
    for (mechanism, reason), cases in found.items():
        drivers = "/".join(dict.fromkeys(case.driver for case in cases))
        patterns = "/".join(dict.fromkeys(case.pattern for case in cases))
        sizes = "/".join(dict.fromkeys(size(case.size_bytes) for case in cases if case.size_bytes))
        texts.append(f"{' '.join(word for word in (mechanism, drivers, patterns, sizes) if word)}: {reason}")
    return texts


def _summary(run: Run) -> str:
    kept = sum(sample.kept for sample in run.samples)
    text = f"run {run.run_id}: {kept} samples kept, {len(run.samples) - kept} dropped, {run.duration_ns / 1e9:.0f} s"
    return f"{text}; {overheads(run)}"


def overheads(run: Run) -> str:
    found = run.overheads
    parts = []
    if found.verification_ns_per_message:
        told = ", ".join(f"{size(k)} {span(v)}" for k, v in sorted(found.verification_ns_per_message.items()))
        parts.append(f"verifying a message takes {told}")
    if found.python_loop_ns is not None:
        parts.append(f"the python driver's loop {span(found.python_loop_ns)} a message")
    return ", ".join(parts) or "the harness's own cost was not measured"


# --- order and titles ------------------------------------------------------------------------------------------------


def _like(row: Row) -> tuple[object, ...]:
    case = row.case
    fan = (case.pairs, case.producers, case.consumers, case.rate_per_s)
    return (case.pattern, case.size_bytes, case.placement, case.cpus, *fan, row.cluster)


def _order(row: Row) -> tuple[object, ...]:
    return (list(_PATTERNS).index(row.case.pattern), row.case.size_bytes, row.case.pairs, row.case.placement)


def _rank(row: Row) -> tuple[bool, float, str]:
    """Best first; of an open loop, whose rate is given, the shortest latency."""
    best = row.p50_ns or 0 if row.case.pattern == "openloop" else -(row.median_per_s or 0)
    return bool(row.failure), best, row.case.mechanism


def title(row: Row) -> str:
    case = row.case
    words = [size(case.size_bytes), _PATTERNS[case.pattern]]
    if case.rate_per_s is not None:
        words.append(f"{case.rate_per_s:g} a second")
    if case.pairs > 1:
        words.append(f"{case.pairs} pairs")
    if (case.producers, case.consumers) != (1, 1):
        words.append(f"{case.producers} to {case.consumers}")
    words.append(f"placement {case.placement}")
    return ", ".join([*words, *([f"cluster {row.cluster}"] if row.cluster not in ("", "?") else [])])


def _where(row: Row, placements: Sequence[Placement]) -> str:
    for place in placements:
        if (place.name, place.cpus) == (row.case.placement, row.case.cpus):
            return f" ({place.description})"
    return ""


def _switches(row: Row) -> float | None:
    own, forced = row.voluntary_switches_per_message, row.involuntary_switches_per_message
    return None if own is None or forced is None else own + forced

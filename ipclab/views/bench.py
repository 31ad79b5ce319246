"""A bench run as a table: for a terminal, for a design review (markdown), for a spreadsheet (csv)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ipclab.records import Case, Placement, Row, Run
from ipclab.views.medium import Medium, plain, wrap

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
    lines += _refused(run.rows, medium)
    for sentence in run.explanation:
        lines += wrap(sentence, medium, "", "")
    lines += [""] if run.explanation else []
    for note in run.notes:
        lines += wrap(note, medium, medium.paint("note", "warn") + ": ", "      ")
    return "\n".join([*lines, *wrap(_summary(run), medium, "", "  "), ""])


def bench_markdown(run: Run) -> str:
    """A text that stands alone: tables, reasons, and everything one has to know to measure the same again."""
    lines = ["# IPC bench", ""]
    for section in sections(run.rows):
        columns = _columns(section[0].case)
        lines += [f"## {_title(section[0])}", "", _piped([column.head for column in columns])]
        lines.append(_piped(["---", "---", *["---:"] * (len(columns) - 2)]))
        remarks = []
        for row in section:
            cells = [column.of(row) for column in columns]
            lines.append(_piped([*cells[:2], "failed", *[""] * (len(cells) - 3)] if row.failure else cells))
            remarks += [f"- {row.case.mechanism} ({row.case.driver}): {text}" for _style, text in _remarks(row)]
        lines += ["", *remarks, *([""] if remarks else [])]
    refused = [row for row in run.rows if row.refusal]
    if refused:
        lines += ["## Not measured", "", *[f"- {_who(row.case)}: {row.refusal}" for row in refused], ""]
    if run.explanation:
        lines += ["## Why", "", " ".join(run.explanation), ""]
    lines += ["## How it was measured", "", *[f"- {name}: {value}" for name, value in colophon(run)]]
    return "\n".join([*lines, *[f"- note: {note}" for note in run.notes], ""])


def bench_csv(run: Run) -> str:
    """One line for each row of the table, plain numbers with their units in the headings; empty where there is none."""
    place = ("mechanism", "driver", "pattern", "size_bytes", "placement")
    fans = ("pairs", "producers", "consumers", "rate_per_s", "depth")
    figures = [name for name in Row.__struct_fields__ if name != "case"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run_id", *place, "cpus", *fans, "buffers", *figures])
    for row in run.rows:
        case = row.case
        writer.writerow(
            [
                run.run_id,
                *[getattr(case, name) for name in place],
                " ".join(map(str, case.cpus)),
                *[getattr(case, name) for name in fans],
                _buffers(case),
                *[getattr(row, name) for name in figures],
            ]
        )
    return out.getvalue()


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


def colophon(run: Run) -> list[tuple[str, str]]:
    """What has to be known about a run to believe it and to repeat it."""
    here = run.environment
    kept = sum(sample.kept for sample in run.samples)
    dropped: dict[str, int] = {}
    for sample in run.samples:
        if not sample.kept:
            why = sample.failure or sample.dropped_reason or "no reason told"
            dropped[why] = dropped.get(why, 0) + 1
    reasons = "; ".join(f"{count}: {why}" for why, count in dropped.items())
    buffers = {f"{case.mechanism}: {_buffers(case)}": None for case in run.cases if _buffers(case)}
    depths = {f"{case.mechanism} {size(case.size_bytes)}: {case.depth}": None for case in run.cases if case.depth}
    return [
        ("command", f"`{run.command}`" + (" (ended early)" if run.interrupted else "")),
        ("version", f"ipclab {run.version}, {here.python}, {here.c_library}"),
        ("CPU", f"{here.cpu_model}, {here.cpus_online} online, {_or(here.cpu_quota, 'no quota')} (quota)"),
        ("kernel", f"{here.kernel} ({here.architecture}), virtual: {_virtual(here.virtual)}"),
        ("placement", "; ".join(place.description for place in run.placements) or "not known"),
        ("buffers", "; ".join(buffers) or "none of the kernel's"),
        ("messages there is room for", "; ".join(depths) or "not limited by number"),
        ("driver", ", ".join(dict.fromkeys(case.driver for case in run.cases)) or "none"),
        ("samples", f"{kept} kept, {len(run.samples) - kept} dropped" + (f" ({reasons})" if reasons else "")),
        ("harness", _overheads(run)),
        ("run", f"{run.run_id}, {run.started_at}"),
    ]


# --- one section -----------------------------------------------------------------------------------------------------


def _section(rows: Sequence[Row], placements: Sequence[Placement], medium: Medium) -> list[str]:
    columns = _columns(rows[0].case)
    cells = [[column.head for column in columns], *[[column.of(row) for column in columns] for row in rows]]
    measured = [line for line, row in zip(cells[1:], rows, strict=True) if not row.failure]
    widths = [max(map(len, column)) for column in zip(cells[0], *measured, strict=True)]
    for index in (0, 1):
        widths[index] = max(len(line[index]) for line in cells)
    while len(widths) > 4 and sum(widths) + 2 * len(widths) > medium.columns:
        widths.pop()  # what is left out is in the record, and in markdown
    head = wrap(_title(rows[0]) + _where(rows[0], placements), medium, "", "  ")
    lines = [*[medium.paint(line, "head") for line in head], medium.paint(_line(cells[0], widths), "faint")]
    for row, texts in zip(rows, cells[1:], strict=True):
        if row.failure:
            start = "  ".join(text.ljust(width) for text, width in zip(texts[:2], widths[:2], strict=True))
            lines += wrap(row.failure, medium, f"  {start}  {medium.paint('FAILED', 'bad')}: ", "      ")
            continue
        lines.append(_line(texts, widths))
        for style, text in _remarks(row):
            lines += wrap(
                text.partition(": ")[2], medium, f"      {medium.paint(text.partition(': ')[0], style)}: ", " " * 8
            )
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, figures to the right."""
    shown = [
        cell.ljust(width) if index < 2 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=False))
    ]
    return f"  {'  '.join(shown)}".rstrip()


def _columns(case: Case) -> list[_Column]:
    """What is shown of a pattern, most important first: a narrow terminal leaves out the last ones."""
    names = [_Column("mechanism", lambda row: row.case.mechanism), _Column("driver", lambda row: row.case.driver)]
    spread = _Column("spread", lambda row: "" if row.spread_ratio is None else f"{row.spread_ratio:.2f}x")
    costs = [
        _Column("CPU", lambda row: span(row.cpu_ns_per_message)),
        _Column("calls", lambda row: count(row.system_calls_per_message)),
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


def _remarks(row: Row) -> list[tuple[str, str]]:
    """What stands below a row: style and text."""
    if row.failure:
        return [("bad", f"FAILED: {row.failure}")]
    if not row.stable:
        return [("warn", f"unstable: {row.advice or 'measure again when the machine is quiet'}")]
    return [("faint", f"mind: {row.advice}")] if row.advice else []


def _refused(rows: Sequence[Row], medium: Medium) -> list[str]:
    refused = [row for row in rows if row.refusal]
    if not refused:
        return []
    lines = [medium.paint("Not measured", "head")]
    for row in refused:
        lines += wrap(f"{_who(row.case)}: {row.refusal}", medium, "  ", "      ")
    return [*lines, ""]


def _summary(run: Run) -> str:
    kept = sum(sample.kept for sample in run.samples)
    text = f"run {run.run_id}: {kept} samples kept, {len(run.samples) - kept} dropped, {run.duration_ns / 1e9:.0f} s"
    return f"{text}; {_overheads(run)}"


def _overheads(run: Run) -> str:
    found = run.overheads
    parts = []
    if found.verification_ns_per_message:
        told = ", ".join(f"{size(k)} {span(v)}" for k, v in sorted(found.verification_ns_per_message.items()))
        parts.append(f"verifying a message takes {told}")
    if found.python_loop_ns is not None:
        parts.append(f"the python driver's loop {span(found.python_loop_ns)} a message")
    if found.native_loop_ns is not None:
        parts.append(f"the native one's {span(found.native_loop_ns)}")
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


def _title(row: Row) -> str:
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


def _who(case: Case) -> str:
    """A case that is not in a table; what it is not about is left out."""
    words = [case.mechanism, case.driver, case.pattern, *([size(case.size_bytes)] if case.size_bytes else [])]
    return " ".join([*words, *([f"{case.pairs} pairs"] if case.pairs > 1 else [])])


def _switches(row: Row) -> float | None:
    own, forced = row.voluntary_switches_per_message, row.involuntary_switches_per_message
    return None if own is None or forced is None else own + forced


def _buffers(case: Case) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(case.buffers.items()))


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(plain(cell).replace('|', '/') for cell in cells)} |"


def _or(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:g} CPUs"


def _virtual(value: str | None) -> str:
    return "not known" if value is None else value or "no"


# --- figures with the unit that suits them ---------------------------------------------------------------------------


def rate(per_s: float | None, what: str = "msg") -> str:
    """Messages a second.

    >>> rate(1234567.0), rate(940.0), rate(None)
    ('1.23 M msg/s', '940 msg/s', '')
    """
    if per_s is None:
        return ""
    unit = f"{what}/s" if what else "/s"
    return _scaled(per_s, ((1e9, "G"), (1e6, "M"), (1e3, "k")), unit)


def bandwidth(bytes_per_s: float | None) -> str:
    """Bytes a second, in powers of ten.

    >>> bandwidth(2.5e9), bandwidth(None)
    ('2.50 GB/s', '')
    """
    return "" if bytes_per_s is None else _scaled(bytes_per_s, ((1e9, "G"), (1e6, "M"), (1e3, "k")), "B/s")


def span(ns: float | None) -> str:
    """A time.

    >>> span(1830), span(0.5), span(None)
    ('1.83 us', '0.500 ns', '')
    """
    if ns is None:
        return ""
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= factor:
            return f"{_digits(ns / factor)} {unit}"
    return f"{_digits(ns)} ns"


def count(value: float | None) -> str:
    """How often something happened for a message; "n/a" when nobody counted."""
    if value is None:
        return "n/a"
    return f"{value:.2f}" if value >= 0.01 or value == 0 else "<0.01"


def size(size_bytes: int) -> str:
    """A message's size in binary units.

    >>> size(65536), size(100), size(0)
    ('64 KiB', '100 B', 'no data')
    """
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B" if size_bytes else "no data"


def _scaled(value: float, steps: Sequence[tuple[float, str]], unit: str) -> str:
    for factor, letter in steps:
        if value >= factor:
            return f"{_digits(value / factor)} {letter}{' ' if unit.startswith(('msg', 'trip')) else ''}{unit}"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    """Three of them.  1.23, 12.3, 123, 1234."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.2f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"

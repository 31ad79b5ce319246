"""A bench run for a design review (markdown) and for a spreadsheet (csv)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ipclab.records import Case, Row, Run
from ipclab.views.bench import columns_of, not_measured, overheads, remarks_below, sections, title, traced_calls
from ipclab.views.medium import plain
from ipclab.views.units import size

_READING = (
    "rates are medians of the kept samples, best first; spread is the fastest sample over the slowest; CPU, calls, "
    "switches and wake-ups are both sides' together, for a message or a round trip; ! marks an unstable row"
)


def bench_markdown(run: Run) -> str:
    """A text that stands alone: tables, reasons, and everything one has to know to measure the same again."""
    lines = ["# IPC bench", ""]
    for section in sections(run.rows):
        columns = columns_of(section[0].case)
        lines += [f"## {title(section[0])}", "", _piped([column.head for column in columns])]
        lines.append(_piped(["---", "---", *["---:"] * (len(columns) - 2)]))
        for row in section:
            cells = [column.of(row) for column in columns]
            lines.append(_piped([*cells[:2], "failed", *[""] * (len(cells) - 3)] if row.failure else cells))
        remarks = [f"- {word}: {text}" for _style, word, text in remarks_below(section)]
        lines += ["", *remarks, *([""] if remarks else [])]
    if any(row.refusal for row in run.rows):
        lines += ["## Not measured", "", *[f"- {text}" for text in not_measured(run.rows)], ""]
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
    how = traced_calls(run)
    return [
        ("command", f"`{run.command}`" + (" (ended early)" if run.interrupted else "")),
        ("version", f"ipclab {run.version}, {here.python}, {here.c_library}"),
        ("CPU", f"{here.cpu_model}, {here.cpus_online} online, {_or(here.cpu_quota, 'no CPU quota')}"),
        ("kernel", f"{here.kernel} ({here.architecture}), virtual: {_virtual(here.virtual)}"),
        ("placement", "; ".join(place.description for place in run.placements) or "not known"),
        ("buffers", _granted(run.cases) or "none of the kernel's"),
        ("messages there is room for", _depths(run.cases) or "not limited by number"),
        ("driver", ", ".join(dict.fromkeys(case.driver for case in run.cases)) or "none"),
        ("reading", _READING),
        ("samples", f"{kept} kept, {len(run.samples) - kept} dropped" + (f" ({reasons})" if reasons else "")),
        *([("calls with a ~", how)] if how else []),
        ("harness", overheads(run)),
        ("run", f"{run.run_id}, {run.started_at}"),
    ]


def _granted(cases: Sequence[Case]) -> str:
    """The kernel's buffers, by mechanism: "pipe 64 KiB at 64 B, 512 KiB at 64 KiB"."""
    found: dict[str, dict[int, list[str]]] = {}
    for case in cases:
        for name, value in case.buffers.items():
            of = case.mechanism if name == case.mechanism else f"{case.mechanism} {name.replace('_', ' ')}"
            sizes = found.setdefault(of, {}).setdefault(value, [])
            if size(case.size_bytes) not in sizes:
                sizes.append(size(case.size_bytes))
    return "; ".join(
        f"{of} {', '.join(f'{size(value)} at {_and(sizes)}' for value, sizes in values.items())}"
        for of, values in found.items()
    )


def _depths(cases: Sequence[Case]) -> str:
    """Room for how many, by size: "1024 at 64 B; 8 at 64 KiB, 10 (posix-mq)"."""
    found: dict[int, dict[int, list[str]]] = {}
    for case in cases:
        if case.depth is not None:
            names = found.setdefault(case.size_bytes, {}).setdefault(case.depth, [])
            if case.mechanism not in names:
                names.append(case.mechanism)
    parts = []
    for size_bytes, depths in sorted(found.items()):
        usual = max(depths, key=lambda depth: len(depths[depth]))
        others = [f"{depth} ({_and(names)})" for depth, names in depths.items() if depth != usual]
        parts.append(", ".join([f"{usual} at {size(size_bytes)}", *others]))
    return "; ".join(parts)


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _buffers(case: Case) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(case.buffers.items()))


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(plain(cell).replace('|', '/') for cell in cells)} |"


def _or(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"quota {value:g} CPUs"


def _virtual(value: str | None) -> str:
    return "not known" if value is None else value or "no"

"""A bench run for a design review (markdown) and for a spreadsheet (csv)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ipclab.records import Case, Row, Run
from ipclab.views.bench import columns_of, not_measured, overheads, remarks_of, sections, title
from ipclab.views.medium import plain
from ipclab.views.units import size


def bench_markdown(run: Run) -> str:
    """A text that stands alone: tables, reasons, and everything one has to know to measure the same again."""
    lines = ["# IPC bench", ""]
    for section in sections(run.rows):
        columns = columns_of(section[0].case)
        lines += [f"## {title(section[0])}", "", _piped([column.head for column in columns])]
        lines.append(_piped(["---", "---", *["---:"] * (len(columns) - 2)]))
        remarks = []
        for row in section:
            cells = [column.of(row) for column in columns]
            lines.append(_piped([*cells[:2], "failed", *[""] * (len(cells) - 3)] if row.failure else cells))
            if row.system_calls_reason and not row.failure:
                remarks.append(f"- {row.case.mechanism} ({row.case.driver}): calls: {row.system_calls_reason}")
            remarks += [f"- {row.case.mechanism} ({row.case.driver}): {text}" for _style, text in remarks_of(row)]
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
    buffers = {f"{case.mechanism}: {_buffers(case)}": None for case in run.cases if _buffers(case)}
    depths = {f"{case.mechanism} {size(case.size_bytes)}: {case.depth}": None for case in run.cases if case.depth}
    return [
        ("command", f"`{run.command}`" + (" (ended early)" if run.interrupted else "")),
        ("version", f"ipclab {run.version}, {here.python}, {here.c_library}"),
        ("CPU", f"{here.cpu_model}, {here.cpus_online} online, {_or(here.cpu_quota, 'no CPU quota')}"),
        ("kernel", f"{here.kernel} ({here.architecture}), virtual: {_virtual(here.virtual)}"),
        ("placement", "; ".join(place.description for place in run.placements) or "not known"),
        ("buffers", "; ".join(buffers) or "none of the kernel's"),
        ("messages there is room for", "; ".join(depths) or "not limited by number"),
        ("driver", ", ".join(dict.fromkeys(case.driver for case in run.cases)) or "none"),
        ("samples", f"{kept} kept, {len(run.samples) - kept} dropped" + (f" ({reasons})" if reasons else "")),
        ("harness", overheads(run)),
        ("run", f"{run.run_id}, {run.started_at}"),
    ]


def _buffers(case: Case) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(case.buffers.items()))


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(plain(cell).replace('|', '/') for cell in cells)} |"


def _or(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"quota {value:g} CPUs"


def _virtual(value: str | None) -> str:
    return "not known" if value is None else value or "no"

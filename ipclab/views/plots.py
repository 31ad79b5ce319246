"""Bench runs as a picture: throughput and latency against message size, one line for each mechanism.

    one row of panels for each run and pattern, one column for each driver
    one way          bytes a second; the bar is from the 10th to the 90th percentile of the samples
    there and back   middle latency; the bar reaches up to p99
    on a schedule    the same, counted from the scheduled time

A mechanism has the same colour and mark in all panels, a hollow mark is an unstable row, and the legend has the best
first. Both axes are logarithmic. What carries no data stands at the left edge. A panel shows one placement cluster,
that of most rows, since others cannot be held against it; what is left out is said below.

Needs matplotlib (extra `plots`).
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ipclab.errors import Unavailable, UsageError
from ipclab.records import Row, Run
from ipclab.views.units import bandwidth, size, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = Literal["png", "svg"]
_TITLES = {"throughput": "one way", "pingpong": "there and back", "openloop": "on a schedule"}
_MARKS = "osD^v<>Ph*Xp"
#: Where what carries no data stands: this much left of the smallest size.
_LEFT = 1 / 8
_PANEL_INCHES = (6.4, 4.2)


class _Panel(NamedTuple):
    """What one pair of axes shows."""

    title: str
    pattern: str
    rows: list[Row]
    left_out: str


def bench_plot(runs: Sequence[Run], form: Form) -> bytes:
    """The picture of these runs. Raises Unavailable without matplotlib, UsageError when no row has a figure."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as err:
        raise Unavailable("plots need matplotlib", hint="pip install 'ipclab[plots]'") from err
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where its cache lies is no news to our users
    grid = [line for run in runs for line in _grid(run)]
    if not grid:
        raise UsageError("there is nothing to plot: no row of these runs has a figure")
    styles = _styles([row for line in grid for panel in line for row in panel.rows])
    columns = max(map(len, grid))
    figure = Figure(figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * len(grid)), layout="constrained")
    axes = figure.subplots(len(grid), columns, squeeze=False)
    for line, places in zip(grid, axes, strict=True):
        for panel, place in zip(line, places, strict=False):
            _draw(place, panel, styles)
        for place in places[len(line) :]:
            place.set_axis_off()
    figure.suptitle("\n".join(_caption(run) for run in runs), fontsize="small")
    # The same run gives the same bytes: no date, and ids that do not come from a random number.
    with rc_context({"svg.hashsalt": "ipclab", "svg.fonttype": "none"}):
        return _bytes(figure, form)


def _bytes(figure: Figure, form: Form) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=120, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


# --- what is shown ---------------------------------------------------------------------------------------------------


def _grid(run: Run) -> list[list[_Panel]]:
    """Lines of panels: by pattern, placement and number of pairs; in a line one panel for each driver."""
    rows = [row for row in run.rows if row.median_per_s and not row.failure and not row.refusal]
    found: dict[tuple[object, ...], dict[str, list[Row]]] = {}
    for row in rows:
        case = row.case
        like = (case.pattern, case.placement, case.cpus, case.pairs, case.producers, case.consumers, case.rate_per_s)
        found.setdefault(like, {}).setdefault(case.driver, []).append(row)
    lines = [[_panel(drivers[name]) for name in sorted(drivers)] for drivers in found.values()]
    return sorted(lines, key=lambda line: list(_TITLES).index(line[0].pattern))


def _panel(rows: list[Row]) -> _Panel:
    """The rows of one cluster; of several that with most."""
    clusters = Counter(row.cluster for row in rows)
    best, shown = clusters.most_common(1)[0]
    case = rows[0].case
    words = [f"{case.driver}, {_TITLES[case.pattern]}", f"placement {case.placement}"]
    if case.pairs > 1:
        words.append(f"{case.pairs} pairs")
    if (case.producers, case.consumers) != (1, 1):
        words.append(f"{case.producers} to {case.consumers}")
    if best not in ("", "?"):
        words.append(f"cluster {best}")
    left_out = f"{len(rows) - shown} rows of other placement clusters are left out" if shown < len(rows) else ""
    return _Panel(", ".join(words), case.pattern, [row for row in rows if row.cluster == best], left_out)


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """A colour and a mark for each mechanism; together they repeat only after a hundred and twenty."""
    names = sorted({row.case.mechanism for row in rows})
    return {
        name: {"color": f"C{number % 10}", "marker": _MARKS[number % len(_MARKS)]} for number, name in enumerate(names)
    }


def _caption(run: Run) -> str:
    here = run.environment
    return f"{run.run_id}  {run.command}  |  {here.cpu_model}, {here.kernel}, {here.python}, ipclab {run.version}"


# --- one panel -------------------------------------------------------------------------------------------------------


def _draw(place: Axes, panel: _Panel, styles: dict[str, dict[str, Any]]) -> None:
    by_name: dict[str, list[Row]] = {}
    for row in panel.rows:
        by_name.setdefault(row.case.mechanism, []).append(row)
    smallest = min((row.case.size_bytes for row in panel.rows if row.case.size_bytes), default=1)
    for name in sorted(by_name, key=lambda name: _rank(by_name[name], panel.pattern)):
        _line(place, name, sorted(by_name[name], key=lambda row: row.case.size_bytes), smallest, styles[name])
    sizes = sorted({row.case.size_bytes for row in panel.rows})
    place.set_xscale("log", base=2)
    place.set_yscale("log")
    place.set_xticks([each or smallest * _LEFT for each in sizes], [size(each) for each in sizes])
    place.minorticks_off()
    one_way = panel.pattern == "throughput"
    place.yaxis.set_major_formatter(lambda value, _at: bandwidth(value) if one_way else span(value))
    place.set_ylabel("bytes a second" if one_way else "middle latency (bar: to p99)")
    place.set_xlabel("message size" + (f"\n{panel.left_out}" if panel.left_out else ""))
    place.set_title(panel.title, fontsize="medium")
    place.grid(alpha=0.3)
    place.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _line(place: Axes, name: str, rows: list[Row], smallest: int, style: dict[str, Any]) -> None:
    xs = [row.case.size_bytes or smallest * _LEFT for row in rows]
    figures = [_figure(row) for row in rows]
    ys = [middle for middle, _low, _high in figures]
    bars = [[middle - low for middle, low, _high in figures], [high - middle for middle, _low, high in figures]]
    place.errorbar(xs, ys, yerr=bars, linewidth=1.2, elinewidth=0.6, capsize=2, markersize=0, color=style["color"])
    for x, y, row in zip(xs, ys, rows, strict=True):
        face = style["color"] if row.stable else "white"
        place.plot([x], [y], **style, markersize=5, markerfacecolor=face, linestyle="none")
    place.plot([], [], **style, markersize=5, linewidth=1.2, label=name)


def _figure(row: Row) -> tuple[float, float, float]:
    """What is drawn of a row, and where its bar begins and ends."""
    rate = row.median_per_s or 1.0
    if row.case.pattern == "throughput":
        each = row.case.size_bytes
        return rate * each, (row.p10_per_s or rate) * each, (row.p90_per_s or rate) * each
    middle = float(row.p50_ns or 1e9 / rate)
    return middle, middle, max(middle, float(row.p99_ns or middle))


def _rank(rows: list[Row], pattern: str) -> float:
    """Best first, at the largest size."""
    last = max(rows, key=lambda row: row.case.size_bytes)
    middle = _figure(last)[0]
    return -middle if pattern == "throughput" else middle

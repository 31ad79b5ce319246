"""What the database tells of the past: all runs, and one mechanism's course through them."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from ipclab.bench.store import Store
from ipclab.errors import UsageError
from ipclab.records import CoursePoint, History, Row, StoredRun


def history(path: Path | None = None, mechanism: str = "") -> History:
    """All stored runs; with a mechanism's name also its course. None stored is no error, an unmeasured name is.

    Raises UsageError for that, with the nearest name, and what Store raises.
    """
    with Store.to_read(path) as store:
        runs = store.runs()
        if not mechanism:
            return History(database=str(store.path), runs=runs)
        rows = store.rows(mechanism)
        if not rows:
            known = store.mechanisms()
            near = get_close_matches(mechanism, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"measured were: {', '.join(known) or 'none'}"
            raise UsageError(f"no stored run measured {mechanism!r}", hint=hint)
        return History(database=str(store.path), runs=runs, mechanism=mechanism, course=_course(rows, runs))


def _course(rows: tuple[tuple[str, Row], ...], runs: tuple[StoredRun, ...]) -> tuple[CoursePoint, ...]:
    """Points of one case in one cluster next to each other, oldest first; cases in the order they first came."""
    by_id = {run.run_id: run for run in runs}
    lines: dict[tuple[object, ...], list[tuple[StoredRun, Row]]] = {}
    for run_id, row in rows:
        if run_id in by_id:
            lines.setdefault(_line(row), []).append((by_id[run_id], row))
    return tuple(point for line in lines.values() for point in _points(line))


def _line(row: Row) -> tuple[object, ...]:
    """What has to be the same for two rows to be of one course; buffers may not differ either (they decide speed)."""
    return (row.case.key, tuple(sorted(row.case.buffers.items())), row.cluster)


def _points(line: list[tuple[StoredRun, Row]]) -> list[CoursePoint]:
    first = next((row.median_per_s for _run, row in line if row.median_per_s), None)
    points = []
    before: StoredRun | None = None
    for run, row in line:
        change = row.median_per_s / first if row.median_per_s and first else None
        changed = before is not None and _surroundings(before) != _surroundings(run)
        points.append(
            CoursePoint(
                run_id=run.run_id, started_at=run.started_at, surroundings_changed=changed, row=row, change=change
            )
        )
        before = run
    return points


def _surroundings(run: StoredRun) -> tuple[str, str, str]:
    return run.kernel, run.cpu_model, run.version

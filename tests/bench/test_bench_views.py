"""How a bench run is drawn: best first, units, marks, reasons; markdown that stands alone; csv that a program reads."""

from __future__ import annotations

import csv
import io

import msgspec
import pytest
from made import ENVIRONMENT

from ipclab.records import Case, ComparedRow, Comparison, History, Placement, Row, Run, Sample, StoredRun
from ipclab.views import units
from ipclab.views.bench import bench_table, sections
from ipclab.views.bench_export import bench_csv, bench_markdown
from ipclab.views.bench_runs import comparison_table, history_table, left
from ipclab.views.medium import Medium


def case(mechanism: str, size: int = 64, pattern: str = "throughput") -> Case:
    return Case(
        mechanism=mechanism,
        driver="native",
        pattern=pattern,  # type: ignore[arg-type]
        size_bytes=size,
        cpus=(0, 1),
        depth=8,
        buffers={"pipe": 65536} if mechanism == "pipe" else {},
    )


def row(
    mechanism: str, per_s: float | None = 1e6, *, size: int = 64, pattern: str = "throughput", **more: object
) -> Row:
    return msgspec.structs.replace(
        Row(
            case=case(mechanism, size, pattern),
            cluster="fast",
            samples_kept=7,
            median_per_s=per_s,
            spread_ratio=1.05,
            bytes_per_s=per_s * size if per_s else None,
            p50_ns=1830,
            system_calls_per_message=2.0,
        ),
        **more,
    )


RUN = Run(
    run_id="20260101-000000-abcdef",
    started_at="2026-01-01T00:00:00+00:00",
    command="ipclab bench run",
    version="0.1.0",
    environment=ENVIRONMENT,
    placements=(Placement(name="any", cpus=(0, 1), description="CPU 0 and CPU 1"),),
    cases=(case("pipe"), case("ring")),
    samples=(
        Sample(case_key=case("pipe").key, round=0, messages=1, duration_ns=1),
        Sample(
            case_key=case("pipe").key, round=1, messages=1, duration_ns=1, kept=False, dropped_reason="the CPUs moved"
        ),
    ),
    rows=(
        row("pipe", 1.5e6),
        row("ring", 12.5e6, system_calls_per_message=None, system_calls_reason="nobody counted"),
        row("fifo", 1.4e6, stable=False, advice="measure longer"),
        row("broken", None, failure="message 17 is not the one that was sent", cluster=""),
        Row(case=case("posix-mq", 65536), refusal="posix-mq: messages have 8192 bytes at most here"),
        Row(case=case("posix-mq", 65536, "pingpong"), refusal="posix-mq: messages have 8192 bytes at most here"),
        row("pipe", 20000.0, pattern="pingpong"),
    ),
    notes=("other work ran",),
    explanation=("First.", "Second.", "Third."),
)


def test_best_first_and_failed_ones_last() -> None:
    one_way, turns = sections(RUN.rows)
    assert [each.case.mechanism for each in one_way] == ["ring", "pipe", "fifo", "broken"]
    assert [each.case.pattern for each in turns] == ["pingpong"]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_the_table_fits_and_says_all(columns: int) -> None:
    shown = bench_table(RUN, Medium(columns=columns))
    assert shown.isascii()
    if columns >= 60:
        assert max(map(len, shown.splitlines())) <= columns
    words = " ".join(shown.split())
    assert "12.5 M msg/s" in words
    assert "fifo !" in words
    assert "unstable: measure longer (fifo native)" in words
    assert "FAILED: message 17" in words
    assert "calls n/a: nobody counted (ring native)" in words
    assert words.count("messages have 8192 bytes at most here") == 1
    assert "First. Second. Third." in words
    assert "1 samples kept, 1 dropped" in words


def test_markdown_stands_alone() -> None:
    shown = bench_markdown(RUN)
    names = ("command", "version", "CPU", "kernel", "placement", "buffers", "driver", "samples", "run")
    ending = shown[shown.index("## How it was measured") :]
    for name in names:
        assert f"\n- {name}: " in ending
    assert "1 kept, 1 dropped (1: the CPUs moved)" in ending
    assert "buffers: pipe 64 KiB at 64 B" in ending
    assert RUN.run_id in ending
    for block in shown.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_csv_has_one_line_for_each_row() -> None:
    lines = list(csv.DictReader(io.StringIO(bench_csv(RUN))))
    assert len(lines) == len(RUN.rows)
    assert lines[0]["mechanism"] == "pipe"
    assert float(lines[0]["median_per_s"]) == 1.5e6
    assert lines[3]["failure"].startswith("message 17")
    assert lines[3]["median_per_s"] == ""


def test_a_run_without_anything() -> None:
    empty = msgspec.structs.replace(RUN, rows=(), samples=(), cases=(), explanation=(), notes=(), placements=())
    assert "0 samples kept" in bench_table(empty, Medium())
    assert bench_markdown(empty).endswith("\n")
    assert len(bench_csv(empty).splitlines()) == 1


def test_a_comparison() -> None:
    ours = case("pipe")
    found = Comparison(
        a="first",
        b="second",
        rows=(
            ComparedRow(a=ours, b=ours, ratio=1.5, low=1.4, high=1.6, verdict="faster"),
            ComparedRow(a=ours, b=ours, reason="placements differ: any and cpu"),
        ),
        notes=("the kernel differs",),
    )
    shown = comparison_table(found, Medium())
    assert "1.50 [1.40, 1.60]" in shown
    assert "faster" in shown
    assert "not comparable" in shown
    assert "placements differ: any and cpu" in shown
    assert "note: the kernel differs" in shown


def test_history() -> None:
    assert "no runs in" in history_table(History(database="here", runs=()), Medium())
    stored = StoredRun(
        run_id=RUN.run_id,
        started_at=RUN.started_at,
        version="0.1.0",
        command="ipclab bench run",
        kernel="6.1.0",
        cpu_model="A CPU",
        mechanisms=("pipe",),
        rows=3,
        samples_kept=20,
        samples_dropped=1,
        unstable=1,
        failed=0,
        interrupted=True,
    )
    shown = history_table(History(database="here", runs=(stored,)), Medium())
    assert RUN.run_id in shown
    assert "1 unstable" in shown
    assert "ended early" in shown


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (units.rate(1234567.0), "1.23 M msg/s"),
        (units.rate(940.0), "940 msg/s"),
        (units.rate(None), ""),
        (units.bandwidth(2.5e9), "2.50 GB/s"),
        (units.span(1830), "1.83 us"),
        (units.span(None), "-"),
        (units.count(None), "n/a"),
        (units.count(0.001), "<0.01"),
        (units.size(65536), "64 KiB"),
        (units.size(0), "no data"),
        (left(None), ""),
        (left(7.2), "7 s left"),
        (left(125), "2 min 05 s left"),
    ],
)
def test_units(shown: str, wanted: str) -> None:
    assert shown == wanted

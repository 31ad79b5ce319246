"""`ipclab demo`: the demos."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ipclab.cli.complete import demo_names
from ipclab.cli.output import medium, output_options, printing, say, show
from ipclab.errors import UsageError

if TYPE_CHECKING:
    from ipclab.records import Demo, DemoRun


@click.command(
    "demo",
    short_help="Run demos: separate processes talk, and the talk is checked.",
    epilog="Example: ipclab demo pipe, or all of them: ipclab demo",
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=demo_names)
@click.option("--list", "as_list", is_flag=True, help="Only list the demos, and whether they run here.")
@click.option("--source", is_flag=True, help="Only print the source of the named demos.")
@click.option("--states", "with_states", is_flag=True, help="End with the timeline of the states of its processes.")
@output_options
def demo_command(
    names: tuple[str, ...], as_list: bool, source: bool, with_states: bool, as_json: bool, file: Path | None
) -> int:
    """Run the demos NAME..., or all of them one after the other in under two minutes.

    Exit code 0 when every one passed; 1 when one failed, or when one that was asked for by name cannot run here. With
    --json the demos' narration goes to stderr.
    """
    from ipclab.demos import catalogue

    if as_list and source:
        raise UsageError("--list and --source exclude each other")
    if source and not names:
        raise UsageError("--source needs a NAME", hint="`ipclab demo --list` has them all")
    found = tuple(catalogue.find(name) for name in names) if names else catalogue.find_all()
    if source:
        for demo in found:
            say(catalogue.source(demo))
        return 0
    if as_list:
        _list(found, as_json, file)
        return 0
    return _run(found, named=bool(names), with_states=with_states, as_json=as_json, file=file)


def _list(found: tuple[Demo, ...], as_json: bool, file: Path | None) -> None:
    from ipclab import survey
    from ipclab.records import DemoList
    from ipclab.views.tree import demo_tree

    shown = DemoList(demos=survey.demo_statuses(found))
    show(shown, lambda medium: demo_tree(shown, medium), as_json=as_json, file=file)


def _run(found: tuple[Demo, ...], *, named: bool, with_states: bool, as_json: bool, file: Path | None) -> int:
    from ipclab import survey
    from ipclab.demos import running
    from ipclab.records import DemoReport
    from ipclab.views import runs

    narration, its_name = (sys.stderr.buffer, "standard error") if as_json else (sys.stdout.buffer, "standard output")

    def write(text: bytes) -> None:
        with printing(its_name):
            narration.write(text)
            narration.flush()

    done: list[DemoRun] = []
    for status in survey.demo_statuses(found):
        if len(found) > 1:
            write(runs.title(status.demo, len(done) + 1, len(found), medium()).encode(errors="backslashreplace"))
        if status.standing == "not here":
            done.append(running.skip(status, write))
        else:
            done.append(_watched(status.demo, write) if with_states else running.run(status.demo, write))
        write(runs.remains(done[-1], medium()).encode(errors="backslashreplace"))
    report = DemoReport(runs=tuple(done))
    show(report, lambda place: runs.runs_table(report, place) if len(done) > 1 else "", as_json=as_json, file=file)
    good = {"passed"} if named else {"passed", "not here"}
    return 0 if {run.status for run in done} <= good else 1


def _watched(demo: Demo, write: Callable[[bytes], object]) -> DemoRun:
    """The same under the tracker, with the timeline at its end."""
    from ipclab import recording
    from ipclab.views.states import states_report

    with recording.of_demo(demo, write) as (run, head, intervals):
        text = states_report(head, intervals, medium(), hidden=recording.HIDDEN)
    write(f"\n{text}".encode(errors="backslashreplace"))
    return run

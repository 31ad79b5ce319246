"""What happened when demos ran, as a table."""

from __future__ import annotations

from ipclab.records import Demo, DemoReport, DemoRun
from ipclab.views.medium import Medium, wrap

_STYLES = {"passed": "good", "failed": "bad", "not here": "warn", "deadline": "bad"}


def runs_table(report: DemoReport, medium: Medium) -> str:
    """One line for each demo: name, status, seconds, its verdict; then the sum."""
    width = max((len(run.name) for run in report.runs), default=0)
    lines = ["", medium.paint("==== all", "head")]
    for run in report.runs:
        word = medium.paint(run.status, _STYLES[run.status]) + " " * (9 - len(run.status))
        head = f"{run.name:<{width}}  {word}{run.duration_ns / 1e9:6.1f} s  "
        rest = " " * (width + 2 + 9 + 10)
        lines += wrap(_verdict(run), medium, head, rest)
        for text in _remains(run):
            lines += wrap(text, medium, rest, rest)
    words = [run.status for run in report.runs]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    seconds = sum(run.duration_ns for run in report.runs) / 1e9
    return "\n".join([*lines, "", f"{counts or 'no demo'} in {seconds:.1f} s", ""])


def title(demo: Demo, number: int, count: int, medium: Medium) -> str:
    """The line between two demos."""
    return f"\n{medium.paint(f'==== {number} of {count}: {demo.name}', 'head')}\n"


def remains(run: DemoRun, medium: Medium) -> str:
    """What one demo left behind, as lines for its reader; empty when it left nothing."""
    return "".join(f"{line}\n" for text in _remains(run) for line in wrap(text, medium, "", "  "))


def _verdict(run: DemoRun) -> str:
    said = run.verdict.removeprefix(f"{run.name}: ")
    ended = f"ended by signal {run.signal}" if run.signal is not None else f"exit code {run.exit_code}"
    return f"{ended}: {said}" if run.status == "failed" else said


def _remains(run: DemoRun) -> list[str]:
    said = []
    if run.orphans:
        said.append(f"{run.name}: {run.orphans} of its processes outlived it and were ended")
    for leftover in run.leftovers:
        outcome = f"not removed: {leftover.error}" if leftover.error else "removed"
        said.append(f"{run.name}: left {leftover.kind} {leftover.name} behind, {outcome}")
    return said

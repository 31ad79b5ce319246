"""What was cleaned away, as a table."""

from __future__ import annotations

from ipclab.records import CleanReport, Leftover
from ipclab.views.medium import Medium, wrap


def clean_table(report: CleanReport, medium: Medium) -> str:
    """One line for each object, and how many there were."""
    if not report.leftovers:
        return "nothing to clean\n"
    lines: list[str] = []
    width = max(len(leftover.kind) for leftover in report.leftovers)
    for leftover in report.leftovers:
        word, style = _word(leftover, report.dry_run)
        head = f"{medium.paint(word, style)}  {leftover.kind:<{width}}  "
        lines += wrap(f"{leftover.name}: {_told(leftover)}", medium, head, "    ")
    failed = sum(bool(leftover.error) for leftover in report.leftovers)
    count = len(report.leftovers) - failed
    noun = "object" if count == 1 else "objects"
    would = "would be " if report.dry_run else ""
    lines.append(f"{count} {noun} {would}removed{f', {failed} not' if failed else ''}")
    return "\n".join([*lines, ""])


def _told(leftover: Leftover) -> str:
    return leftover.error or f"its owner, process {leftover.owner_pid}, is dead"


def _word(leftover: Leftover, dry_run: bool) -> tuple[str, str]:
    if leftover.error:
        return ("left alone", "warn") if leftover.kind == "journal" else ("not removed", "bad")
    return ("would remove", "warn") if dry_run else ("removed", "good")

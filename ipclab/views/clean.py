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
        tail = f": {leftover.error}" if leftover.error else ""
        lines += wrap(f"{leftover.name} (of process {leftover.owner_pid}, which is dead){tail}", medium, head, "    ")
    failed = sum(bool(leftover.error) for leftover in report.leftovers)
    count = len(report.leftovers) - failed
    noun = "object" if count == 1 else "objects"
    lines.append(f"{count} {noun} {'would be ' if report.dry_run else ''}removed" + f", {failed} not" * bool(failed))
    return "\n".join([*lines, ""])


def _word(leftover: Leftover, dry_run: bool) -> tuple[str, str]:
    if leftover.error:
        return "not removed", "bad"
    return ("would remove", "warn") if dry_run else ("removed", "good")

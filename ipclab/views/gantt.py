"""A recording as a Gantt picture of letters: one row per thread, time from left to right."""

from __future__ import annotations

from collections.abc import Sequence

from ipclab.records import Tracked
from ipclab.views.digest import Digest, Mark, label
from ipclab.views.medium import Medium
from ipclab.views.units import span

#: More rows than a screen or two help nobody: the longest lives are shown, and how many are not.
MOST_ROWS = 50
_LABEL_COLUMNS = 27

MEANING = {
    "R": "running",
    "r": "runnable",
    "?": "running or runnable",
    "S": "sleeping",
    "D": "uninterruptible",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
    "I": "idle",
    "P": "parked",
}
#: What takes the letter's place where there is Unicode: the more a row is like ink, the more its process did.
_DRAWN = {"R": "█", "r": "▒", "?": "▓", "S": "─", "D": "═", "I": "·"}
#: SGR colours; they repeat what the letter says.
_COLOURS = {
    "R": "32", "r": "33", "?": "32", "S": "34", "D": "31", "T": "35", "t": "35", "Z": "36", "X": "31",
    "I": "2", "P": "2",
}  # fmt: skip


def picture(digest: Digest, medium: Medium) -> str:
    """The picture with its axis and its legend."""
    shown, left_out = longest_lives(digest.threads)
    width = label_width(digest.threads)
    rows = {index: digest.row(index) for index in shown}
    lines = [" " * width + " " + line for line in _axis(digest)]
    for index, cells in rows.items():
        who = label(digest.threads[index])
        lines.append(f"{shorten(who, width):<{width}} {drawn(cells, medium)}".rstrip())
    if left_out:
        lines.append(f"... and {left_out} more, with shorter lives")
    marks = {mark for cells in rows.values() for mark in cells if mark}
    return "\n".join([*lines, _legend(marks, medium), ""])


def drawn(cells: Sequence[Mark], medium: Medium) -> str:
    """One row of marks: letters, or characters that look like what they mean; equal neighbours share a colour."""
    text, at = "", 0
    while at < len(cells):
        mark, begun = cells[at], at
        while at < len(cells) and cells[at] == mark:
            at += 1
        glyph = (_DRAWN.get(mark, mark) if medium.unicode else mark) or " "
        text += tinted(glyph * (at - begun), mark, medium)
    return text


def tinted(text: str, mark: Mark, medium: Medium) -> str:
    """The text in the colour of a state."""
    return f"\x1b[{_COLOURS[mark]}m{text}\x1b[0m" if medium.colour and mark in _COLOURS else text


def shorten(text: str, columns: int) -> str:
    """Cut in the middle of the name; the pid at its end stays."""
    if len(text) <= columns:
        return text
    tail = text[text.rindex("[") :] if "[" in text else ""
    return text[: max(0, columns - len(tail) - 1)] + "~" + tail


def label_width(threads: Sequence[Tracked]) -> int:
    """How many columns the rows' labels take."""
    return min(_LABEL_COLUMNS, max([8, *(len(label(thread)) for thread in threads)]))


def longest_lives(threads: Sequence[Tracked]) -> tuple[list[int], int]:
    """Which threads have a row, in the order in which they were first seen; how many have none."""
    longest = sorted(range(len(threads)), key=lambda i: threads[i].first_ns - threads[i].last_ns)[:MOST_ROWS]
    return sorted(longest, key=lambda i: (threads[i].first_ns, threads[i].tid)), len(threads) - len(longest)


def _axis(digest: Digest) -> list[str]:
    """Times from the start of the record, each above its tick."""
    step = max(12, digest.columns // 5)
    column_ns = (digest.end_ns - digest.start_ns) / digest.columns
    marks = range(0, digest.columns - 6, step) or (0,)
    times = "".join(f"{'0' if not column else span(column * column_ns):<{step}}" for column in marks)
    return [times.rstrip(), "".join("|" + "-" * (step - 1) for _mark in marks)[: digest.columns]]


def _legend(marks: set[Mark], medium: Medium) -> str:
    known = [mark for mark in MEANING if mark in marks]
    told = [
        tinted(_DRAWN.get(mark, mark) if medium.unicode else mark, mark, medium)
        + (f" {mark}" if medium.unicode and mark in _DRAWN and mark.isupper() else "")
        + f" {MEANING[mark]}"
        for mark in known
    ]
    return ", ".join(told) if told else "nothing was seen"

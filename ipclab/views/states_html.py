"""A recording as one page that needs nothing else: the picture as SVG, the table, completeness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from ipclab.records import Interval, Recording
from ipclab.views.digest import Digest, Mark, label
from ipclab.views.gantt import MEANING, longest_lives
from ipclab.views.medium import Medium
from ipclab.views.states import completeness_text, summary
from ipclab.views.units import span

_COLUMNS = 1000
_ROW = 18
_LABEL = 230
_COLOURS = {
    "R": "#2e9e4f", "r": "#e8b93c", "?": "#5bb574", "S": "#b9c7dd", "D": "#d0463b", "T": "#9460b8", "t": "#c48fdb",
    "Z": "#5b6470", "X": "#000000", "I": "#e3e3e3", "P": "#e3e3e3",
}  # fmt: skip
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;background:#fff;color:#222}pre{font:12px ui-monospace,monospace}"
    "svg text{font:12px ui-monospace,monospace}.key span{display:inline-block;width:1em;height:1em;margin:0 .3em 0 1em;"
    "vertical-align:-.15em}"
)


def states_html(head: Recording, intervals: Iterable[Interval]) -> Iterator[bytes]:
    """The page, piece by piece."""
    start_ns = min([head.start_ns, *(thread.first_ns for thread in head.threads)])
    digest = Digest(head.threads, intervals, start_ns, head.end_ns, _COLUMNS)
    title = escape(" ".join(head.tracked_command) or ", ".join(f"process {pid}" for pid in head.pids))
    head_lines = ['<!doctype html><html lang="en"><meta charset="utf-8">', f"<title>States of {title}</title>"]
    yield "\n".join([*head_lines, f"<style>{_STYLE}</style>", f"<h1>States of {title}</h1>", ""]).encode()
    shown, left_out = longest_lives(digest.threads)
    rows = {index: digest.row(index) for index in shown}
    yield _key({mark for cells in rows.values() for mark in cells if mark}).encode()
    yield from (f"{line}\n".encode() for line in _picture(digest, rows))
    wide = Medium(columns=160)
    more = f"... and {left_out} more, with shorter lives\n\n" if left_out else ""
    text = more + summary(digest, wide) + "\n" + completeness_text(head, wide)
    yield f"<pre>{escape(text)}</pre></html>\n".encode()


def _key(marks: set[Mark]) -> str:
    """What each colour says, in words."""
    parts = [f'<span style="background:{_COLOURS[mark]}"></span>{MEANING[mark]}' for mark in MEANING if mark in marks]
    return f'<p class="key">{"".join(parts)}</p>\n'


def _picture(digest: Digest, rows: dict[int, list[Mark]]) -> Iterator[str]:
    height = _ROW * (len(rows) + 1) + 4
    yield f'<svg viewBox="0 0 {_LABEL + _COLUMNS + 60} {height}" width="100%" role="img" aria-label="timeline">'
    yield from _axis(digest, height)
    for line, (index, cells) in enumerate(rows.items(), start=1):
        y = line * _ROW
        yield f'<text x="0" y="{y + 13}">{escape(label(digest.threads[index])[:32])}</text>'
        for mark, begin, end in _runs(cells):
            when = f"{span((begin * (digest.end_ns - digest.start_ns)) / digest.columns)}"
            place = f'x="{_LABEL + begin}" y="{y + 2}" width="{end - begin}" height="{_ROW - 4}"'
            yield f'<rect {place} fill="{_COLOURS[mark]}"><title>{mark} {MEANING[mark]}, from {when}</title></rect>'
    yield "</svg>"


def _axis(digest: Digest, height: int) -> Iterator[str]:
    for tick in range(6):
        x = _LABEL + tick * _COLUMNS // 5
        at = "0" if tick == 0 else span((digest.end_ns - digest.start_ns) * tick / 5)
        yield f'<line x1="{x}" y1="14" x2="{x}" y2="{height}" stroke="#ddd"/><text x="{x}" y="11">{at}</text>'


def _runs(cells: Sequence[Mark]) -> Iterator[tuple[Mark, int, int]]:
    """Equal neighbours together: (mark, first column, the one after the last)."""
    begin = 0
    for at in range(1, len(cells) + 1):
        if at == len(cells) or cells[at] != cells[begin]:
            if cells[begin]:
                yield cells[begin], begin, at
            begin = at

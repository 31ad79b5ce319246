"""The live view: one line per process, a bar of its last seconds, the share of each state, what it waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from ipclab.records import Interval, Recording
from ipclab.views.digest import Digest, label
from ipclab.views.gantt import drawn, shorten, tinted
from ipclab.views.medium import Medium
from ipclab.views.states import completeness_line

_LABEL_COLUMNS = 22
_SHARE_COLUMNS = 20
_WAIT_COLUMNS = 24
#: A terminal's first column to the bar's last, beside the three above.
_GAPS = 3


def live_frame(
    head: Recording, recent: Mapping[int, Sequence[Interval]], seconds: float, medium: Medium, lines: int
) -> list[str]:
    """One picture of now, at most so many lines: a heading, one line per process or thread, completeness at the end."""
    bar = max(8, medium.columns - _LABEL_COLUMNS - _SHARE_COLUMNS - _WAIT_COLUMNS - _GAPS)
    since_ns = head.end_ns - int(seconds * 1e9)
    threads = [one for one in head.threads if recent.get(one.tid) and one.last_ns >= since_ns]
    threads.sort(key=lambda one: (one.gone, one.pid, one.tid))
    digest = Digest(threads, chain.from_iterable(recent.values()), since_ns, head.end_ns, bar)
    heading = f"{'process':<{_LABEL_COLUMNS}} {f'last {seconds:g} s':<{bar}} {'share':<{_SHARE_COLUMNS}} waits in"
    shown = [medium.paint(heading[: medium.columns], "head")]
    room = max(1, lines - 3)
    for index, thread in enumerate(threads[:room]):
        who = f"{shorten(label(thread), _LABEL_COLUMNS):<{_LABEL_COLUMNS}}"
        cells = drawn([mark or " " for mark in digest.row(index)], medium)
        shown.append(f"{who} {cells} {_shares(digest, index, medium)} {_wait(recent[thread.tid][-1], thread.gone)}")
    if len(threads) > room:
        shown.append(f"... and {len(threads) - room} more")
    return [*shown, completeness_line(head.completeness)[: medium.columns]]


def _shares(digest: Digest, index: int, medium: Medium) -> str:
    """The three largest, as in "S 95% R 4% r 1%"."""
    sums = digest.time_ns(index)
    whole = sum(sums.values())
    words = [(mark, f"{mark} {ns / whole:.0%}") for mark, ns in list(sums.items())[:3]]
    padding = _SHARE_COLUMNS - len(" ".join(word for _mark, word in words))
    return " ".join(tinted(word, mark, medium) for mark, word in words) + " " * padding


def _wait(last: Interval, gone: bool) -> str:
    if gone:
        return "gone"
    if last.state in "RZX":
        return ""
    return (" ".join(word for word in (last.syscall, last.wchan) if word) or "-")[:_WAIT_COLUMNS]

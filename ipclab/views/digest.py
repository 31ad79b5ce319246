"""What is kept of a stream of intervals while it passes: the cells of a picture, and what was waited for.

Memory: one cell per thread and column, one sum per thread and thing waited for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ipclab.records import Interval, Tracked

#: What a cell says: the state's letter, of R "R" running, "r" runnable, "?" one of the two.
Mark = str


class Digest:
    """The picture of these threads from `start_ns` to `end_ns`, so many columns wide."""

    def __init__(
        self, threads: Sequence[Tracked], intervals: Iterable[Interval], start_ns: int, end_ns: int, columns: int
    ) -> None:
        self.threads = threads
        self.columns = max(1, columns)
        self.start_ns = start_ns
        self.end_ns = max(end_ns, start_ns + self.columns)
        self._column_ns = (self.end_ns - self.start_ns) / self.columns
        self._homes: dict[int, list[int]] = defaultdict(list)
        for index, thread in enumerate(threads):
            self._homes[thread.tid].append(index)
        self._cells: list[dict[int, dict[Mark, int]]] = [{} for _thread in threads]
        self._waits: list[dict[tuple[str, str], int]] = [{} for _thread in threads]
        for interval in intervals:
            self._take(interval)

    def row(self, thread: int) -> list[Mark]:
        """The cells of a thread: the state that took most of the time, but X and Z wherever they were; "": not there"""
        cells = self._cells[thread]
        return [_chief(cells[column]) if column in cells else "" for column in range(self.columns)]

    def waits(self, thread: int) -> list[tuple[str, str, int]]:
        """(system call, kernel function, ns) it slept in, longest first; "" what could not be read."""
        found = self._waits[thread].items()
        return sorted(((*place, ns) for place, ns in found), key=lambda wait: -wait[2])

    def time_ns(self, thread: int) -> dict[Mark, int]:
        """Its time in each state, longest first."""
        sums: dict[Mark, int] = {}
        for cell in self._cells[thread].values():
            for mark, ns in cell.items():
                sums[mark] = sums.get(mark, 0) + ns
        return dict(sorted(sums.items(), key=lambda share: -share[1]))

    def _take(self, interval: Interval) -> None:
        thread = self._home(interval)
        if thread is None or interval.end_ns < self.start_ns:
            return
        duration_ns = interval.end_ns - max(interval.start_ns, self.start_ns)
        if interval.wchan or interval.syscall:
            place = interval.syscall or "", interval.wchan or ""
            waits = self._waits[thread]
            waits[place] = waits.get(place, 0) + duration_ns
        self._paint(self._cells[thread], mark_of(interval), interval.start_ns, interval.end_ns)

    def _home(self, interval: Interval) -> int | None:
        """Whose interval it is: of several that had this number one after the other, the one that lived then."""
        homes = self._homes.get(interval.tid, [])
        if len(homes) > 1:
            homes = [home for home in homes if self.threads[home].first_ns <= interval.start_ns] or homes
            return homes[-1] if self.threads[homes[0]].first_ns <= interval.start_ns else homes[0]
        return homes[0] if homes else None

    def _paint(self, cells: dict[int, dict[Mark, int]], mark: Mark, start_ns: int, end_ns: int) -> None:
        first = self._column(start_ns)
        last = self._column(max(start_ns, end_ns - 1))
        for column in range(first, last + 1):
            from_ns = max(start_ns, self.start_ns + column * self._column_ns)
            until_ns = min(end_ns, self.start_ns + (column + 1) * self._column_ns)
            cell = cells.setdefault(column, {})
            cell[mark] = cell.get(mark, 0) + max(1, int(until_ns - from_ns))

    def _column(self, at_ns: int) -> int:
        return min(self.columns - 1, max(0, int((at_ns - self.start_ns) / self._column_ns)))


def mark_of(interval: Interval) -> Mark:
    """One letter for the state."""
    if interval.state != "R":
        return interval.state
    return {True: "R", False: "r", None: "?"}[interval.on_cpu]


def label(thread: Tracked) -> str:
    """Who a row is: name[pid], and of a thread that is not the main one name[pid/tid]."""
    who = f"{thread.pid}" if thread.pid == thread.tid else f"{thread.pid}/{thread.tid}"
    name = "".join(char if char.isprintable() else "?" for char in thread.name)
    return f"{name}[{who}]"


def _chief(cell: dict[Mark, int]) -> Mark:
    return next((mark for mark in "XZ" if mark in cell), None) or max(cell, key=lambda mark: cell[mark])

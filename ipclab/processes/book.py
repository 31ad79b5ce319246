"""The book: what all processes of a launcher say, as one stream in the order in which it was said.

Every entry carries the monotonic time at which its process said it; the clock is the same for all processes. Entries
of different processes arrive in any order, so the book holds each one back and emits by time. The rule: an entry is
emitted once all pipes have been read out in a pass that began at least a window later than the entry's own time.
  - So what one process said because of what another had said (it had read a byte, seen it asleep, reaped it) comes
    after it, on however busy a machine: the earlier one was in its pipe before the later one took its time.
  - Of two that know nothing of each other, one may come late: its process lost the CPU for longer than the window
    between taking the time and writing. It is emitted when it comes: late is better than lost, and its time tells.

Entries of the launcher's own process are written by its own thread; without a pump (see pump.py) nobody else speaks,
and they are emitted at once.
"""

from __future__ import annotations

import heapq
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ipclab.errors import visible

#: How long an entry waits for an earlier one of another process. Chosen: several time slices of a busy CPU, and too
#: short for a reader to notice.
WINDOW_NS = 30_000_000

Sink = Callable[[str], None]


class Entry(NamedTuple):
    """One thing said. Compares by time, then by arrival."""

    at_ns: int
    arrival: int
    role: str
    pid: int
    #: "say", "log", "out" (a line of output), or "bare" (a title or check: printed as it is)
    kind: str
    text: str


class Line(str):
    """A finished line: a str that knows what it was made of."""

    __slots__ = ("entry",)
    entry: Entry


def render(entry: Entry, origin_ns: int) -> Line:
    """The line as a reader sees it; the time is the time since the origin."""
    if entry.kind == "bare":
        text = entry.text
    else:
        mark = "| " if entry.kind == "out" else ""
        head = f"{(entry.at_ns - origin_ns) / 1e6:6.1f} ms  {entry.role}[{entry.pid}]  {mark}"
        # A message of several lines stays below its own head.
        text = head + entry.text.replace("\n", "\n" + " " * len(head))
    line = Line(text)
    line.entry = entry
    return line


class Printer:
    """Prints lines, and does not hang on a reader that does not read (a pager, a stopped terminal) once `hurry` is set:
    then what cannot be printed at once is dropped."""

    def __init__(self) -> None:
        self.hurry = False

    def __call__(self, line: str) -> None:
        if self._writable():
            to_stdout(line)

    def _writable(self) -> bool:
        poller = select.poll()
        try:
            poller.register(sys.stdout.fileno(), select.POLLOUT)
        except (AttributeError, OSError, ValueError):
            return True  # no descriptor: a StringIO, or pytest's
        while not poller.poll(0 if self.hurry else 100):
            if self.hurry:
                return False
        return True


def to_stdout(line: str) -> None:
    """Print one line. When the reader of our output has gone (`| head`), the rest goes to /dev/null without a word.

    Raises OSError when the output cannot be written (a full disk), once: the rest goes to /dev/null here too, so that
    Python does not fail again at its exit.
    """
    out = sys.stdout
    try:
        try:
            out.write(line + "\n")
        except UnicodeEncodeError:
            encoding = out.encoding or "ascii"
            out.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        out.flush()
    except (AttributeError, ValueError):
        return  # there is no stdout, or it has been closed
    except OSError as err:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, out.fileno())
        os.close(null)
        if not isinstance(err, BrokenPipeError):
            raise


class Book:
    """See the module's text. Thread-safe; a signal handler may write while the same thread writes."""

    def __init__(self, sink: Sink | None = None) -> None:
        self.origin_ns = time.monotonic_ns()
        #: True while a pump turns the pages; else an entry is emitted as it is written.
        self.turned_by_pump = False
        #: The first exception of the sink; after it nothing is emitted.
        self.error: Exception | None = None
        self._printer = Printer()
        self._sink = self._printer if sink is None else sink
        self._heap: list[Entry] = []
        self._arrivals = 0
        self._lock = threading.RLock()

    def write(self, role: str, pid: int, kind: str, text: str, at_ns: int | None = None) -> None:
        """Enter one thing said, now or at a time in the past."""
        with self._lock:
            self._arrivals += 1
            at_ns = time.monotonic_ns() if at_ns is None else at_ns
            heapq.heappush(self._heap, Entry(at_ns, self._arrivals, role, pid, kind, visible(text, keep="\n\t")))
            if not self.turned_by_pump:
                self.turn(everything=True)

    def turn(self, heard_ns: int = 0, everything: bool = False) -> None:
        """Emit what is ripe when the last pass over all pipes began at `heard_ns`, or everything."""
        with self._lock:
            ripe_ns = heard_ns - WINDOW_NS
            while self._heap and (everything or self._heap[0].at_ns <= ripe_ns):
                # Taken out first: a sink that raises, or is interrupted, must not see the entry again.
                self._emit(render(heapq.heappop(self._heap), self.origin_ns))

    def _emit(self, line: Line) -> None:
        if self.error is None:
            try:
                self._sink(line)
            except Exception as error:
                self.error = error

    @property
    def hurry(self) -> bool:
        """Whether printing may be cut short because nobody reads."""
        return self._printer.hurry

    @hurry.setter
    def hurry(self, value: bool) -> None:
        self._printer.hurry = value

    def next_turn_s(self) -> float | None:
        """In how many seconds the next entry will be ripe; None: none waits."""
        with self._lock:
            if not self._heap:
                return None
            return max(0, self._heap[0].at_ns + WINDOW_NS - time.monotonic_ns()) / 1e9

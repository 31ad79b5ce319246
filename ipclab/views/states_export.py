"""A recording for other programs: JSON, CSV and Chrome's trace format, piece by piece, however long it is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator

import msgspec

from ipclab.records import Interval, Recording, Tracked
from ipclab.views.digest import label, mark_of
from ipclab.views.gantt import MEANING

#: Colours of Chrome's own viewer (catapult's color_scheme.html). ui.perfetto.dev colours by the slice's name instead,
#: which is why a slice is named after its state alone.
_COLOURS = {
    "R": "thread_state_running",
    "r": "thread_state_runnable",
    "?": "thread_state_running",
    "S": "thread_state_sleeping",
    "D": "thread_state_uninterruptible",
    "T": "yellow",
    "t": "olive",
    "Z": "grey",
    "X": "black",
    "I": "generic_work",
    "P": "generic_work",
}
_CSV = (
    "pid", "tid", "name", "state", "on_cpu", "start_ns", "end_ns", "duration_ns", "start_slack_ns", "source", "wchan",
    "syscall", "cpu", "assumed",
)  # fmt: skip


def states_json(head: Recording, intervals: Iterable[Interval]) -> Iterator[bytes]:
    """{"recording": the head, "intervals": [one per line]}."""
    yield b'{"recording": ' + msgspec.json.format(msgspec.json.encode(head), indent=2) + b',\n"intervals": ['
    separator = b"\n"
    encoder = msgspec.json.Encoder()
    for interval in intervals:
        yield separator + encoder.encode(interval)
        separator = b",\n"
    yield b"\n]}\n"


def states_csv(head: Recording, intervals: Iterable[Interval]) -> Iterator[bytes]:
    """One line per interval, with a heading; empty where there is nothing to tell."""
    names = {thread.tid: thread.name for thread in head.threads}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV)
    for interval in intervals:
        row = msgspec.structs.asdict(interval)
        row.update(name=names.get(interval.tid, ""), duration_ns=interval.end_ns - interval.start_ns)
        writer.writerow([row[column] for column in _CSV])
        yield _emptied(out)
    yield _emptied(out)


def states_chrome(head: Recording, intervals: Iterable[Interval]) -> Iterator[bytes]:
    """Trace Event Format, JSON object form: opens in ui.perfetto.dev and chrome://tracing.

    A process has a track of its own, and one for each of its other threads; times are microseconds since the record
    began. The head, with its completeness, is in otherData.
    """
    about = json.dumps({"ipclab": msgspec.to_builtins(head)}, separators=(",", ":"))
    yield b'{"displayTimeUnit": "ns", "otherData": ' + about.encode() + b',\n"traceEvents": ['
    separator = b"\n"
    for event in _events(head, intervals):
        yield separator + json.dumps(event, separators=(",", ":")).encode()
        separator = b",\n"
    yield b"\n]}\n"


def _events(head: Recording, intervals: Iterable[Interval]) -> Iterator[dict[str, object]]:
    start_ns = min([head.start_ns, *(thread.first_ns for thread in head.threads)])
    for order, thread in enumerate(head.threads):
        yield from _named(thread, order)
    for interval in intervals:
        mark = mark_of(interval)
        told: dict[str, object] = {
            "source": interval.source,
            "system call": interval.syscall,
            "kernel function": interval.wchan,
        }
        told |= {"cpu": interval.cpu, "began at most earlier (ns)": interval.start_slack_ns or None}
        yield {
            "ph": "X",
            "cat": "state",
            "name": f"{interval.state} {MEANING[mark]}",
            "pid": interval.pid,
            "tid": interval.tid,
            "ts": (interval.start_ns - start_ns) / 1000,
            "dur": (interval.end_ns - interval.start_ns) / 1000,
            "cname": _COLOURS[mark],
            "args": {name: value for name, value in told.items() if value is not None},
        }


def _named(thread: Tracked, order: int) -> Iterator[dict[str, object]]:
    place = {"ph": "M", "pid": thread.pid, "tid": thread.tid}
    if thread.pid == thread.tid:
        yield {**place, "name": "process_name", "args": {"name": thread.name}}
        yield {**place, "name": "process_sort_index", "args": {"sort_index": order}}
    yield {**place, "name": "thread_name", "args": {"name": label(thread)}}


def _emptied(out: io.StringIO) -> bytes:
    data = out.getvalue().encode("utf-8", "backslashreplace")
    out.seek(0)
    out.truncate()
    return data

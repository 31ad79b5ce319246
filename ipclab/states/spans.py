"""Intervals as they leave the core (struct span, core/timeline.h): 48 bytes each, and the records made of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

from ipclab.processes import procfs
from ipclab.records import Interval, SourceName, StateName

LAYOUT = struct.Struct("<qqqiihhHcbBB6x")
SOURCES: tuple[SourceName, ...] = ("poll", "events", "switch", "trace")
#: Bits of `flags`.
ASSUMED = 1
UNCOVERED = 2
_NO_SYSCALL = -1


class Span(NamedTuple):
    """One interval, field by field as in the core."""

    start_ns: int
    end_ns: int
    slack_ns: int
    pid: int
    tid: int
    cpu: int
    syscall: int
    wchan: int
    state: bytes
    on_cpu: int
    source: int
    flags: int


def unpack(data: bytes) -> Iterator[Span]:
    """The spans in a chunk."""
    return map(Span._make, LAYOUT.iter_unpack(data))


def interval_of(span: Span, names: Sequence[str]) -> Interval:
    """The record; `names` are the kernel functions, in the order the core gave them."""
    state = cast(StateName, span.state.decode("ascii"))
    return Interval(
        pid=span.pid,
        tid=span.tid,
        state=state,
        on_cpu=None if span.on_cpu < 0 else bool(span.on_cpu),
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        start_slack_ns=span.slack_ns,
        source=SOURCES[span.source],
        wchan=names[span.wchan - 1] if 0 < span.wchan <= len(names) else None,
        syscall=None if span.syscall == _NO_SYSCALL else procfs.syscall_name(span.syscall),
        cpu=None if span.cpu < 0 else span.cpu,
        assumed=bool(span.flags & ASSUMED),
    )


def in_order(chunks: Iterable[bytes], since_ns: int = 0) -> list[Span]:
    """The spans of all chunks that end after `since_ns`, by their start."""
    return sorted(span for chunk in chunks for span in unpack(chunk) if span.end_ns > since_ns)

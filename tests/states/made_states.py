"""A recording made by hand: two processes, one with a second thread, in every state there is."""

from __future__ import annotations

from typing import Any

from ipclab.records import Completeness, Interval, Recording, SourceStanding, Tracked

MS = 1_000_000
START_NS = 5_000_000_000


def interval(tid: int, state: Any, begin_ms: float, end_ms: float, *, pid: int = 10, **more: Any) -> Interval:
    """Times in milliseconds since the record's start."""
    start_ns, end_ns = START_NS + int(begin_ms * MS), START_NS + int(end_ms * MS)
    return Interval(pid=pid, tid=tid, state=state, start_ns=start_ns, end_ns=end_ns, source="poll", **more)


INTERVALS = (
    interval(10, "R", 0, 10, on_cpu=True, cpu=1),
    interval(11, "S", 0, 100, syscall="futex", wchan="futex_wait_queue"),
    interval(10, "R", 10, 20, on_cpu=False),
    interval(10, "S", 20, 60, syscall="write", wchan="pipe_write"),
    interval(20, "R", 30, 40, pid=20),
    interval(20, "D", 40, 50, pid=20),
    interval(20, "T", 50, 60, pid=20),
    interval(10, "R", 60, 99.999, on_cpu=True),
    interval(20, "t", 60, 70, pid=20),
    interval(20, "Z", 70, 79.999, pid=20),
    interval(20, "X", 79.999, 80, pid=20),
    interval(10, "Z", 99.999, 100),
)


def tracked(tid: int, name: str, begin_ms: float, end_ms: float, *, pid: int = 10, **more: Any) -> Tracked:
    return Tracked(
        pid=pid,
        tid=tid,
        name=name,
        start_ticks=1,
        ppid=1,
        first_ns=START_NS + int(begin_ms * MS),
        last_ns=START_NS + int(end_ms * MS),
        **more,
    )


def recording(**changes: Any) -> Recording:
    """The head that goes with INTERVALS."""
    given: dict[str, Any] = {
        "command": "ipclab states",
        "pids": (10,),
        "started_at": "2026-01-01T00:00:00+00:00",
        "start_ns": START_NS,
        "end_ns": START_NS + 100 * MS,
        "sources": (
            SourceStanding(source="trace", used=False, reason="needs root"),
            SourceStanding(source="poll", used=True),
        ),
        "rate_hz": 1000.0,
        "reached_hz": 990.0,
        "threads": (
            tracked(
                10, "writer", 0, 100, gone=True, exit_code=3, switches_seen=7, switches_counted=8,
                time_ns={"running": 50 * MS, "runnable": 10 * MS, "S": 40 * MS},
            ),
            tracked(11, "pump", 0, 100, gone=False, time_ns={"S": 100 * MS}),
            tracked(
                20, "child\x1b[2J", 30, 80, pid=20, gone=True, signal=9, unreadable={"wchan": "another user's"},
                time_ns={"R": 10 * MS, "D": 10 * MS, "T": 10 * MS, "t": 10 * MS, "Z": 9_999_000, "X": 1000},
            ),
        ),
        "intervals_count": len(INTERVALS),
        "completeness": Completeness(
            switches_seen=7, switches_counted=8, events_lost=0, uncovered_ns=2 * MS, lives_ns=250 * MS
        ),
    }  # fmt: skip
    return Recording(**{**given, **changes})

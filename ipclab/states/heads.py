"""The head of a recording: what became of each thread, and how complete all of it is.

Completeness, in numbers
  counted    poll: schedstat's count of slices given: the number of switches away, but for one that is under way.
             trace, switch: /proc/PID/task/TID/status, read when a thread is first met and when it has ended or the
             record does; switches that fell into a reading are taken for either.
  seen       ends of slices that lie in the record (core/timeline.h, rule 10).
  disagree   only for exact sources: the kernel counted more, or fewer, than the events say, and more than they say they
             lost. Then the record is wrong somewhere, and the tracker fails.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ipclab.records import Completeness, Tracked
from ipclab.states.glance import why_refused

LAYOUT = struct.Struct("<2Q9q5i4B16s11q")
SHARES = ("running", "runnable", "R", "S", "D", "T", "t", "Z", "X", "I", "P")
#: As `leader` has them, core/timeline.h.
_POLL, _SWITCH = 0, 2
_NOT_COUNTED = -1


class Facts(NamedTuple):
    """struct facts of core/followed.h."""

    serial: int
    start_ticks: int
    first_ns: int
    last_ns: int
    uncovered_ns: int
    switches: int
    counted: int
    checked_least: int
    checked_most: int
    wait_ns: int
    run_ns: int
    pid: int
    tid: int
    ppid: int
    exit_status: int
    refused: int
    gone: int
    kernel: int
    leader: int
    named: int
    comm: bytes
    shares: tuple[int, ...]


def unpack(data: bytes) -> Iterable[Facts]:
    """The facts in a chunk from the core."""
    for row in LAYOUT.iter_unpack(data):
        yield Facts._make((*row[:21], row[21:]))


def tracked(facts: Facts) -> Tracked:
    """The record of one thread."""
    status = facts.exit_status
    ended = status >= 0 and bool(facts.gone)
    return Tracked(
        pid=facts.pid,
        tid=facts.tid,
        start_ticks=facts.start_ticks,
        name=facts.comm.rstrip(b"\0").decode("utf-8", "replace"),
        ppid=facts.ppid,
        first_ns=facts.first_ns,
        last_ns=facts.last_ns,
        gone=bool(facts.gone),
        exit_code=os.WEXITSTATUS(status) if ended and os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if ended and os.WIFSIGNALED(status) else None,
        switches_seen=facts.switches,
        switches_counted=None if facts.counted == _NOT_COUNTED else facts.counted,
        uncovered_ns=min(facts.uncovered_ns, facts.last_ns - facts.first_ns),
        time_ns={name: ns for name, ns in zip(SHARES, facts.shares, strict=True) if ns},
        unreadable=_unreadable(facts.refused),
    )


def completeness(all_facts: Iterable[Facts], numbers: Mapping[str, int], assumed_ns: int) -> Completeness:
    """How complete the record of these threads is; `numbers` are the core's."""
    seen = counted = uncovered = lives = uncounted = 0
    wrong: list[str] = []
    lost = numbers["events_lost"] + numbers["spans_lost"]
    for facts in all_facts:
        lives += facts.last_ns - facts.first_ns
        uncovered += min(facts.uncovered_ns, facts.last_ns - facts.first_ns)
        if facts.counted == _NOT_COUNTED:
            uncounted += 1
            continue
        counted += facts.counted
        seen += min(facts.switches, facts.counted) if facts.leader < _SWITCH else facts.checked_least
        if facts.leader >= _SWITCH and not facts.checked_least <= facts.counted <= facts.checked_most + lost:
            wrong.append(_disagreement(facts))
    return Completeness(
        switches_seen=min(seen, counted) if not wrong else seen,
        switches_counted=counted,
        events_lost=lost,
        uncovered_ns=uncovered,
        lives_ns=lives,
        assumed_ns=assumed_ns,
        uncounted_threads=uncounted,
        unseen_processes=numbers["unseen"],
        disagreement="; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more threads" if len(wrong) > 3 else ""),
    )


def _disagreement(facts: Facts) -> str:
    most = "" if facts.checked_least == facts.checked_most else f" to {facts.checked_most}"
    told = f"{facts.checked_least}{most}"
    return f"thread {facts.tid}: {facts.counted} switches counted by the kernel, {told} told by events"


def _is_refusal(number: int, name: str) -> bool:
    """Whether an errno says no for good: a thread that was just dying has no file, and that is no news."""
    missing = number == errno.ENOENT and Path("/proc/self", name).exists()
    return number not in (0, errno.ESRCH) and not missing


def _unreadable(refused: int) -> dict[str, str]:
    wchan, syscall = refused >> 16, refused & 0xFFFF
    found = {"wchan": why_refused(wchan)} if _is_refusal(wchan, "wchan") else {}
    if _is_refusal(syscall, "syscall"):
        found["syscall"] = why_refused(syscall)
        # Without the right to trace, wchan reads as 0 and not as an error.
        found.setdefault("wchan", found["syscall"])
    return found

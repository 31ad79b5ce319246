"""What the tracker has seen: intervals of states, the processes they belong to, and how complete all of it is.

A recording may be longer than memory: `Recording` is its head, and `Interval`s follow one by one, from a list or from
the database they were spilled to. Everything that draws or exports takes both: a head, and an iterable of intervals in
the order of their start.

Times are nanoseconds of CLOCK_MONOTONIC, as time.monotonic_ns() has them, the same for all processes of a machine.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ipclab.records.standing import Standing

STATES_SCHEMA_VERSION = 1

#: proc(5): R running or runnable, S sleep, D uninterruptible sleep, T stopped, t stopped by a tracer, Z zombie,
#: X dead (after it the process is gone), I idle kernel thread, P parked kernel thread.
StateName = Literal["R", "S", "D", "T", "t", "Z", "X", "I", "P"]
#: poll: /proc read again and again. switch: PERF_RECORD_SWITCH, on-CPU edges. trace: the scheduler's own events in a
#: tracefs instance. events: the proc connector and pidfds (fork, exec, exit).
SourceName = Literal["poll", "switch", "trace", "events"]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """One thread in one state, from an edge to the next."""

    pid: int
    #: Thread id; of a process's main thread the pid.
    tid: int
    state: StateName
    #: Of R: True it had a CPU, False it waited for one, None the source cannot tell. Of all others None.
    on_cpu: bool | None = None
    start_ns: int
    end_ns: int
    #: The edge lies at most this much before or after `start_ns`. 0: an event told it, or the counters leave no room.
    start_slack_ns: int = 0
    #: What told it.
    source: SourceName
    #: Of a sleep: the kernel function it sleeps in; None: not asked, or see `Tracked.unreadable`.
    wchan: str | None = None
    #: Of a sleep: the system call it is blocked in; None as with `wchan`.
    syscall: str | None = None
    #: The CPU it ran on or waits for; None: the source cannot tell.
    cpu: int | None = None
    #: Of S: that it slept is proved, by an event or a counter, but nobody looked in time whether in S or in D.
    assumed: bool = False


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """One thread that was followed, and how much of its life is in the record."""

    pid: int
    tid: int
    #: Its start time in clock ticks since boot: with the pid the identity of a process (pids are used again).
    start_ticks: int
    #: comm: what the kernel calls it (15 bytes), as last seen.
    name: str
    #: The parent when first seen; 0: outside this pid namespace.
    ppid: int
    #: When the record of it begins and ends.
    first_ns: int
    last_ns: int
    #: It is gone; its end was seen.
    gone: bool
    #: How it ended, where its parent or an event told: exit code, or the signal that killed it.
    exit_code: int | None = None
    signal: int | None = None
    #: Switches that are in the record, and those the kernel counted meanwhile (voluntary and not). None: not told.
    switches_seen: int = 0
    switches_counted: int | None = None
    #: Time between first and last that no look and no event tells of.
    uncovered_ns: int = 0
    #: Nanoseconds in each state: key "S", "D", ..., and of R "running", "runnable" or, where unknown, "R".
    time_ns: dict[str, int] = {}
    #: Why something could not be read: {"wchan": "needs the right to trace it: another user's process"}.
    unreadable: dict[str, str] = {}


class Completeness(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the truth is in a recording; always shown with it."""

    #: Of all tracked threads whose counters could be read, together.
    switches_seen: int
    switches_counted: int
    #: Events the kernel says it lost, and those missing by sequence number.
    events_lost: int
    #: Of the sum of all threads' lives, the time nobody tells of.
    uncovered_ns: int
    lives_ns: int
    #: Of the sleeping time, how much is S by assumption: too short for a look to fall into (`Interval.assumed`).
    assumed_ns: int = 0
    #: Threads that ended before their counter could be read: their switches are in neither figure.
    uncounted_threads: int = 0
    #: Processes known to have lived (forked by one that was followed) of which no state was seen.
    unseen_processes: int = 0
    #: Events and counters disagree beyond what was lost: a fault of the source, told in a sentence. "": they agree.
    disagreement: str = ""

    @property
    def share(self) -> float | None:
        """Switches seen of those counted, 0 to 1; None when none was counted."""
        return min(1.0, self.switches_seen / self.switches_counted) if self.switches_counted else None


class SourceStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A source, whether it was used, and if not why not."""

    source: SourceName
    used: bool
    #: Why not, or why no longer, and how to get it; "" when used throughout.
    reason: str = ""
    #: When it broke, if it did while running.
    broke_ns: int | None = None


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Of one source: does it run here, if not why, and how to get it. What the doctor says."""

    source: SourceName
    standing: Standing
    reason: str = ""
    remedy: str = ""


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a recording."""

    schema_version: int = STATES_SCHEMA_VERSION
    #: The command line that made it.
    command: str
    #: What was tracked: pids that were named, or the command that was started.
    pids: tuple[int, ...]
    tracked_command: tuple[str, ...] = ()
    started_at: str
    start_ns: int
    end_ns: int
    #: The layers that were asked for or tried, best first.
    sources: tuple[SourceStanding, ...]
    #: Looks a second of the poll: asked for (None: flat out) and reached.
    rate_hz: float | None
    reached_hz: float | None = None
    follow: bool = True
    threads: tuple[Tracked, ...] = ()
    intervals_count: int = 0
    completeness: Completeness
    #: How many threads were asked, a second: one look at 16 threads counts 16.
    looks_per_s: float | None = None
    #: Share of one CPU the tracker itself used.
    own_cpu_share: float | None = None
    #: Exit code of the command that was started; 128 + n when a signal ended it. None: none was started.
    exit_code: int | None = None
    #: What a reader has to know: fall-backs, limits, what could not be read.
    notes: tuple[str, ...] = ()


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """`states.read(pid)`: one process at one moment."""

    pid: int
    name: str
    #: "X" also when there is no such process (any more): then the other fields are empty.
    state: StateName
    at_ns: int
    ppid: int | None = None
    start_ticks: int | None = None
    threads: int | None = None
    cpu: int | None = None
    wchan: str | None = None
    syscall: str | None = None
    run_ns: int | None = None
    #: Time it waited for a CPU since it began.
    wait_ns: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    unreadable: dict[str, str] = {}


class ZooEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One state of the zoo, held by a real process and read back."""

    #: "R running", "R runnable", "S", "D", "T", "t", "Z", "X", "I".
    title: str
    state: StateName
    meaning: str
    #: How the process was brought into it, in system calls.
    recipe: str
    #: What /proc says of it while it is held; None: it could not be held here.
    seen: Glance | None
    #: Reads while held, and how many of them showed the state.
    reads: int
    hits: int
    #: Of X: how many processes had to die until it was seen.
    tries: int = 1
    #: Of R: share of the time of the reads in which it had a CPU; the rest of it, it waited for one. None: not told.
    ran_share: float | None = None
    #: Who can end the state, and how.
    ended_by: str
    #: Why it is not here; "".
    reason: str = ""


class Zoo(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="zoo"):
    """All of the zoo."""

    entries: tuple[ZooEntry, ...]

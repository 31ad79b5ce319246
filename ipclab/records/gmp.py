"""What the scheduler (GMP) tells: one event, one run of a workload.

Times are nanoseconds of CLOCK_MONOTONIC, as time.monotonic_ns() has them; durations say so in their name's end, too.
"""

from __future__ import annotations

from typing import Literal

import msgspec

GMP_SCHEMA_VERSION = 1

#: m:n - any number of Gs on any number of Ms, at most `procs` of them running. n:1 - one M, cooperative. 1:1 - an M
#: for each G from its first step to its last.
ModelName = Literal["m:n", "n:1", "1:1"]
#: done: every G has ended. deadlock: all that are left are asleep. misuse: a G broke a rule of Go's (send on a closed
#: channel, unlock of an unlocked mutex ...). limit: no room for another G or M, or the kernel makes no more processes.
#: internal: the scheduler found itself inconsistent. stopped: it was ended before any of these.
Outcome = Literal["done", "deadlock", "misuse", "limit", "internal", "stopped"]


class SchedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that one M did; core/gmp/events.h has all kinds and what `arg` means in each."""

    time_ns: int
    #: "create", "start", "end", "block", "steal", "handoff" ...
    kind: str
    #: The M's id; it wrote the event.
    m: int
    #: The P it had then; None: none.
    p: int | None
    #: The G it is about; 0: none.
    goid: int
    arg: int


class WaitingG(msgspec.Struct, frozen=True, kw_only=True):
    """One G that waits, when all do."""

    goid: int
    #: Which job it is of; "main" makes the others arrive.
    job: str
    #: The step it is in, as the workload has it.
    step: str
    #: Go's wait reason: "chan receive", "sync.Mutex.Lock" ...
    reason: str
    #: None: the scheduler does not keep the Gs' times.
    waited_ns: int | None
    #: The goid of the G that made it, and where: its job, and the step as the workload has it. Of main: 0, "", "".
    parent: int
    parent_job: str
    parent_step: str


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """The Gs of one job. Means are over those that ended; None: none did."""

    name: str
    spawned: int
    done: int
    #: Died with the M that ran them.
    lost: int
    #: Mean time from a G's creation to its end.
    turnaround_ns: float | None
    #: Mean time from a G's creation to its first step.
    response_ns: float | None
    #: Mean time a G was _Grunnable: from the moment it could go on until an M took it up. Not the time it was _Grunning
    #: and its M had no CPU: the kernel knows of no G, and of the Ms that is `SimTotals.run_delay_ns`.
    waiting_ns: float | None
    #: From the start of the run to the end of the job's last G.
    finished_ns: int | None
    #: Sum of all values received from channels.
    received: int


class SimTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler did in the whole run."""

    #: Of the scheduler: an M took up another G.
    context_switches: int
    steals: int
    #: A P passed on by an M that blocks or is locked to another G, by itself or by sysmon.
    handoffs: int
    #: A G made to give way: after 10 ms while others waited, or for a stop of the world. Not: one that was only asked.
    preemptions: int
    #: A P taken out of a system call by sysmon.
    retakes: int
    #: Processes made to be Ms, sysmon among them.
    ms_made: int
    #: CPU time of the Ms and of the template, from wait4(2).
    cpu_user_ns: int
    cpu_system_ns: int
    #: How long all Ms together, sysmon among them, were runnable for the kernel and had no CPU: /proc/PID/schedstat at
    #: their end. None: it is not known of every M.
    run_delay_ns: int | None = None
    #: Of the kernel, in the same processes: by themselves (they slept), and not.
    kernel_switches_voluntary: int
    kernel_switches_involuntary: int
    #: Ms that died in the middle of something, repairs after it, and the longest one.
    deaths: int
    repairs: int
    longest_repair_ns: int
    #: Events that were overwritten before they could be read; 0 where none were asked for.
    events_lost: int


class SimResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="gmp-sim"):
    """One run of one workload."""

    schema_version: int = GMP_SCHEMA_VERSION
    workload: str
    model: ModelName
    #: Ps at the end of the run.
    procs: int
    #: CPUs this process may use: affinity, and the cgroup's quota rounded up.
    cpus: int
    seed: int
    outcome: Outcome
    #: Why it ended, where not "done".
    message: str
    started_ns: int
    #: From the start to the end of the last G, or to the moment it was ended.
    duration_ns: int
    jobs: tuple[JobResult, ...]
    totals: SimTotals
    #: Ids of Gs that died with their M; the last 64.
    lost_goids: tuple[int, ...] = ()
    #: In a deadlock: the Gs that are left, the first 10,000 of them; and how many they are.
    waiting: tuple[WaitingG, ...] = ()
    waiting_total: int = 0
    #: In the order of their time; empty where they were not asked for, or given to `on_event`.
    events: tuple[SchedEvent, ...] = ()
    #: With events: the job of each G they tell of, by its goid, where that is certain; "main" makes the others arrive.
    job_of: dict[int, str] = {}
    #: With events: what each job does: its steps as the workload has them, each text once.
    steps_of: dict[str, tuple[str, ...]] = {}

    @property
    def lost(self) -> int:
        """How many Gs died with their M, main among them."""
        return sum(job.lost for job in self.jobs)

    @property
    def ok(self) -> bool:
        """Every G has ended by itself."""
        return self.outcome == "done" and not self.lost_goids

    def without_events(self) -> SimResult:
        """The same without the events, and what is there to read them."""
        return msgspec.structs.replace(self, events=(), job_of={}, steps_of={})


class PState(msgspec.Struct, frozen=True, kw_only=True):
    """One P. References are ids: of Ms and Ps as Go counts them, of Gs their goid; None is nil."""

    id: int
    status: str
    m: int | None
    #: The G that runs next, before its queue; then the queue from head to tail.
    runnext: int | None
    runq: tuple[int, ...]
    #: The dead Gs it keeps for the next `go`: how many; and who sleeps on its timers.
    gfree: int
    timers: tuple[int, ...]
    #: Every word of the record under Go's name: indices into the tables as they are.
    fields: dict[str, int]


class MState(msgspec.Struct, frozen=True, kw_only=True):
    """One M: a process."""

    id: int
    pid: int
    #: "M", "sysmon", or how it ended: "dead", "exited"; "unborn": asked for, not yet made.
    role: str
    #: Where its record says it is: "runtime", "user", "parked", "gate" (while all is held), "robbed", "gone".
    where: str
    #: The kernel's letter for it (R S D T t Z), "" when it is gone.
    kernel_state: str
    p: int | None
    nextp: int | None
    oldp: int | None
    curg: int | None
    lockedg: int | None
    spinning: bool
    blocked: bool
    idle: bool
    fields: dict[str, int]


class GState(msgspec.Struct, frozen=True, kw_only=True):
    """One G."""

    goid: int
    status: str
    #: Go's wait reason; of the last wait, where it waits no more.
    waitreason: str
    #: Since when it has waited; None: it does not wait, or the scheduler does not keep the Gs' times.
    waited_ns: int | None
    m: int | None
    lockedm: int | None
    parent: int
    #: Where its parent made it: program and step, both numbers.
    made_at: tuple[int, int]
    #: Its program's number, and the step it is at.
    program: int
    pc: int
    fields: dict[str, int | str]


class ChanState(msgspec.Struct, frozen=True, kw_only=True):
    """One channel, by number."""

    number: int
    capacity: int
    buffered: int
    closed: bool
    #: goids, who came first is first.
    recvq: tuple[int, ...]
    sendq: tuple[int, ...]


class SemaState(msgspec.Struct, frozen=True, kw_only=True):
    """One semaphore, mutex or wait group, by number."""

    number: int
    kind: str
    #: A semaphore's count; of a mutex 1 if it is locked, of a wait group its counter.
    value: int
    holder: int | None
    q: tuple[int, ...]


class SchedSnapshot(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="gmp-snapshot"):
    """All of a scheduler's state at one moment."""

    schema_version: int = GMP_SCHEMA_VERSION
    taken_ns: int
    caller_pid: int
    template_pid: int
    model: ModelName
    #: The world stood still while it was copied.
    consistent: bool
    #: Why not, where it did not; and what else a reader must know: an M that is stopped, or dead.
    notes: tuple[str, ...]
    #: How long the world stood still for it; None: it was not stopped for it.
    stopped_ns: int | None
    #: How it has ended, "" while it runs.
    ended: str
    #: Every word of sched under Go's name.
    sched: dict[str, int]
    #: The lists of sched: idle Ms, idle Ps, the global run queue, Ms asked for and not yet made.
    midle: tuple[int, ...]
    pidle: tuple[int, ...]
    runq: tuple[int, ...]
    newm: tuple[int, ...]
    #: All Ms by id, Ps by id (those that have been in use), Gs by their place in allgs.
    ps: tuple[PState, ...]
    ms: tuple[MState, ...]
    gs: tuple[GState, ...]
    #: Gs that are in allgs and not here: more than were asked for.
    gs_left_out: int
    channels: tuple[ChanState, ...]
    semaphores: tuple[SemaState, ...]


class WorkloadEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One workload that ships."""

    name: str
    about: str


class WorkloadList(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="gmp-workloads"):
    """All of them."""

    schema_version: int = GMP_SCHEMA_VERSION
    workloads: tuple[WorkloadEntry, ...]


class RunningScheduler(msgspec.Struct, frozen=True, kw_only=True):
    """One that was found."""

    caller_pid: int
    template_pid: int
    #: The caller's command line, its first 80 characters.
    command: str
    #: It runs no more, and has not been closed yet.
    ended: bool

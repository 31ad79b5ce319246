"""What the bench was asked, where it ran, what it measured, and what follows: one `Run` holds all of it.

A record of a run is versioned: `SCHEMA_VERSION` goes up when a field changes its meaning or goes; a new field with a
default does not count, older records then simply lack it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ipclab.records.machine import Fact
from ipclab.records.mechanisms import Limit

SCHEMA_VERSION = 1

DriverName = Literal["native", "python"]
#: throughput: one way, timed at the receiver. pingpong: there and back. openloop: sent on a schedule, latency counted
#: from the scheduled time.
Pattern = Literal["throughput", "pingpong", "openloop"]
#: Where the two sides run; "cpus": on those the user named.
PlacementName = Literal["cpu", "smt", "llc", "node", "socket", "any", "cpus"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `ipclab bench run` was asked; its defaults are the command's."""

    #: Empty: all.
    mechanisms: tuple[str, ...] = ()
    sizes_bytes: tuple[int, ...] = (64, 1024, 65536)
    drivers: tuple[DriverName, ...] = ("native", "python")
    patterns: tuple[Pattern, ...] = ("throughput", "pingpong")
    placements: tuple[PlacementName, ...] = ("any",)
    #: Two CPUs, or one for each process; goes before `placements`.
    cpus: tuple[int, ...] = ()
    #: The NUMA node messages shall lie on; None: that of the first CPU.
    memory_node: int | None = None
    pairs: tuple[int, ...] = (1,)
    producers: int = 1
    consumers: int = 1
    #: Messages per second of the open loop, of each pair.
    rate_per_s: float | None = None
    #: Messages in flight a mechanism shall have room for; None: its own default.
    depth: int | None = None
    #: Whether multiprocessing's and other libraries' channels are measured too.
    peers: bool = False
    #: Everything within 90 s on two CPUs: shorter samples, fewer rounds.
    quick: bool = False
    #: Samples of each case; None: as many as `quick` allows, else 7.
    rounds: int | None = None
    #: How long one sample shall take at least; None: 100 ms, quick 20 ms.
    sample_ms: float | None = None
    #: After so many seconds no further sample is started; None: no limit, quick 72 s.
    budget_s: float | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Which CPUs a placement means on this machine."""

    name: PlacementName
    #: Of every process: of pairs a, b, a, b, ...; of a fan all producers, then all consumers.
    cpus: tuple[int, ...]
    #: One line: "CPU 0 and CPU 1: two cores that share a level-3 cache".
    description: str
    #: The NUMA node messages lie on; None: the kernel does not tell.
    memory_node: int | None = None
    #: Whether that node was asked for (set_mempolicy(2)), or only follows from the CPU that makes the objects.
    memory_node_set: bool = False


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine as it was during the run. None: this machine does not tell."""

    kernel: str
    architecture: str
    cpu_model: str
    cpus_online: int
    #: CPUs this process may use.
    cpus_allowed: tuple[int, ...]
    #: The hypervisor's or container's name; "" on bare metal; None: cannot be told.
    virtual: str | None
    governor: str | None
    #: The deepest idle state's name and how long leaving it takes; an idle CPU's wake-up is at least this slow.
    deepest_idle_state: str | None
    deepest_idle_latency_us: int | None
    smt_active: bool | None
    #: Name of a CPU weakness -> what the kernel does about it, of those that affect this CPU.
    mitigations: dict[str, str]
    numa_nodes: int
    numa_balancing: bool | None
    #: CPUs' worth of time of the control group (cpu.max); None: no quota.
    cpu_quota: float | None
    cpuset: str | None
    #: Time that group was throttled during the run; None: the kernel does not tell.
    throttled_ns: int | None
    #: Load average over a minute at the start.
    load_1min: float | None
    python: str
    c_library: str
    dev_shm_free_bytes: int | None
    page_bytes: int
    limits: tuple[Limit, ...] = ()
    #: Everything else the doctor knows.
    facts: tuple[Fact, ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to measure: a row of the table, as long as all its samples are of one placement cluster."""

    mechanism: str
    driver: DriverName
    pattern: Pattern
    #: 0: the mechanism carries no data.
    size_bytes: int
    placement: PlacementName = "any"
    #: Of every process: of pairs a, b, a, b, ...; of a fan all producers, then all consumers.
    cpus: tuple[int, ...] = ()
    pairs: int = 1
    producers: int = 1
    consumers: int = 1
    #: Of the open loop.
    rate_per_s: float | None = None
    #: Messages the mechanism was made with room for; None: it has no such number.
    depth: int | None = None
    #: Buffer sizes in bytes as the kernel gave them, by name: {"pipe": 1048576}.
    buffers: dict[str, int] = {}
    #: Whether this mechanism, or a library's part of it, spins before it sleeps.
    spins: bool = False

    @property
    def key(self) -> str:
        """The case as one string, the same in every run that measures the same thing on the same CPUs.

        Depth and buffers are not in it: they are what the kernel gave, and `compare` looks at them by itself.

        >>> Case(mechanism="pipe", driver="native", pattern="pingpong", size_bytes=64, cpus=(0, 1)).key
        'pipe native pingpong 64 any 0,1'
        """
        words = [self.mechanism, self.driver, self.pattern, str(self.size_bytes), self.placement]
        words.append(",".join(map(str, self.cpus)))
        if self.pairs != 1:
            words.append(f"pairs={self.pairs}")
        if (self.producers, self.consumers) != (1, 1):
            words.append(f"fan={self.producers}:{self.consumers}")
        if self.rate_per_s is not None:
            words.append(f"rate={self.rate_per_s:g}")
        return " ".join(words)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A case that cannot be measured here, and why, in one line with the way out."""

    case: Case
    reason: str


class SideCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one process spent on one sample, setting up and warming up not counted."""

    #: "a" or "b" (throughput and open loop: a sends), with a number where there are several: "a2".
    role: str
    cpu: int
    #: Messages this process moved; of a ping-pong round trips.
    messages: int
    #: User and system time, from getrusage(2).
    cpu_ns: int
    voluntary_switches: int
    involuntary_switches: int
    #: Time it was runnable and had no CPU, from /proc/PID/schedstat; None: the kernel does not tell.
    run_delay_ns: int | None = None
    #: The mechanism's own, as the driver counted them; None: `system_calls_reason` says why not.
    system_calls: int | None = None
    system_calls_reason: str = ""
    #: How often it went to sleep; None: only the voluntary switches tell.
    sleeps: int | None = None
    #: System calls made only to wake the other side.
    wakes: int | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement in fresh processes, raw."""

    case_key: str
    #: 0 is the first; samples of one round were taken one after the other.
    round: int
    #: Of all pairs together; of a ping-pong round trips.
    messages: int
    #: On the receiver's clock (ping-pong: on the asking side's), of the slowest pair.
    duration_ns: int
    #: Lower bound of a bucket in ns -> count; None: throughput has none.
    histogram: dict[int, int] | None = None
    #: Exact; None as the histogram.
    max_ns: int | None = None
    sides: tuple[SideCost, ...] = ()
    #: Of each pair; of one pair the duration.
    pair_durations_ns: tuple[int, ...] = ()
    #: Cache-line round trip between the two CPUs; 0: both are the same; None: it could not be taken.
    fingerprint_before_ns: int | None = None
    fingerprint_after_ns: int | None = None
    #: Which placement cluster the fingerprint lies in: "same", "fast", "middle", "slow"; "?" when it is not known.
    cluster: str = "?"
    throttled_ns: int = 0
    kept: bool = True
    #: Why it does not count, in words that are the same for all samples with that reason.
    dropped_reason: str = ""
    #: What went wrong, with the message named; such a sample is never kept.
    failure: str = ""
    #: Monotonic time since the run began.
    started_ns: int = 0

    @property
    def per_s(self) -> float:
        """Messages (round trips) per second of all pairs together; 0.0 when nothing was measured."""
        return self.messages * 1e9 / self.duration_ns if self.duration_ns > 0 else 0.0


class TracedCalls(msgspec.Struct, frozen=True, kw_only=True):
    """System calls of one case whose driver does not count them: from a pass of its own, under strace(1), untimed."""

    case_key: str
    #: Traced; of a ping-pong round trips.
    messages: int
    #: Name -> how often, both sides together.
    calls: dict[str, int] = {}
    #: All of them a message; None: they could not be counted, and `reason` says why.
    per_message: float | None = None
    #: How it was counted, or why not.
    reason: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One case in one cluster, summed up: a line of the table. Figures are None where there are none."""

    case: Case
    cluster: str = ""
    samples_kept: int = 0
    samples_dropped: int = 0
    #: Messages (ping-pong: round trips) per second, of all pairs together: over the kept samples.
    median_per_s: float | None = None
    p10_per_s: float | None = None
    p90_per_s: float | None = None
    #: Bootstrap interval (95 %) of the median.
    low_per_s: float | None = None
    high_per_s: float | None = None
    #: Of several pairs, median of the slowest pair's rate; of one pair None.
    slowest_pair_per_s: float | None = None
    #: Fastest over slowest kept sample; 1.0 is no spread.
    spread_ratio: float | None = None
    bytes_per_s: float | None = None
    p50_ns: int | None = None
    p90_ns: int | None = None
    p99_ns: int | None = None
    p999_ns: int | None = None
    max_ns: int | None = None
    #: Of both sides together.
    cpu_ns_per_message: float | None = None
    voluntary_switches_per_message: float | None = None
    involuntary_switches_per_message: float | None = None
    system_calls_per_message: float | None = None
    #: Why there is no figure for system calls; or how it was got when not by the driver's own counters.
    system_calls_reason: str = ""
    wakes_per_message: float | None = None
    stable: bool = True
    #: What to do about an unstable row, or what to keep in mind when reading it.
    advice: str = ""
    #: A message that was wrong or a process that died: the row has no figures.
    failure: str = ""
    #: Why it was not measured at all.
    refusal: str = ""


class Overheads(msgspec.Struct, frozen=True, kw_only=True):
    """What the harness itself costs, measured in the same run; by message size where that matters."""

    #: Size in bytes -> ns that verifying one message takes: the same C call in every driver.
    verification_ns_per_message: dict[int, float] = {}
    #: ns a message in the python driver's loop at 64 B beyond the mechanism's own calls, verification included.
    python_loop_ns: float | None = None
    #: One look at the clock, which ping-pong and open loop pay once a message.
    clock_ns: float | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="bench-run"):
    """One `ipclab bench run`, whole: what was asked, where, every raw sample, and the table."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    #: UTC, ISO 8601.
    started_at: str
    duration_ns: int = 0
    command: str = ""
    #: ipclab's own.
    version: str = ""
    options: Options = Options()
    environment: Environment
    placements: tuple[Placement, ...] = ()
    cases: tuple[Case, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    samples: tuple[Sample, ...] = ()
    traces: tuple[TracedCalls, ...] = ()
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    #: Three sentences: why the table is as it is, from the counts in it.
    explanation: tuple[str, ...] = ()
    overheads: Overheads = Overheads()
    #: A signal ended it early; what was measured until then is here.
    interrupted: bool = False
    #: That signal's number: 2 is Ctrl-C. 0: none, or a record from before this was kept.
    ended_by_signal: int = 0


class ComparedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One case in two runs, or two mechanisms in one. Above 1 B is faster, whatever is compared."""

    a: Case
    b: Case
    cluster: str = ""
    #: Of what the ratio is: "rate", B over A; or, in the open loop, where the rate is given, "p50 latency", A over B.
    measure: Literal["rate", "p50 latency"] = "rate"
    ratio: float | None = None
    #: Bootstrap interval (95 %) of the ratio.
    low: float | None = None
    high: float | None = None
    #: Interleaved: pairs of samples of one round; else samples of the run that has fewer.
    pairs: int = 0
    verdict: Literal["faster", "slower", "no difference shown", "not comparable"] = "not comparable"
    #: Why the two cannot be compared, or why no difference is shown although the ratio is not 1.
    reason: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="bench-comparison"):
    """What `ipclab bench compare` found."""

    schema_version: int = SCHEMA_VERSION
    #: Run ids (or, interleaved, the mechanisms' names).
    a: str
    b: str
    interleaved: bool = False
    #: Interleaved: the run that was made for it.
    run_id: str = ""
    rows: tuple[ComparedRow, ...] = ()
    notes: tuple[str, ...] = ()

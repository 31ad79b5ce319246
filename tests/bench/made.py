"""Runs that nobody measured: cases, samples and records as the tests of statistics, store, compare and explain want."""

from __future__ import annotations

from collections.abc import Sequence

from ipclab.bench import statistics
from ipclab.records import Case, Environment, Run, Sample, SideCost

ENVIRONMENT = Environment(
    kernel="6.1.0",
    architecture="x86_64",
    cpu_model="A CPU",
    cpus_online=2,
    cpus_allowed=(0, 1),
    virtual=None,
    governor=None,
    deepest_idle_state=None,
    deepest_idle_latency_us=None,
    smt_active=None,
    mitigations={},
    numa_nodes=1,
    numa_balancing=None,
    cpu_quota=None,
    cpuset=None,
    throttled_ns=None,
    load_1min=None,
    python="CPython 3.11.9",
    c_library="glibc 2.36",
    dev_shm_free_bytes=None,
    page_bytes=4096,
)


def a_case(
    mechanism: str = "pipe",
    *,
    driver: str = "native",
    pattern: str = "throughput",
    size_bytes: int = 64,
    placement: str = "llc",
    cpus: tuple[int, ...] = (0, 1),
    pairs: int = 1,
    rate_per_s: float | None = None,
    depth: int | None = None,
    buffers: dict[str, int] | None = None,
    spins: bool = False,
) -> Case:
    return Case(
        mechanism=mechanism,
        driver=driver,  # type: ignore[arg-type]
        pattern=pattern,  # type: ignore[arg-type]
        size_bytes=size_bytes,
        placement=placement,  # type: ignore[arg-type]
        cpus=cpus,
        pairs=pairs,
        rate_per_s=rate_per_s,
        depth=depth,
        buffers=buffers or {},
        spins=spins,
    )


def a_side(
    role: str = "a", *, calls: int | None = 1000, reason: str = "", switches: int = 0, cpu_ns: int = 0
) -> SideCost:
    return SideCost(
        role=role,
        cpu=0,
        messages=1000,
        cpu_ns=cpu_ns,
        voluntary_switches=switches,
        involuntary_switches=0,
        system_calls=calls,
        system_calls_reason=reason,
        wakes=0,
    )


def a_sample(
    case: Case,
    per_s: float = 1e6,
    *,
    round_: int = 0,
    cluster: str = "fast",
    kept: bool = True,
    dropped: str = "",
    failure: str = "",
    sides: tuple[SideCost, ...] = (),
    histogram: dict[int, int] | None = None,
    messages: int = 1_000_000,
) -> Sample:
    """A sample that moved so many messages at that rate."""
    duration_ns = round(messages * 1e9 / per_s)
    return Sample(
        case_key=case.key,
        round=round_,
        messages=messages,
        duration_ns=duration_ns,
        pair_durations_ns=(duration_ns,),
        cluster=cluster,
        kept=kept,
        dropped_reason=dropped,
        failure=failure,
        sides=sides,
        histogram=histogram,
    )


def samples(case: Case, rates: Sequence[float], cluster: str = "fast", **more: object) -> list[Sample]:
    """One sample a round, at these rates."""
    return [
        a_sample(case, rate, round_=number, cluster=cluster, **more)  # type: ignore[arg-type]
        for number, rate in enumerate(rates)
    ]


def a_run(
    run_id: str,
    measured: Sequence[tuple[Case, Sequence[Sample]]],
    *,
    started_at: str = "2026-01-01T00:00:00Z",
    environment: Environment = ENVIRONMENT,
) -> Run:
    """A whole run, its table worked out."""
    cases = tuple(case for case, _samples in measured)
    all_samples = tuple(sample for _case, some in measured for sample in some)
    return Run(
        run_id=run_id,
        started_at=started_at,
        command="ipclab bench run",
        version="0.1.0",
        environment=environment,
        cases=cases,
        samples=all_samples,
        rows=statistics.rows(cases, all_samples, (), environment),
    )

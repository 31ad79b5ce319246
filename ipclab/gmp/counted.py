"""What a run has counted, as records: per job and in total."""

from __future__ import annotations

from ipclab import _core
from ipclab.gmp.compile import Compiled
from ipclab.records.gmp import JobResult, SimTotals


def job_results(sched: _core.Sched, plan: Compiled) -> list[JobResult]:
    """Of every job, `main` among them, the sums over its programs. Call it when the run has ended."""
    programs: dict[str, list[int]] = {}
    for number, program in enumerate(plan.programs):
        programs.setdefault(program.job, []).append(number)
    ns_per_tick = _ns_per_tick(sched)
    return [_job_result(sched, name, its, ns_per_tick) for name, its in programs.items()]


def totals_of(sched: _core.Sched, fields: dict[str, int], ms: list[dict[str, int]], events_lost: int) -> SimTotals:
    """From the words of sched and of all records of Ms."""
    user_ns, system_ns, voluntary, involuntary = sched.usage()
    made = fields["mnext"] - sum(m["procid"] == 0 for m in ms)
    return SimTotals(
        context_switches=sum(m["switches"] for m in ms),
        steals=sum(m["steals"] for m in ms),
        handoffs=sum(m["handoffs"] for m in ms),
        preemptions=fields["preempts"],
        retakes=fields["retakes"],
        ms_made=made,
        cpu_user_ns=user_ns,
        cpu_system_ns=system_ns,
        run_delay_ns=fields["queuens"] if fields["queuedms"] == made else None,
        kernel_switches_voluntary=voluntary,
        kernel_switches_involuntary=involuntary,
        deaths=fields["deaths"],
        repairs=fields["repairs"],
        longest_repair_ns=fields["longestns"],
        events_lost=events_lost,
    )


def _ns_per_tick(sched: _core.Sched) -> float:
    start_ticks, start_ns, ticks, ns = sched.clock()
    return (ns - start_ns) / max(1, ticks - start_ticks)


def _job_result(sched: _core.Sched, name: str, programs: list[int], ns_per_tick: float) -> JobResult:
    tallies = [sched.tally(number) for number in programs]
    spawned, done, lost, received, turnaround, response, waiting = (
        sum(tally[field] for tally in tallies) for field in range(7)
    )
    last = max(tally[7] for tally in tallies)
    start_ticks = sched.clock()[0]

    def mean(ticks: int) -> float | None:
        return ticks * ns_per_tick / done if done else None

    return JobResult(
        name=name,
        spawned=spawned,
        done=done,
        lost=lost,
        turnaround_ns=mean(turnaround),
        response_ns=mean(response),
        waiting_ns=mean(waiting),
        finished_ns=round((last - start_ticks) * ns_per_tick) if done else None,
        received=received - (1 << 64) if received >= 1 << 63 else received,
    )

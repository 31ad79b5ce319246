"""A run of a workload, and the workloads that ship, as text."""

from __future__ import annotations

from collections.abc import Sequence

from ipclab.errors import visible
from ipclab.records import SimResult, WaitingG, WorkloadList
from ipclab.views.medium import Medium, quantity, wrap
from ipclab.views.units import span

#: Gs of a deadlock that are shown one by one; --json has them all.
_WAITING_SHOWN = 20


def sim_report(result: SimResult, medium: Medium) -> str:
    """Per job its times, then the totals, and whoever was left."""
    ps = quantity(result.procs, "Ps")
    where = f"{ps} on {quantity(result.cpus, 'CPUs')}"
    head = f"{visible(result.workload)}: model {result.model}, {where}, seed {result.seed}"
    lines = [medium.paint(head, "head"), "", *_jobs(result, medium), "", *_totals(result, medium)]
    if result.waiting:
        lines += ["", *_waiting(result.waiting, result.waiting_total, medium)]
    if result.message:
        lines += ["", *wrap(result.message, medium, medium.paint("ended: ", "bad"), "  ")]
    return "\n".join([*lines, ""])


def lost_text(result: SimResult) -> str:
    """Whoever died with an M: "G3, G4", or "no G"; of very many the last ones alone are known by their ids."""
    named = ", ".join(f"G{goid}" for goid in result.lost_goids) or "no G"
    more = result.lost - len(result.lost_goids)
    return f"{named} and {more} before them" if more > 0 else named


def workload_list(found: WorkloadList, medium: Medium) -> str:
    """Name and sentence, one line each."""
    width = max(len(one.name) for one in found.workloads)
    lines = []
    for one in found.workloads:
        lines += wrap(visible(one.about), medium, f"{one.name:<{width}}  ", " " * (width + 2))
    return "\n".join([*lines, "", "ipclab gmp sim NAME runs one; a file of your own is as good: docs/gmp-sim.md", ""])


def table(rows: Sequence[Sequence[str]], medium: Medium) -> list[str]:
    """Columns, the first to the left and all others to the right; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        line = "  ".join(cells).rstrip()
        lines.append(medium.paint(line, "head") if number == 0 else line)
    return lines


def _jobs(result: SimResult, medium: Medium) -> list[str]:
    rows = [["job", "Gs", "done", "lost", "turnaround", "response", "waiting", "finished at"]]
    for job in result.jobs:
        rows.append(
            [
                job.name,
                f"{job.spawned}",
                f"{job.done}",
                f"{job.lost}",
                span(job.turnaround_ns),
                span(job.response_ns),
                span(job.waiting_ns),
                span(job.finished_ns),
            ]
        )
    return table(rows, medium)


def _totals(result: SimResult, medium: Medium) -> list[str]:
    totals = result.totals
    cpu = totals.cpu_user_ns + totals.cpu_system_ns
    did = (
        f"{span(result.duration_ns)} in all, {quantity(totals.context_switches, 'context switches')}, "
        f"{quantity(totals.steals, 'steals')}, {quantity(totals.handoffs, 'hand-offs')}, "
        f"{quantity(totals.preemptions, 'preemptions')}, {quantity(totals.retakes, 'retakes')}"
    )
    delay = "" if totals.run_delay_ns is None else f" and waited {span(totals.run_delay_ns)} in its queue for one"
    cost = (
        f"{quantity(totals.ms_made, 'Ms')} made, sysmon among them; they used {span(cpu)} of CPU "
        f"({span(totals.cpu_system_ns)} of it in the kernel){delay}, and the kernel switched them "
        f"{quantity(totals.kernel_switches_voluntary, 'times')} because they slept, "
        f"{quantity(totals.kernel_switches_involuntary, 'times')} because it wanted the CPU"
    )
    told = [did, cost]
    if totals.deaths:
        told.append(
            f"{quantity(totals.deaths, 'Ms')} died, {quantity(totals.repairs, 'repairs')}, the longest "
            f"{span(totals.longest_repair_ns)}; lost: {lost_text(result)}"
        )
    if totals.events_lost:
        told.append(f"{quantity(totals.events_lost, 'events')} overwritten before they could be read")
    return [line for sentence in told for line in wrap(sentence, medium, "", "  ")]


def _waiting(waiting: Sequence[WaitingG], total: int, medium: Medium) -> list[str]:
    lines = [medium.paint(f"{quantity(total, 'Gs')} left, each with what it waits for:", "head")]
    for g in waiting[:_WAITING_SHOWN]:
        waited = "" if g.waited_ns is None else f", {span(g.waited_ns)}"
        made = f"; created by goroutine {g.parent}, {g.parent_job}: {visible(g.parent_step)}" if g.parent else ""
        told = f"[{g.reason}{waited}] {g.job}: {visible(g.step)}{made}"
        lines += wrap(told, medium, f"  goroutine {g.goid} ", "      ")
    if total > _WAITING_SHOWN:
        those = "them all" if total == len(waiting) else f"the first {len(waiting)}"
        lines.append(f"  ... and {total - _WAITING_SHOWN} more: --json has {those}")
    return lines

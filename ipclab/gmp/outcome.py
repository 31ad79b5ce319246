"""How a run ended, in words, and who was left."""

from __future__ import annotations

import errno
import os

from ipclab import _core
from ipclab.gmp.compile import SELECT_MOST, Compiled
from ipclab.gmp.script import Op
from ipclab.records.gmp import Outcome, WaitingG

#: enum fatal of core/gmp/runtime2.h.
_OUTCOMES: tuple[Outcome, ...] = ("stopped", "done", "deadlock", "limit", "limit", "limit", "misuse", "internal")
_DONE, _DEADLOCK, _THREADS, _NEWPROC, _MEMORY, _USE = 1, 2, 3, 4, 5, 6
_WAITING = 4
_WAITING_MOST = 10_000


def outcome_of(reason: int) -> Outcome:
    """The word for it."""
    return _OUTCOMES[reason] if reason < len(_OUTCOMES) else "internal"


def message_of(reason: int, argument: int, text: str) -> str:
    """One clause, as Go says it where Go has it; empty when all is well."""
    if reason == _DONE:
        return ""
    if reason == _DEADLOCK:
        return f"all goroutines are asleep - deadlock! ({argument} waiting)"
    if reason == _USE:
        return f"panic: {text} (goroutine {argument & 0xFFFFFFFF})"
    if reason == _THREADS:
        return f"no room for another M: {argument} were made"
    if reason == _NEWPROC:
        return f"the kernel makes no more processes: {os.strerror(argument)} ({_name(argument)})"
    if reason == _MEMORY:
        return f"{text or 'the segment is full'}: {os.strerror(argument)} ({_name(argument)})"
    return f"the scheduler found itself inconsistent: {text}" if reason else "it was ended before it was done"


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def ticks_ago_ns(clock: tuple[int, int, int, int], ticks: int) -> int | None:
    """How long ago that was, by two readings of both clocks: (ticks, ns) at the start and now. None: never."""
    then_ticks, then_ns, now_ticks, now_ns = clock
    if not ticks:
        return None
    return max(0, round((now_ticks - ticks) * (now_ns - then_ns) / max(1, now_ticks - then_ticks)))


def made_at(g: dict[str, int]) -> tuple[int, int]:
    """Program and step of the G that made this one."""
    return g["gopc"] >> 32, g["gopc"] & 0xFFFF_FFFF


def _place(plan: Compiled, program: int, pc: int) -> tuple[str, str]:
    """The job, and the step a G is in: its pc is already at the next one; of a select, behind all of its cases."""
    job, steps, texts = plan.programs[program]
    if not 0 < pc <= len(texts):
        return job, ""
    at = pc - 1
    for before in range(max(0, at - SELECT_MOST), at):
        if steps[before][0] == Op.SELECT and before + steps[before][1] == at:
            at = before
            break
    return job, texts[at]


def waiting_gs(sched: _core.Sched, plan: Compiled) -> tuple[WaitingG, ...]:
    """Every G that waits, with the step it is in and the one that made it; the first 10,000."""
    clock = sched.clock()
    found: list[WaitingG] = []
    for index in range(1, sched.sched_fields()["allglen"] + 1):
        g = sched.g_fields(index)
        if g["atomicstatus"] != _WAITING:
            continue
        job, step = _place(plan, g["startpc"], g["pc"])
        parent_job, parent_step = _place(plan, *made_at(g)) if g["parentGoid"] else ("", "")
        found.append(
            WaitingG(
                goid=g["goid"],
                job=job,
                step=step,
                reason=g["waitreason"],
                waited_ns=ticks_ago_ns(clock, g["waitsince"]),
                parent=g["parentGoid"],
                parent_job=parent_job,
                parent_step=parent_step,
            )
        )
        if len(found) == _WAITING_MOST:
            break
    return tuple(found)

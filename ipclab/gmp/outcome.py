"""How a run ended, in words, and who was left."""

from __future__ import annotations

import errno
import os

from ipclab import _core
from ipclab.gmp.compile import Compiled
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


def waiting_gs(sched: _core.Sched, plan: Compiled, now_ns: int) -> tuple[WaitingG, ...]:
    """Every G that waits, with the step it is in; the first 10,000."""
    found: list[WaitingG] = []
    for index in range(1, sched.sched_fields()["allglen"] + 1):
        g = sched.g_fields(index)
        if g["atomicstatus"] != _WAITING:
            continue
        program = plan.programs[g["startpc"]]
        step = program.texts[g["pc"] - 1] if 0 < g["pc"] <= len(program.texts) else ""
        found.append(
            WaitingG(
                goid=g["goid"],
                job=program.job,
                step=step,
                reason=g["waitreason"],
                waited_ns=max(0, now_ns - g["waitsince"]) if g["waitsince"] else None,
            )
        )
        if len(found) == _WAITING_MOST:
            break
    return tuple(found)

"""One event of the scheduler as one line of text."""

from __future__ import annotations

from typing import NamedTuple

from ipclab.records.gmp import SchedEvent

#: enum wait_reason of core/gmp/runtime2.h; the texts are Go's, as in script.c.
WAIT_REASONS = (
    "", "chan receive", "chan send", "select", "sleep", "semacquire", "sync.Mutex.Lock", "sync.WaitGroup.Wait",
    "panicwait",
)  # fmt: skip
P_STATUS = ("_Pidle", "_Prunning", "_Psyscall", "_Pgcstop", "_Pdead")
_ITS_P = frozenset(("acquirep", "releasep", "handoff", "retake", "wakep", "syscall blocked"))
_PARK = ("", "on the idle list", "until its locked G is runnable", "until the next timer")
_SYSCALL_EXIT = ("with its old P", "with an idle P", "without a P")


class Steal(NamedTuple):
    """What the argument of an event "steal" says."""

    victim: int
    #: Of the four over all Ps, from 1; only in the last one runnext is taken, too.
    attempt: int
    #: With the one that runs at once.
    taken: int


def stolen(event: SchedEvent) -> Steal:
    return Steal(event.arg >> 32, event.arg >> 16 & 0xFFFF, event.arg & 0xFFFF)


def line(event: SchedEvent, start_ns: int) -> str:
    """When, which M and P, which G, what: "   1.503 ms  M2  P1  G3   steal: 2 from P0"."""
    p = "-" if event.p is None else f"P{event.p}"
    g = f"G{event.goid}" if event.goid else ""
    more = detail(event)
    return f"{(event.time_ns - start_ns) / 1e6:8.3f} ms  M{event.m:<2} {p:<3} {g:<5} {event.kind}" + (
        f": {more}" if more else ""
    )


def detail(event: SchedEvent) -> str:
    """What the event's argument means; core/gmp/events.h has it for every kind. Empty: nothing."""
    arg = event.arg
    match event.kind:
        case kind if kind in _ITS_P:
            return f"P{arg}"
        case "P idle":
            return f"P{arg >> 1} {'on' if arg & 1 else 'off'} the list"
        case "P status":
            return f"P{arg >> 32} {_name(P_STATUS, arg >> 8 & 0xFF)} -> {_name(P_STATUS, arg & 0xFF)}"
        case "steal":
            steal = stolen(event)
            return f"{steal.taken} from P{steal.victim}, pass {steal.attempt}"
        case "global":
            return "61st tick, its turn" if arg == 61 else "a batch"
        case "start":
            return "from runnext, in the same time slice" if arg else ""
        case "preempt":
            return "by itself, for the one it has handed a semaphore" if arg else ""
        case "block":
            return _name(WAIT_REASONS, arg)
        case "park":
            return _name(_PARK, arg)
        case "spin":
            return "begins" if arg else "ends"
        case "syscall enter":
            return "known to block" if arg else ""
        case "syscall exit":
            return _name(_SYSCALL_EXIT, arg)
        case "new M" | "to locked M":
            return f"M{arg}"
        case "create":
            return f"by G{arg}" if arg else "by main"
        case _:
            return ""


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)

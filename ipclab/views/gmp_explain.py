"""The rounds of one M as lines of decisions, from its events.

A round begins when a G leaves the M and ends when the next one starts, or when the M ends; before it stands what the G
did that concerns the scheduler. What stands in a line was written by the M itself; that a G came from its P's own queue
follows from no other source having been named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ipclab.records import SchedEvent
from ipclab.records.event_text import WAIT_REASONS, line, stolen
from ipclab.views.medium import Medium, quantity, wrap
from ipclab.views.units import span

#: How a G leaves an M.
_LEAVES = {
    "end": "ended",
    "sched": "gave way",
    "preempt": "was preempted",
    "block": "blocks",
}
_PARKS = {1: "onto the idle list, asleep", 2: "asleep until its locked G is runnable", 3: "asleep until the next timer"}


def busiest(events: Iterable[SchedEvent]) -> int | None:
    """The M that started most Gs; None: none did."""
    counts = Counter(event.m for event in events if event.kind == "start")
    return min(counts, key=lambda m: (-counts[m], m)) if counts else None


def explained(
    events: Sequence[SchedEvent], start_ns: int, m: int, most: int, medium: Medium, lost: int = 0
) -> str:
    """At most `most` rounds of M `m`, one line each; `start_ns`: when the run began; `lost`: events nobody has read."""
    rounds = list(_rounds([event for event in events if event.m == m]))
    head = f"M{m}, {quantity(len(rounds), 'rounds')}"
    if lost:
        head += f" in what is left of its events; {lost} of all Ms' were overwritten before they could be read"
    lines = wrap(f"{head}:", medium, "", "  ")
    lines = [medium.paint(line, "head") for line in lines]
    width = len(str(min(most, len(rounds))))
    for number, (at_ns, words) in enumerate(rounds[:most], 1):
        first = f"{number:>{width}}  {(at_ns - start_ns) / 1e6:10.3f} ms  "
        lines += wrap("; ".join(words), medium, first, " " * (len(first) + 2))
    if len(rounds) > most:
        lines.append(f"... and {len(rounds) - most} more; --rounds {len(rounds)} shows them all")
    return "\n".join([*lines, ""])


def life(events: Sequence[SchedEvent], start_ns: int, goid: int, lost: int = 0) -> str:
    """What happened to one G, a line an event: by which M, with which P. Empty: nothing is known of it."""
    lines = [line(event, start_ns) for event in events if event.goid == goid]
    if lines and lost:
        lines.append(f"{lost} events of all Gs were overwritten before they could be read: some may be missing here")
    return "\n".join([*lines, ""])


def _rounds(events: Sequence[SchedEvent]) -> Iterator[tuple[int, list[str]]]:
    """Time of its beginning, and the decisions; first what the G before it did while it ran."""
    words: list[str] = []
    source = ""
    begun_ns = slept_ns = ran_ns = 0
    decided = False  # something was said since the G left
    for event, same in _together(events):
        kind = event.kind
        begun_ns = begun_ns or event.time_ns
        if kind in _LEAVES or kind == "M start" or (kind == "syscall exit" and event.arg == 2):
            words.append(_left(event, ran_ns))
            begun_ns, source, decided = event.time_ns, "", False
        elif kind == "start":
            words.append(_started(event, source, given=decided and not source))
            yield begun_ns, words
            words, source, begun_ns, ran_ns = [], "", 0, event.time_ns
        elif kind in ("steal", "global"):
            source = _source(event)
        else:
            slept_ns = event.time_ns if kind == "park" else slept_ns
            decided |= kind == "unpark"
            if said := _said(event, slept_ns, same):
                words.append(said)
    if words:
        yield begun_ns, words


def _together(events: Sequence[SchedEvent]) -> Iterator[tuple[SchedEvent, int]]:
    """Each event and how many of its kind it stands for: Gs that are made one after the other are one."""
    run = 0
    for at, event in enumerate(events):
        run += 1
        following = events[at + 1].kind if at + 1 < len(events) else ""
        if event.kind in ("create", "unblock") and following == event.kind:
            continue
        yield event, run
        run = 0


def _left(event: SchedEvent, ran_ns: int) -> str:
    if event.kind == "M start":
        return "it is born"
    if event.kind == "syscall exit":
        return f"G{event.goid} is out of its system call and there is no P for it: to the global queue"
    ran = f" after {span(event.time_ns - ran_ns)}" if ran_ns else ""
    why = ""
    if event.kind == "block":
        why = f" ({WAIT_REASONS[event.arg] if event.arg < len(WAIT_REASONS) else event.arg})"
    if event.kind == "preempt" and event.arg:
        return f"G{event.goid} makes way for the one it has handed a semaphore{ran}"
    return f"G{event.goid} {_LEAVES[event.kind]}{why}{ran}"


def _source(event: SchedEvent) -> str:
    if event.kind == "global":
        return "tick 61: the global queue first" if event.arg == 61 else "a batch of the global queue"
    steal = stolen(event)
    return f"{steal.taken} stolen from P{steal.victim} in pass {steal.attempt}"


def _started(event: SchedEvent, source: str, *, given: bool) -> str:
    if not source:
        source = (
            "runnext, in the same time slice" if event.arg else "with the P it was given" if given else "local queue"
        )
    where = "" if event.p is None else f" on P{event.p}"
    return f"{source}: runs G{event.goid}{where}"


def _said(event: SchedEvent, slept_ns: int, same: int) -> str:
    """One decision; empty for what another event says better."""
    arg = event.arg
    match event.kind:
        case "spin":
            return "spins: looks at all Ps" if arg else "spins no more"
        case "park":
            return _PARKS.get(arg, "asleep")
        case "unpark":
            return f"woken after {span(event.time_ns - slept_ns)}" if slept_ns else "woken"
        case "wakep":
            return f"wakes an M for P{arg}"
        case "handoff":
            return f"hands P{arg} off"
        case "retake":
            return f"takes P{arg} out of a system call"
        case "acquirep":
            return f"acquires P{arg}"
        case "releasep":
            return f"releases P{arg}"
        case "create":
            return f"makes G{event.goid}" if same == 1 else f"makes {same} Gs, the last G{event.goid}"
        case "unblock":
            return f"makes G{event.goid} runnable" if same == 1 else f"makes {same} Gs runnable, the last G{event.goid}"
        case "syscall enter":
            return f"G{event.goid} enters a system call" + (", known to block" if arg else "")
        case "syscall exit":
            return f"G{event.goid} is out of it with " + ("an idle P" if arg else "its old P")
        case "stw start":
            return "stops the world"
        case "stw end":
            return f"starts the world with {quantity(arg, 'Ps')}"
        case "new M":
            return f"asks for M{arg}"
        case "to locked M":
            return f"G{event.goid} is locked to M{arg}: gives it this P"
        case "M exit":
            return "ends"
        case _:
            return ""

"""A run's events in Chrome's trace format: a track for each M and each P, a slice for each G that runs there.

A slice has its G's job in its name, "worker G7", where it is known, and in its arguments the step at which it ended:
where the event that ended it leaves but one step of the job.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ipclab.records import SchedEvent, SimResult
from ipclab.records.event_text import P_STATUS, WAIT_REASONS, stolen

_MS, _PS = 1, 2  # the two groups of tracks: "processes" of the format
_LEAVES = {"end", "sched", "preempt", "block"}
_PARKED = {1: "idle", 2: "waits for its locked G", 3: "sleeps until the next timer"}
_INSTANTS = {"steal", "handoff", "retake", "wakep", "new M", "stw start", "stw end"}
#: What a G may have been at when it waits for this reason, or when an event of this kind comes: verbs of a workload.
_VERBS_OF_REASON = {
    "chan receive": ("recv",), "chan send": ("send",), "select": ("select",), "sleep": ("sleep",),
    "semacquire": ("acquire",), "sync.Mutex.Lock": ("lock",), "sync.WaitGroup.Wait": ("wait",),
}  # fmt: skip
_VERBS_OF_KIND = {
    "sched": ("yield", "stopworld"),
    "preempt": ("compute", "repeat", "unlock", "release"),  # the last two hand over to who has waited for long
}


class _Slice(NamedTuple):
    name: str
    category: str
    begun_ns: int
    told: dict[str, object]


def sim_chrome(result: SimResult) -> Iterator[bytes]:
    """Trace Event Format, JSON object form: opens in ui.perfetto.dev and chrome://tracing. Times begin with the run."""
    about = msgspec.to_builtins(result.without_events())
    yield b'{"displayTimeUnit": "ns", "otherData": ' + json.dumps({"ipclab": about}, separators=(",", ":")).encode()
    yield b',\n"traceEvents": ['
    separator = b"\n"
    for event in _Tracks(result).all():
        yield separator + json.dumps(event, separators=(",", ":")).encode()
        separator = b",\n"
    yield b"\n]}\n"


class _Tracks:
    """Open slices by track; a track is (group, M or P)."""

    def __init__(self, result: SimResult) -> None:
        self.events = events = result.events
        self.job_of = result.job_of
        self.steps_of = result.steps_of
        self.zero_ns = events[0].time_ns if events else 0
        self.open: dict[tuple[int, int], list[_Slice]] = {}
        self.seen: set[tuple[int, int]] = set()

    def all(self) -> Iterator[dict[str, object]]:
        for event in self.events:
            yield from self._m(event)
            yield from self._p(event)
            if event.kind in _INSTANTS:
                yield self._instant(event)
        end_ns = self.events[-1].time_ns if self.events else 0
        for track in list(self.open):
            while self.open[track]:
                yield self._close(track, end_ns)
        yield from self._names()

    def _m(self, event: SchedEvent) -> Iterator[dict[str, object]]:
        track = (_MS, event.m)
        self.seen.add(track)
        kind, at = event.kind, event.time_ns
        if kind == "start":
            yield from self._close_all(track, at)
            self._begin_g(track, event, {"P": event.p})
        elif kind in _LEAVES:
            why: dict[str, object] = (
                {"ends": kind} if kind != "block" else {"ends": "block", "reason": _reason(event.arg)}
            )
            yield from self._close_all(track, at, {**why, "step": self._step(event)})
        elif kind == "syscall enter":
            self._begin(track, "system call", at, {"known to block": bool(event.arg), "step": self._step(event)})
        elif kind == "syscall exit" and event.arg == 2:
            yield from self._close_all(track, at, {"ends": "no P: to the global queue"})
        elif kind == "syscall exit":
            yield from self._close_named(track, "system call", at)
        elif kind == "park":
            yield from self._close_all(track, at)
            self._begin(track, _PARKED.get(event.arg, "parked"), at, {})
        elif kind in ("unpark", "M exit"):
            yield from self._close_all(track, at)
        elif kind == "spin" and event.arg:
            self._begin(track, "spins", at, {})
        elif kind == "spin":
            yield from self._close_named(track, "spins", at)

    def _p(self, event: SchedEvent) -> Iterator[dict[str, object]]:
        kind, at = event.kind, event.time_ns
        if kind == "P status":
            track = (_PS, event.arg >> 32)
            status = event.arg & 0xFF
            yield from self._close_all(track, at)
            if status in (2, 3):
                self._begin(track, P_STATUS[status], at, {})
            self.seen.add(track)
            return
        if event.p is None:
            return
        track = (_PS, event.p)
        self.seen.add(track)
        if kind == "start":
            yield from self._close_all(track, at)
            self._begin_g(track, event, {"M": event.m})
        elif kind in _LEAVES:
            yield from self._close_all(track, at)
        elif kind == "syscall exit" and event.arg != 2:
            yield from self._close_all(track, at)
            self._begin_g(track, event, {"M": event.m})

    def _begin(self, track: tuple[int, int], name: str, at_ns: int, told: dict[str, object]) -> None:
        self.open.setdefault(track, []).append(_Slice(name, "M" if track[0] == _MS else "P", at_ns, told))

    def _begin_g(self, track: tuple[int, int], event: SchedEvent, told: dict[str, object]) -> None:
        job = self.job_of.get(event.goid)
        name = f"{job} G{event.goid}" if job else f"G{event.goid}"
        told = {"G": event.goid, "job": job, **told}
        self.open.setdefault(track, []).append(_Slice(name, "G", event.time_ns, told))

    def _step(self, event: SchedEvent) -> str | None:
        """The step that the G has come to with this event; None: it may have been more than one."""
        verbs: tuple[str, ...]
        if event.kind == "block":
            verbs = _VERBS_OF_REASON.get(_reason(event.arg), ())
        elif event.kind == "syscall enter":
            verbs = ("blocking",) if event.arg else ("block",)
        else:
            verbs = _VERBS_OF_KIND.get(event.kind, ())
        steps = self.steps_of.get(self.job_of.get(event.goid, ""), ())
        possible = [step for step in steps if step.split(maxsplit=1)[0] in verbs]
        return possible[0] if len(possible) == 1 else None

    def _close(self, track: tuple[int, int], at_ns: int, more: dict[str, object] | None = None) -> dict[str, object]:
        closed = self.open[track].pop()
        return {
            "ph": "X",
            "cat": closed.category,
            "name": closed.name,
            "pid": track[0],
            "tid": track[1],
            "ts": (closed.begun_ns - self.zero_ns) / 1000,
            "dur": max(0, at_ns - closed.begun_ns) / 1000,
            "args": {key: value for key, value in {**closed.told, **(more or {})}.items() if value is not None},
        }

    def _close_all(
        self, track: tuple[int, int], at_ns: int, more: dict[str, object] | None = None
    ) -> Iterator[dict[str, object]]:
        while self.open.get(track):
            yield self._close(track, at_ns, more)

    def _close_named(self, track: tuple[int, int], name: str, at_ns: int) -> Iterator[dict[str, object]]:
        if self.open.get(track) and self.open[track][-1].name == name:
            yield self._close(track, at_ns)

    def _instant(self, event: SchedEvent) -> dict[str, object]:
        told: dict[str, object] = {"arg": event.arg}
        if event.kind == "steal":
            steal = stolen(event)
            told = {"from P": steal.victim, "Gs": steal.taken, "pass": steal.attempt}
        elif event.kind in ("handoff", "retake", "wakep"):
            told = {"P": event.arg}
        return {
            "ph": "i",
            "s": "g" if event.kind.startswith("stw") else "t",
            "cat": "scheduler",
            "name": event.kind,
            "pid": _MS,
            "tid": event.m,
            "ts": (event.time_ns - self.zero_ns) / 1000,
            "args": told,
        }

    def _names(self) -> Iterator[dict[str, object]]:
        for group, name in ((_MS, "Ms: processes"), (_PS, "Ps")):
            yield {"ph": "M", "pid": group, "name": "process_name", "args": {"name": name}}
            yield {"ph": "M", "pid": group, "name": "process_sort_index", "args": {"sort_index": group}}
        for group, number in sorted(self.seen):
            place = {"ph": "M", "pid": group, "tid": number}
            yield {**place, "name": "thread_name", "args": {"name": f"{'M' if group == _MS else 'P'}{number}"}}
            yield {**place, "name": "thread_sort_index", "args": {"sort_index": number}}


def _reason(number: int) -> str:
    return WAIT_REASONS[number] if number < len(WAIT_REASONS) else str(number)

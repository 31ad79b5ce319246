"""A scheduler's whole state as a record: every field and list of sched and of each P, M and G.

`observed` asks the scheduler's template to let everything stand still, copies, lets it go on, and reads the copy at
leisure; core/gmp/observe.c has the protocol and its invariant.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from ipclab import _core
from ipclab.errors import IpclabError
from ipclab.gmp.outcome import made_at, message_of, outcome_of, ticks_ago_ns
from ipclab.processes import procfs
from ipclab.records.gmp import ChanState, GState, ModelName, MState, PState, SchedSnapshot, SemaState

G_STATUS = ("_Gidle", "_Grunnable", "_Grunning", "_Gsyscall", "_Gwaiting", "_Gunused5", "_Gdead")
P_STATUS = ("_Pidle", "_Prunning", "_Psyscall", "_Pgcstop", "_Pdead")
_WHERE = ("runtime", "user", "parked", "gone", "robbed", "gate")
_SEMA_KIND = ("semaphore", "mutex", "wait group")
_WAITING = G_STATUS.index("_Gwaiting")
_MODELS: tuple[ModelName, ...] = ("m:n", "n:1", "1:1")
_SYSMON = 2
#: enum stall of core/gmp/runtime2.h.
_INSIDE, _DEAF = 1, 2
_LIST_MOST = 1 << 20
#: A lock's word: the holder's thread id, and a bit that says somebody sleeps for it.
_HOLDER = (1 << 31) - 1
_CALLER = (1 << 32) - 1
#: Gs a snapshot has when nothing else is said; the rest is counted as left out.
GS_MOST = 10_000
#: The template answers within a millisecond. It refuses after 10 s, or after one if an M or it itself is stopped.
_ANSWER_S = 15.0


def observed(sched: _core.Sched, most: int = GS_MOST) -> SchedSnapshot:
    """A look at one that runs or has run. Blocks 15 s at most; a second where something is stopped."""
    copy, consistent, held, stopped_ns, inside, number = sched.observe(most, int(_ANSWER_S * 1e9))
    notes = () if consistent else (f"not of one moment: {_why(copy, inside, number)}",)
    return record_of(copy, consistent=consistent, stopped_ns=stopped_ns if held else None, notes=notes)


def _why(copy: _core.Sched, inside: int, number: int) -> str:
    if inside == _CALLER:
        return "the caller is inside the runtime and does not come out"
    if inside:
        m = copy.m_fields(inside)
        return f"M{m['id']} (pid {m['procid']}) is inside the runtime and does not come out"
    template = copy.sched_fields()["templatepid"]
    if number == errno.ETIMEDOUT:
        return f"the template (pid {template}) does not answer; it is in state {procfs.state(template)}"
    if number == errno.ESRCH:
        return "it is being ended"
    return f"the template (pid {template}) cannot be asked: {os.strerror(number)}"


def record_of(
    copy: _core.Sched, *, consistent: bool, stopped_ns: int | None = None, notes: Iterable[str] = ()
) -> SchedSnapshot:
    """The record of a copy. Raises IpclabError when it is of no state a scheduler can be in."""
    try:
        return _record_of(copy, consistent, stopped_ns, notes)
    except IndexError as err:  # a list leads to a record that is not there
        hint = "its memory is damaged" if consistent else "it changed while it was copied, or is damaged: look again"
        raise IpclabError(f"the scheduler's state contradicts itself: {err}", hint=hint) from err


def _record_of(copy: _core.Sched, consistent: bool, stopped_ns: int | None, notes: Iterable[str]) -> SchedSnapshot:
    sched = copy.sched_fields()
    gs = [copy.g_fields(index) for index in range(1, sched["allglen"] + 1)]
    look = _Look(copy, gs)
    ms = sorted((look.m(index) for index in look.members("m.alllink", sched["allm"])), key=lambda m: m.id)
    reason, argument, text = copy.fatal()
    return SchedSnapshot(
        taken_ns=time.monotonic_ns(),
        caller_pid=sched["callerpid"],
        template_pid=sched["templatepid"],
        model=_MODELS[sched["model"]] if sched["model"] < len(_MODELS) else "m:n",
        consistent=consistent,
        notes=(*notes, *_stop(sched, ms), *_remarks(ms)),
        stopped_ns=stopped_ns,
        ended="" if not reason else message_of(reason, argument, text) or outcome_of(reason),
        sched=sched,
        midle=look.m_ids(look.members("m.schedlink", sched["midle"])),
        pidle=tuple(p - 1 for p in look.members("p.link", sched["pidle"])),
        runq=look.goids(look.members("g.schedlink", sched["runq.head"])),
        newm=look.m_ids(look.members("m.schedlink", sched["newm"])),
        ps=tuple(look.ps(sched["gomaxprocs"])),
        ms=tuple(ms),
        gs=tuple(look.g(g) for g in gs),
        gs_left_out=copy.left_out(),
        channels=tuple(chan for number in range(sched["nchans"]) if (chan := look.chan(number))),
        semaphores=tuple(sema for number in range(sched["nsemas"]) if (sema := look.sema(number))),
    )


def _stop(sched: dict[str, int], ms: Iterable[MState]) -> Iterable[str]:
    """By whom the world is stopped, and since when."""
    if not sched["gcwaiting"]:
        return
    holder = sched["worldsema"] & _HOLDER
    who = next((f"M{m.id} (pid {m.pid})" for m in ms if m.pid == holder and m.role == "M"), "the caller")
    since = f"{(time.monotonic_ns() - sched['stopsince']) / 1e9:.3g} s"
    if sched["stopwait"] > 0:
        yield f"{who} has been stopping the world for {since}; Ps it still waits for: {sched['stopwait']}"
    else:
        yield f"the world is stopped, by {who}, for {since} now"


def _remarks(ms: Iterable[MState]) -> Iterable[str]:
    for m in ms:
        if m.kernel_state in ("T", "t"):
            yield f"M{m.id} (pid {m.pid}) is stopped, in state {m.kernel_state}"
        if m.fields["stalled"] >> 8 == _INSIDE and m.where == "runtime":
            yield f"M{m.id} (pid {m.pid}) is stopped inside the runtime: it is waited for"
        if m.fields["stalled"] >> 8 == _DEAF and m.where == "user" and m.p is not None:
            yield f"M{m.id} (pid {m.pid}) does not give way: its G's code does not let SIGURG in"
        if m.role == "dead" and m.fields["dead"] == 1:
            yield f"M{m.id} (pid {m.pid}) is dead and not repaired yet"


class _Look:
    """Indices of one copy become ids."""

    def __init__(self, copy: _core.Sched, gs: list[dict[str, int]]) -> None:
        self.copy = copy
        self.clock = copy.clock()
        self.id_of_m = [-1, *(copy.m_fields(m)["id"] for m in range(1, copy.sched_fields()["allm"] + 1))]
        self.goid_of = [0, *(g["goid"] for g in gs)]
        self.sleepers: dict[int, list[int]] = {}
        for g in gs:
            if g["timerp"]:
                self.sleepers.setdefault(g["timerp"], []).append(g["goid"])

    def members(self, kind: str, first: int) -> list[int]:
        return self.copy.members(kind, first, _LIST_MOST)

    def m_id(self, index: int) -> int | None:
        return self.id_of_m[index] if 0 < index < len(self.id_of_m) else None

    def m_ids(self, indices: Iterable[int]) -> tuple[int, ...]:
        return tuple(m for index in indices if (m := self.m_id(index)) is not None)

    def goid(self, index: int) -> int | None:
        return self.goid_of[index] if 0 < index < len(self.goid_of) else None

    def goids(self, indices: Iterable[int]) -> tuple[int, ...]:
        return tuple(goid for index in indices if (goid := self.goid(index)) is not None)

    def ps(self, gomaxprocs: int) -> Iterable[PState]:
        for p in range(_core.GMP_MAXPROCS):
            fields = self.copy.p_fields(p)
            if p >= gomaxprocs and not fields["schedtick"]:
                continue
            yield PState(
                id=p,
                status=_word(P_STATUS, fields["status"]),
                m=self.m_id(fields["m"]),
                runnext=self.goid(fields["runnext"]),
                runq=self.goids(self.copy.p_runq(p)),
                gfree=fields["gFreeN"],
                timers=tuple(self.sleepers.get(p + 1, ())),
                fields=fields,
            )

    def m(self, index: int) -> MState:
        fields = self.copy.m_fields(index)
        pid = fields["procid"]
        role = "sysmon" if fields["mstartfn"] == _SYSMON else "M"
        if fields["exiting"]:
            role = "exited"
        elif fields["dead"]:
            role = "dead"
        elif pid <= 0:
            role = "unborn"
        there = role in ("M", "sysmon")
        return MState(
            id=fields["id"],
            pid=pid,
            role=role,
            where=_word(_WHERE, fields["where"]),
            kernel_state=procfs.state(pid).replace("X", "") if there else "",
            p=_before(fields["p"]),
            nextp=_before(fields["nextp"]),
            oldp=_before(fields["oldp"]),
            curg=self.goid(fields["curg"]),
            lockedg=self.goid(fields["lockedg"]),
            spinning=bool(fields["spinning"]),
            blocked=bool(fields["blocked"]),
            idle=bool(fields["idle"]),
            fields=fields,
        )

    def g(self, fields: dict[str, int]) -> GState:
        return GState(
            goid=fields["goid"],
            status=_word(G_STATUS, fields["atomicstatus"]),
            waitreason=str(fields["waitreason"]),
            waited_ns=ticks_ago_ns(self.clock, fields["waitsince"]) if fields["atomicstatus"] == _WAITING else None,
            m=self.m_id(fields["m"]),
            lockedm=self.m_id(fields["lockedm"]),
            parent=fields["parentGoid"],
            made_at=made_at(fields),
            program=fields["startpc"],
            pc=fields["pc"],
            fields=dict(fields),
        )

    def chan(self, number: int) -> ChanState | None:
        """None: it is nobody's."""
        fields = self.copy.chan_fields(number)
        if not fields["used"]:
            return None
        return ChanState(
            number=number,
            capacity=fields["dataqsiz"],
            buffered=fields["sendx"] - fields["recvx"],
            closed=bool(fields["closed"]),
            recvq=self.goids(fields["recvq"]),
            sendq=self.goids(fields["sendq"]),
        )

    def sema(self, number: int) -> SemaState | None:
        """None: it is nobody's."""
        fields = self.copy.sema_fields(number)
        if not fields["used"]:
            return None
        kind = fields["kind"]
        state = fields["state"]
        return SemaState(
            number=number,
            kind=_word(_SEMA_KIND, kind),
            value=(fields["value"], state & 1, state)[kind] if kind < len(_SEMA_KIND) else fields["value"],
            holder=self.goid(fields["holder"]),
            q=self.goids(fields["q"]),
        )


def _word(words: tuple[str, ...], number: int) -> str:
    return words[number] if number < len(words) else str(number)


def _before(index: int) -> int | None:
    """Tables begin at 1 where Go's ids begin at 0."""
    return index - 1 if index else None

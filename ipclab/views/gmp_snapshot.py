"""A scheduler's state at one moment, as text: sched, then every P, M and G."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ipclab.records import SchedSnapshot
from ipclab.views.gmp import table
from ipclab.views.medium import Medium, quantity, wrap
from ipclab.views.units import span

#: Dead Gs are counted; of the others so many have a row. --json has them all.
_GS_SHOWN = 100
_IDS_SHOWN = 24
#: Words of sched that are a matter of the segment, not of the scheduling: below the others.
_FIRST = (
    "gomaxprocs", "npidle", "nmidle", "nmidlelocked", "nmsys", "nmspinning", "needspinning", "gcwaiting", "stopwait",
    "sysmonwait", "runq.size", "gFreeN", "allglen", "goidgen", "mnext", "nmfreed", "nmspare", "lastpoll", "pollUntil",
    "deaths", "repairs", "lostgs", "preempts", "retakes",
)  # fmt: skip


def snapshot_report(seen: SchedSnapshot, medium: Medium) -> str:
    """All of it; of the Gs those that are not dead."""
    lines = wrap(_headline(seen), medium, "", "  ")
    for note in seen.notes:
        lines += wrap(note, medium, medium.paint("note: ", "warn"), "  ")
    lines += ["", *_sched(seen, medium), "", *_ps(seen, medium), "", *_ms(seen, medium), "", *_gs(seen, medium)]
    lines += _meeting_places(seen, medium)
    return "\n".join([*lines, ""])


def _headline(seen: SchedSnapshot) -> str:
    still = "" if seen.stopped_ns is None else f"; it stood still for {span(seen.stopped_ns)}"
    moment = f"one moment{still}" if seen.consistent else "not of one moment"
    state = f"ended: {seen.ended}" if seen.ended else "running"
    return f"model {seen.model}, caller {seen.caller_pid}, template {seen.template_pid}, {state} ({moment})"


def _sched(seen: SchedSnapshot, medium: Medium) -> list[str]:
    lines = [medium.paint("sched", "head")]
    lines += _words({name: seen.sched[name] for name in _FIRST}, medium, "  ", "  ")
    lines += wrap(_ids("M", seen.midle), medium, "  midle: ", "    ")
    lines += wrap(_ids("P", seen.pidle), medium, "  pidle: ", "    ")
    lines += wrap(_ids("G", seen.runq), medium, "  runq: ", "    ")
    if seen.newm:
        lines += wrap(_ids("M", seen.newm), medium, "  newm: ", "    ")
    rest = {name: value for name, value in seen.sched.items() if name not in _FIRST}
    return lines + _words(rest, medium, medium.paint("  also: ", "faint"), "    ")


def _words(words: Mapping[str, object], medium: Medium, first: str, indent: str) -> list[str]:
    """Each with its value, which stands in the same line."""
    told = ", ".join(f"{name}\xa0{value}" for name, value in words.items())
    return [line.replace("\xa0", " ") for line in wrap(told, medium, first, indent)]


def _ps(seen: SchedSnapshot, medium: Medium) -> list[str]:
    rows = [["P", "status", "m", "schedtick", "syscalltick", "runnext", "runq", "gFree", "timers"]]
    for p in seen.ps:
        ticks = [str(p.fields["schedtick"]), str(p.fields["syscalltick"])]
        queue = f"{len(p.runq)}"
        rows.append([f"P{p.id}", p.status, _id("M", p.m), *ticks, _id("G", p.runnext), queue, f"{p.gfree}",
                     f"{len(p.timers)}"])  # fmt: skip
    lines = table(rows, medium)
    for p in seen.ps:
        if p.runq:
            lines += wrap(_ids("G", p.runq), medium, f"  P{p.id}'s queue: ", "    ")
    return lines


def _ms(seen: SchedSnapshot, medium: Medium) -> list[str]:
    gone = Counter(m.role for m in seen.ms if m.role in ("dead", "exited"))
    rows = [["M", "pid", "role", "kernel", "where", "p", "nextp", "oldp", "curg", "lockedg", "flags", "locks"]]
    for m in seen.ms:
        if m.role in gone:
            continue
        flags = [name for name in ("spinning", "blocked", "idle") if getattr(m, name)]
        rows.append([f"M{m.id}", f"{m.pid}", m.role, m.kernel_state or "-", m.where, _id("P", m.p), _id("P", m.nextp),
                     _id("P", m.oldp), _id("G", m.curg), _id("G", m.lockedg), " ".join(flags) or "-",
                     str(m.fields["locks"])])  # fmt: skip
    lines = table(rows, medium)
    return lines + [f"... and {count} {role}" for role, count in gone.items()]


def _gs(seen: SchedSnapshot, medium: Medium) -> list[str]:
    living = [g for g in seen.gs if g.status not in ("_Gdead", "_Gidle")]
    rows = [["G", "status", "waitreason", "waited", "m", "lockedm", "parent", "made at", "program", "pc"]]
    for g in living[:_GS_SHOWN]:
        waits = g.waitreason if g.status == "_Gwaiting" else ""
        made_by = _id("G", g.parent or None)
        waited = span(g.waited_ns) if g.waited_ns is not None else "-"
        rows.append([f"G{g.goid}", g.status, waits or "-", waited, _id("M", g.m), _id("M", g.lockedm), made_by,
                     f"{g.made_at[0]}:{g.made_at[1]}" if g.parent else "-", str(g.program), str(g.pc)])  # fmt: skip
    lines = table(rows, medium)
    if len(living) > _GS_SHOWN:
        lines.append(f"... and {len(living) - _GS_SHOWN} more: --json has them all")
    lines.append(f"{quantity(len(seen.gs) - len(living), 'records')} of dead Gs, to be used again")
    if seen.gs_left_out:
        lines.append(f"{quantity(seen.gs_left_out, 'Gs')} were not copied: --gs {len(seen.gs) + seen.gs_left_out}")
    return lines


def _meeting_places(seen: SchedSnapshot, medium: Medium) -> list[str]:
    lines: list[str] = []
    if seen.channels:
        rows = [["chan", "capacity", "buffered", "closed", "recvq", "sendq"]]
        rows += [[f"{c.number}", f"{c.capacity}", f"{c.buffered}", "yes" if c.closed else "no", _short(c.recvq),
                  _short(c.sendq)] for c in seen.channels]  # fmt: skip
        lines += ["", *table(rows, medium)]
    if seen.semaphores:
        rows = [["sema", "kind", "value", "holder", "waiting"]]
        rows += [[f"{s.number}", s.kind, f"{s.value}", _id("G", s.holder), _short(s.q)] for s in seen.semaphores]
        lines += ["", *table(rows, medium)]
    return lines


def _id(letter: str, number: int | None) -> str:
    return "nil" if number is None else f"{letter}{number}"


def _ids(letter: str, numbers: Sequence[int]) -> str:
    shown = [f"{letter}{number}" for number in numbers[:_IDS_SHOWN]]
    more = f" ... {len(numbers)} in all" if len(numbers) > _IDS_SHOWN else ""
    return (" ".join(shown) or "empty") + more


def _short(goids: Iterable[int]) -> str:
    numbers = list(goids)
    return " ".join(f"G{goid}" for goid in numbers[:4]) + (f" +{len(numbers) - 4}" if len(numbers) > 4 else "") or "-"

"""Reading the event rings of all Ms: records in the order of their time."""

from __future__ import annotations

import struct

from ipclab import _core
from ipclab.records.gmp import SchedEvent

#: struct event of core/gmp/events.h: ticks, kind | P << 16 | M id << 32, goid, arg.
_EVENT = struct.Struct("<QQQQ")
_NO_P = 0xFFFF
#: EV_STEAL .. the last kind is not known here: names are asked for until the core has none.
_KINDS_MOST = 256
_EXIT = "M exit"


class EventLog:
    """The rings of one Sched, read on from where they were left. One thread at a time."""

    def __init__(self, sched: _core.Sched, *, keep: bool = False) -> None:
        self._sched = sched
        self._keep = keep
        self._at: dict[int, int] = {}
        self._ended: set[int] = set()
        self._kinds = [_core.gmp_event_name(kind) for kind in range(_KINDS_MOST)]
        #: Overwritten before they could be read.
        self.lost = 0
        #: What somebody wants to have later.
        self.kept: list[SchedEvent] = []

    def read(self) -> list[SchedEvent]:
        """Everything since the last call."""
        sched = self._sched
        start_ticks, start_ns, ticks, ns = sched.clock()
        ns_per_tick = (ns - start_ns) / max(1, ticks - start_ticks)
        found: list[SchedEvent] = []
        for m in range(1, sched.sched_fields()["mnext"] + 1):
            if m not in self._ended:
                self._read_one(m, start_ticks, start_ns, ns_per_tick, found)
        found.sort(key=lambda event: event.time_ns)
        return found

    def _read_one(self, m: int, start_ticks: int, start_ns: int, ns_per_tick: float, into: list[SchedEvent]) -> None:
        kinds = self._kinds
        while True:
            data, self._at[m], lost = self._sched.events(m, self._at.get(m, 0))
            self.lost += lost
            for ticks, what, goid, arg in _EVENT.iter_unpack(data):
                p = what >> 16 & 0xFFFF
                kind = kinds[what & 0xFF]
                into.append(
                    SchedEvent(
                        time_ns=start_ns + round((ticks - start_ticks) * ns_per_tick),
                        kind=kind,
                        m=what >> 32,
                        p=None if p == _NO_P else p,
                        goid=goid,
                        arg=arg,
                    )
                )
                if kind == _EXIT:
                    self._ended.add(m)
            if not data:
                return

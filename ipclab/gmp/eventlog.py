"""Reading the event rings of all Ms: records in the order of their time."""

from __future__ import annotations

import bisect
import struct

from ipclab import _core
from ipclab.records.gmp import SchedEvent

#: struct event of core/gmp/events.h: ticks, kind | P << 16 | M id << 32, goid, arg.
_EVENT = struct.Struct("<QQQQ")
_NO_P = 0xFFFF
_MOST = 1 << 64
#: More than there are: names of the core are asked for by number.
_KINDS_MOST = 256


_Raw = tuple[int, int, int, int]


class EventLog:
    """The rings of one Sched, read on from where they were left. One thread at a time.

    The rings are read one after the other while all are written. So that what is given out is in order, also from one
    read to the next, events later than the moment at which a read began are kept for the next one; and ticks become
    nanoseconds by the two readings of both clocks between which they lie. (An M that lost its CPU between taking an
    event's time and storing it is too late all the same: `SimResult.events` is sorted once more.)
    """

    def __init__(self, sched: _core.Sched) -> None:
        self._sched = sched
        self._at: dict[int, int] = {}
        self._kinds = [_core.gmp_event_name(kind) for kind in range(_KINDS_MOST)]
        self._later: list[_Raw] = []
        self._clock = sched.clock()[:2]
        #: Overwritten before they could be read.
        self.lost = 0
        #: What somebody wants to have later.
        self.kept: list[SchedEvent] = []

    def read(self) -> list[SchedEvent]:
        """Everything since the last call, up to this moment."""
        sched = self._sched
        before_ticks, before_ns = self._clock
        self._clock = now_ticks, now_ns = sched.clock()[2:]
        for m in range(1, sched.sched_fields()["allm"] + 1):
            self._read_one(m)
        self._later.sort()
        count = bisect.bisect_right(self._later, (now_ticks, *(_MOST,) * 3))
        raw, self._later = self._later[:count], self._later[count:]
        ns_per_tick = (now_ns - before_ns) / max(1, now_ticks - before_ticks)
        return [self._event(one, before_ns + round((one[0] - before_ticks) * ns_per_tick)) for one in raw]

    def _read_one(self, m: int) -> None:
        while True:
            data, self._at[m], lost = self._sched.events(m, self._at.get(m, 0))
            self.lost += lost
            self._later += _EVENT.iter_unpack(data)
            if not data:
                return

    def _event(self, raw: _Raw, time_ns: int) -> SchedEvent:
        _ticks, what, goid, arg = raw
        kind = self._kinds[what & 0xFF]
        m = what >> 32
        p = what >> 16 & 0xFFFF
        return SchedEvent(time_ns=time_ns, kind=kind, m=m, p=None if p == _NO_P else p, goid=goid, arg=arg)

"""What one process of a sample does: it pins itself, lets the driver run, and reports what that did and what it cost.

The report goes through a pipe of its own, in one piece, when all is over; nothing is written while it is measured. What
it cost is the difference of what the kernel counted for this process before and after the timed part: getrusage(2) for
CPU time and context switches, /proc/self/schedstat for the time it had to wait for a CPU.
"""

from __future__ import annotations

import gc
import os
import resource
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ipclab.bench.driver import Job, Lane, Meter, SideResult
from ipclab.records import SideCost

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side


class Role(NamedTuple):
    """One process of a sample."""

    side: Side
    #: Which pair it belongs to; of a fan always 0.
    pair: int
    #: Of a fan: which producer or consumer.
    worker: int
    cpu: int
    #: "a", "b"; with several pairs or workers "a2".
    name: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a role sends to the launcher."""

    result: SideResult
    cost: SideCost


class Costs:
    """What this process has spent between `start` and `stop`."""

    def __init__(self) -> None:
        self._from = self._until = _Reading.take()
        self._stopped = False

    def start(self) -> None:
        """From here on."""
        self._from = _Reading.take()

    def stop(self) -> None:
        """Up to here."""
        self._until = _Reading.take()
        self._stopped = True

    def cost(self, role: Role, result: SideResult) -> SideCost:
        """The difference; up to now when nobody has called `stop`."""
        if not self._stopped:
            self.stop()
        a, b = self._from, self._until
        waited = None if a.run_delay_ns is None or b.run_delay_ns is None else b.run_delay_ns - a.run_delay_ns
        return SideCost(
            role=role.name,
            cpu=role.cpu,
            messages=result.messages,
            cpu_ns=b.cpu_ns - a.cpu_ns,
            voluntary_switches=b.voluntary - a.voluntary,
            involuntary_switches=b.involuntary - a.involuntary,
            run_delay_ns=waited,
            system_calls=result.system_calls,
            system_calls_reason=result.system_calls_reason,
            sleeps=result.sleeps,
            wakes=result.wakes,
        )


def play(lane: Lane, role: Role, job: Job, report_fd: int) -> int:
    """The role's whole life after the barrier; the exit code. Whatever goes wrong is in the report."""
    os.sched_setaffinity(0, {role.cpu})
    gc.freeze()  # what the launcher had is nobody's garbage here: no look at it in the timed part
    costs = Costs()
    try:
        result = lane.run(role.side, job._replace(meter=Meter(costs.start, costs.stop), worker=role.worker))
    except Exception as err:
        result = SideResult(error=" ".join(str(err).split()) or type(err).__name__)
    report = Report(result=result, cost=costs.cost(role, result))
    data = memoryview(msgspec.msgpack.encode(report))
    while data:
        data = data[os.write(report_fd, data) :]
    return 0


def decode(data: bytes) -> Report | None:
    """A role's report; None when it did not live to finish it."""
    try:
        return msgspec.msgpack.decode(data, type=Report)
    except msgspec.DecodeError:
        return None


class _Reading(NamedTuple):
    cpu_ns: int
    voluntary: int
    involuntary: int
    run_delay_ns: int | None

    @classmethod
    def take(cls) -> _Reading:
        # The threads of this process count too: libraries (zmq) do their work in some.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_ns = round((usage.ru_utime + usage.ru_stime) * 1e9)
        return cls(cpu_ns, usage.ru_nvcsw, usage.ru_nivcsw, _run_delay_ns())


def _run_delay_ns() -> int | None:
    try:
        with open("/proc/self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None

"""The one interface of whatever moves the messages that are measured.

    launcher                        role "a"                     role "b"
    --------                        --------                     --------
    with driver.open(case) as lane:
      fork, fork              ->    lane.run("a", job)           lane.run("b", job)
                                      take the side, warm up       take the side, warm up
                                      job.meter.start()            job.meter.start()
                                      the timed part               the timed part
                                      job.meter.stop()             job.meter.stop()
                                      return SideResult            return SideResult

Side "a" sends and asks, side "b" receives, answers, and of one-way patterns has the clock. Both sides move `warm_up`
messages first and then `messages` more, in every direction the pattern has; sequence numbers run on through both.
With several pairs each has a lane of its own. Of a fan there is one lane, and `job.worker` tells its users apart: all
producers are "a", all consumers "b", and `job.messages` is what each producer sends.

A module that is a driver offers one as `DRIVER`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side
    from ipclab.records import Case


class Meter(NamedTuple):
    """To be called around the timed part by each role, so that set-up and warm-up cost nothing. Both may be called
    once; a driver that calls neither is charged for all of it."""

    start: Callable[[], None]
    stop: Callable[[], None]


def _nothing() -> None:
    pass


class Job(NamedTuple):
    """What one role has to do."""

    case: Case
    #: In the timed part: one way, or round trips. Of a fan: of each producer.
    messages: int
    #: Before it, neither timed nor recorded.
    warm_up: int
    #: Open loop: when message 0 of the timed part is due, on time.monotonic_ns()'s clock, and how far apart they are.
    start_ns: int | None
    interval_ns: int | None
    #: When the role gives up, on time.monotonic_ns()'s clock: it then reports what it has, with `error` set.
    deadline_ns: int
    #: Of a fan: which producer or consumer, from 0 on its side.
    worker: int = 0
    meter: Meter = Meter(_nothing, _nothing)


class SideResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one role did in the timed part; sent to the launcher over a pipe."""

    #: Receivers: first to last message verified. Ping: all of the loop.
    duration_ns: int = 0
    #: Timed and verified. A receiver's `duration_ns` covers one interval less than it has messages where the clock
    #: starts at the first of them; the driver then says how many intervals by counting one message less.
    messages: int = 0
    #: (Lower bound in ns, count): ping and open-loop receivers.
    histogram: list[tuple[int, int]] | None = None
    #: The slowest, exact.
    max_ns: int | None = None
    #: The mechanism's own in the timed part; None: not counted, and why.
    system_calls: int | None = None
    system_calls_reason: str = ""
    sleeps: int | None = None
    wakes: int | None = None
    #: The first message that was not what it had to be; -1: none.
    bad_sequence: int = -1
    #: One line; the sample has failed.
    error: str = ""


class Lane(Protocol):
    """The kernel objects of one pair (or one fan), made before the fork."""

    #: Room for so many messages; None: it has no such number.
    depth: int | None
    #: Buffer sizes in bytes as the kernel gave them, by name.
    buffers: dict[str, int]

    def run(self, side: Side, job: Job) -> SideResult:
        """Do a role's part, in the role's own process. Whatever it raises fails the sample with that line."""


class Driver(Protocol):
    """A way to move messages: the C core's loops, or Python's."""

    name: str

    def cost_free_reason(self, case: Case) -> str | None:
        """Why this case cannot run with this driver on this machine; None: it can. Opens nothing that costs."""

    def open(self, case: Case) -> AbstractContextManager[Lane]:
        """Make the kernel objects of one pair; they go when the block is left. Raises IpclabError."""

"""What happens in a role's process, whatever the driver: meet, warm up, meet, measure, meet; and what may go wrong.

    side a                        side b
    take, join        <------>    take, join          each knows the other's pid from here on
    warm up           <------>    warm up
    meet              <------>    meet
    start, loop, stop             start, loop, stop   of the job's meter
    meet              <------>    meet                nobody closes under a peer that still reads

The last meeting is also what catches a mechanism that acknowledges what it never delivers: the sender is done, the
receiver never comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import msgspec

from ipclab.bench import links
from ipclab.bench.driver import Job, SideResult
from ipclab.errors import IpclabError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ipclab.bench.meeting import Meeting
    from ipclab.mechanisms.base import Link, PingPong, Side
    from ipclab.records import Case

#: From the last meeting before a schedule to its first message.
LEAD_NS = 2_000_000
#: How much longer side a waits than side b, which is to be the first to say what has not come: it knows the number, and
#: notices a deadline a timer's tick late.
PATIENCE_NS = 500_000_000


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One loop: the warm-up, or what is measured."""

    side: Side
    pattern: str
    size_bytes: int
    first: int
    count: int
    deadline_ns: int
    start_ns: int = 0
    interval_ns: int = 0
    #: Both sides share a CPU: a schedule is kept asleep.
    together: bool = False
    measured: bool = False


class Player(ABC):
    """One side's end, made ready for loops. A driver's own."""

    @abstractmethod
    def play(self, turn: Turn) -> SideResult:
        """Run one loop. Less messages than asked for and neither error nor bad message: the deadline came."""


class PairLane(ABC):
    """One pair. A driver says how its players are made."""

    def __init__(self, link: Link | PingPong, meeting: Meeting, case: Case) -> None:
        self._link = link
        self._meeting = meeting
        self._case = case
        self.depth: int | None
        self.depth, self.buffers = links.granted(link, case)

    @abstractmethod
    def player(self, end: Any, pids: tuple[int, ...], job: Job) -> AbstractContextManager[Player]:
        """This side, with the processes of the others known."""

    def take(self, side: Side) -> AbstractContextManager[Any]:
        """This process's end."""
        return self._link.take(side)

    def place(self, side: Side, job: Job) -> int:
        """Which of those who meet this process is, from 0 on."""
        return int(side == "b")

    def share(self, side: Side, job: Job, count: int) -> int:
        """How many messages this process moves when each producer sends so many."""
        return count

    def run(self, side: Side, job: Job) -> SideResult:
        """See driver.Lane."""
        try:
            with self.take(side) as end:
                result = self._run(end, side, job)
                if result.error:
                    self._meeting.fail()  # before the end is closed: who meets that end must know why
                return result
        except (IpclabError, OSError) as err:
            self._meeting.fail()
            return SideResult(error=one_line(err))
        except BaseException:
            self._meeting.fail()
            raise

    def _run(self, end: Any, side: Side, job: Job) -> SideResult:
        meeting = self._meeting
        pids = meeting.join(self.place(side, job), job.deadline_ns)
        with self.player(end, pids, job) as player:
            if job.warm_up:
                count = self.share(side, job, job.warm_up)
                warm = named(player.play(_turn(side, job, 0, count)), side, 0, count)
                if warm.error:
                    return warm
            start_ns = meeting.agree_on_start(_until_ns(side, job), LEAD_NS)
            count = self.share(side, job, job.messages)
            turn = _turn(side, job, job.warm_up, count, measured=True)
            if job.start_ns is not None:
                start_ns = max(start_ns, job.start_ns)
            turn = msgspec.structs.replace(turn, start_ns=start_ns)
            job.meter.start()
            result = player.play(turn)
            job.meter.stop()
            result = named(result, side, job.warm_up, count)
            return result if result.error else self._confirmed(result, turn, job)

    def _confirmed(self, result: SideResult, turn: Turn, job: Job) -> SideResult:
        """The last meeting."""
        try:
            self._meeting.meet(turn.deadline_ns)
        except IpclabError as err:
            what = "all messages have left, but the other side has not confirmed them"
            return msgspec.structs.replace(result, error=f"{what}: {one_line(err)}")
        if turn.pattern == "throughput" and turn.side == "b":  # its clock starts with the first message
            return msgspec.structs.replace(result, messages=max(1, result.messages - 1))
        return result


def _until_ns(side: Side, job: Job) -> int:
    return job.deadline_ns + (PATIENCE_NS if side == "a" else 0)


def _turn(side: Side, job: Job, first: int, count: int, *, measured: bool = False) -> Turn:
    pattern = job.case.pattern
    return Turn(
        side=side,
        pattern="throughput" if pattern == "openloop" and not measured else pattern,
        size_bytes=job.case.size_bytes,
        first=first,
        count=count,
        deadline_ns=_until_ns(side, job),
        interval_ns=job.interval_ns or 0,
        together=len(set(job.case.cpus)) == 1,
        measured=measured,
    )


def named(result: SideResult, side: Side, first: int, count: int) -> SideResult:
    """Say what is wrong with a loop's result, if anything is, and at which message."""
    number = first + result.messages
    if result.bad_sequence >= 0:
        text = f"message {result.bad_sequence} is not what was sent: lost, out of order, cut or changed"
    elif result.error:
        text = f"at message {number}: {result.error}"
    elif result.messages != count:
        text = f"message {number} {'did not come' if side == 'b' else 'did not get through'} before the deadline"
    else:
        return result
    return msgspec.structs.replace(result, error=text)


def one_line(err: BaseException) -> str:
    """An error as a row shows it."""
    return " ".join(str(err).split()) or type(err).__name__

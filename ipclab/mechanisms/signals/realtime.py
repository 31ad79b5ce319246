"""rt-signal: signals that queue, in order, each with a word of data.

    sigqueue(pid, SIGRTMIN, 7)  -->  [ queue of the process: (signo, value, pid, uid) ... ]  -->  sigtimedwait(2)

What it is. The signals from SIGRTMIN to SIGRTMAX have no meaning of their own. Each one sent is queued by itself, and
sigqueue(3) sends an int along, which the receiver finds in siginfo_t. The kernel's numbers begin at 32, but glibc keeps
two for its threads, so SIGRTMIN is 34 there and the number has to be asked for, not written down.

Lifetime. Queued signals belong to the process they were sent to and are gone with it.

Boundaries. Kept: one signal, one int.

Order. The lowest number first, and first in, first out within one number. So numbers are priorities.

Capacity and limits. RLIMIT_SIGPENDING bounds what is queued for all processes of one user together, standard signals
included. When it is reached sigqueue(3) fails with EAGAIN, shown here as NoRoom. (kill(2) with a real-time number does
not fail then: it falls back to one pending bit, without data - one more reason to use sigqueue.)

Blocking. sigqueue(3) never waits; there is no back-pressure but EAGAIN. A receiver sleeps in sigtimedwait(2).

When an end dies. Sending to a process that is not there fails with ESRCH; to a zombie it succeeds and is lost. What a
dead sender had queued is still received. The receiver is told nothing of a death: `watch`.

Use it when timers, asynchronous I/O or message queues are to tell a process what happened (they send such signals
themselves: timer_create(2), mq_notify(3)), or an int and its sender's pid are all there is to say.

Not when there is more to say, or a full queue should make the sender wait: any queue or socket does that. A default
action nobody blocked in time ends the receiver.

Man pages. signal(7), sigqueue(3), sigtimedwait(2), sigaction(2), getrlimit(2).
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

from ipclab import _core
from ipclab.mechanisms.base import PEER_LOOK_S, Bell, Link, NativeSpec, Peer
from ipclab.mechanisms.signals._bell import SignalBell, SignalTurns
from ipclab.mechanisms.signals._line import (
    SI_QUEUE,
    Arrival,
    Receiver,
    check_value,
    payload,
    probe_call,
    queue_limits,
    send,
)
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LINK", "MECHANISM", "SI_QUEUE", "Arrival", "RealtimeReceiver", "RealtimeSender", "limits", "probe"]

MECHANISM = Mechanism(
    name="rt-signal",
    family="signals",
    summary="signals that queue in order, each with an int",
    lifetime="process",
    man_pages=("signal(7)", "sigqueue(3)", "sigtimedwait(2)", "sigaction(2)", "getrlimit(2)"),
)
LINK: type[Link] | None = None


def probe() -> Probe:
    """Ask whether this process may queue itself a signal; signal 0 is only asked, never sent."""
    return probe_call(partial(_core.sigqueue, os.getpid(), 0, 0), "sigqueue")


def limits() -> tuple[Limit, ...]:
    """What bounds real-time signals here."""
    return (
        *queue_limits(),
        Limit(name="first number", value=int(signal.SIGRTMIN), unit="signal number", source="SIGRTMIN, the C library"),
        Limit(name="last number", value=int(signal.SIGRTMAX), unit="signal number", source="SIGRTMAX, the C library"),
    )


class RealtimeSender:
    """Queues signals with a word each to one process. Holds nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def send(self, value: int = 0, signo: int = signal.SIGRTMIN) -> None:
        """Queue one (sigqueue(3)); never waits. Raises NoRoom when the queue is full, PeerGone, Unavailable."""
        check_value(value)
        send(partial(_core.sigqueue, self.pid, signo, value), "sigqueue", signo, f"process {self.pid}")


class RealtimeReceiver(Receiver):
    """Takes queued signals with their word by sigtimedwait(2). Make it before anybody may send; see _line.py."""

    def __init__(self, signals: Iterable[int] = (signal.SIGRTMIN,)) -> None:
        super().__init__(signals)
        self._numbers = sorted(self.signals)

    def _take(self, timeout_s: float | None, peer: Peer | None) -> Arrival | None:
        if peer is not None:
            timeout_s = PEER_LOOK_S if timeout_s is None else min(timeout_s, PEER_LOOK_S)
        found = _core.sigwaitinfo_value(self._numbers, None if timeout_s is None else int(timeout_s * 1e9))
        if found is None:
            return None
        signo, code, pid, uid, value = found
        return Arrival(signo, code, pid, uid, payload(code, value))


class RealtimePingPong(SignalTurns):
    """Two processes that queue each other SIGRTMIN with a word."""

    name = "rt-signal"

    @staticmethod
    def _receiver() -> Receiver:
        return RealtimeReceiver()

    @staticmethod
    def _bell(receiver: Receiver, pid: int) -> Bell:
        spec = NativeSpec("rt-signal", (), None, {"pid": pid, "signo": int(signal.SIGRTMIN)})
        return SignalBell(receiver, RealtimeSender(pid).send, spec)


PING_PONG = RealtimePingPong

"""signal: a number delivered to a process between two of its instructions; at most one of each is pending.

    kill(pid, SIGUSR1)  -->  [ one bit per number: pending ]  -->  handler | default action | sigtimedwait(2)

What it is. Signals 1 to 31: SIGINT from Ctrl-C, SIGCHLD when a child ends, SIGTERM to ask for an end, SIGUSR1 and
SIGUSR2 for one's own use. They are the only asynchronous mechanism: a handler interrupts running code at any
instruction, and may call nothing that is not async-signal-safe; Python therefore only notes it there, and runs its
handler in the main thread before the next bytecode. Whoever blocks a signal first can take it like a message instead
(`SignalReceiver`): nothing is interrupted then.

Lifetime. A pending signal belongs to the process it was sent to and is gone with it. A mask survives fork and execve;
handlers survive fork alone, after execve they are back at the default action.

Boundaries. It carries no data: the number, and who sent it (pid, uid).

Order. None among different numbers that are pending at once: the lowest is taken first.

Capacity and limits. One bit for each number. A second SIGUSR1 sent while one is pending is the same one: five sent can
be one received. They coalesce, which is right for "something has changed" and wrong for counting. Sending never fails
for want of room.

Blocking. kill(2) never waits. A receiver sleeps in sigtimedwait(2); other calls it may sleep in return EINTR when a
handler has run (Python repeats them), or go on by themselves where SA_RESTART was given and the call allows it.

When an end dies. A signal to a process that is not there fails with ESRCH; to a zombie it succeeds and does nothing. A
pid may be that of another process by now (see pidfd-signal). The receiver is told nothing of a sender's death: `watch`.

Use it when a process is to be told to end, to reload its configuration, or that a child has ended.

Not when events must be counted or carry data (rt-signal, a pipe), or within a program that has threads and libraries
with handlers of their own (signalfd, eventfd).

Man pages. signal(7), kill(2), sigaction(2), sigprocmask(2), sigtimedwait(2), signal-safety(7).
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from ipclab.errors import UsageError
from ipclab.mechanisms.base import PEER_LOOK_S, Bell, Link, NativeSpec, Peer, Resource
from ipclab.mechanisms.signals._bell import SignalBell, SignalTurns
from ipclab.mechanisms.signals._line import SI_USER, Arrival, Mask, Receiver, probe_call, send, signal_name
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

__all__ = ["LINK", "MECHANISM", "SI_USER", "Arrival", "HandlerCounter", "Mask", "SignalReceiver", "SignalSender"]

MECHANISM = Mechanism(
    name="signal",
    family="signals",
    summary="a number that interrupts a process; equal ones coalesce",
    lifetime="process",
    go="os/signal",
    man_pages=(
        "signal(7)",
        "kill(2)",
        "sigaction(2)",
        "sigprocmask(2)",
        "sigtimedwait(2)",
        "signal-safety(7)",
    ),
)
LINK: type[Link] | None = None
#: The kernel's real-time signals begin at 32; the C library keeps the first two or three for itself.
_HIGHEST = 31


def probe() -> Probe:
    """Ask whether this process may send itself a signal; signal 0 is only asked, never sent."""
    return probe_call(partial(os.kill, os.getpid(), 0), "kill")


def limits() -> tuple[Limit, ...]:
    """What bounds standard signals."""
    return (
        Limit(name="signals pending of one number", value=1, unit="signals", source="signal(7)"),
        Limit(name="highest number", value=_HIGHEST, unit="signal number", source="signal(7)"),
    )


class SignalSender:
    """Sends standard signals to one process. Holds nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def send(self, signo: int = signal.SIGUSR1) -> None:
        """Make `signo` pending in the process (kill(2)); never waits. Raises PeerGone, Unavailable, UsageError."""
        send(partial(os.kill, self.pid, signo), "kill", signo, f"process {self.pid}")


class SignalReceiver(Receiver):
    """Takes blocked standard signals with sigtimedwait(2). Make it before anybody may send; see _line.py."""

    def __init__(self, signals: Iterable[int] = (signal.SIGUSR1, signal.SIGUSR2)) -> None:
        super().__init__(signals)

    def _take(self, timeout_s: float | None, peer: Peer | None) -> Arrival | None:
        if peer is not None:
            timeout_s = PEER_LOOK_S if timeout_s is None else min(timeout_s, PEER_LOOK_S)
        if timeout_s is None:
            found: signal.struct_siginfo | None = signal.sigwaitinfo(self.signals)
        else:
            found = signal.sigtimedwait(self.signals, timeout_s)
        return found and Arrival(found.si_signo, found.si_code, found.si_pid, found.si_uid, None)


class HandlerCounter(Resource):
    """Counts how often a Python handler ran, per signal: deliveries, which may be fewer than were sent.

    Only in the main thread, as Python's signal.signal. `close` puts the former handlers back.
    """

    def __init__(self, signals: Iterable[int] = (signal.SIGUSR1,)) -> None:
        #: Deliveries seen so far.
        self.counts: Counter[int] = Counter()
        self._former: dict[int, Any] = {}
        try:
            for signo in signals:
                self._former[signo] = signal.signal(signo, self._count)
        except (ValueError, OSError) as err:
            self.close()
            raise UsageError(f"no handler for {signal_name(signo)}: {err}") from err

    def _count(self, signo: int, frame: FrameType | None) -> None:
        self.counts[signo] += 1

    def close(self) -> None:
        """Put the former handlers back. Twice is allowed."""
        while self._former:
            signo, former = self._former.popitem()
            signal.signal(signo, signal.SIG_DFL if former is None else former)

    def __str__(self) -> str:
        return ", ".join(f"{signal_name(signo)}: {count}" for signo, count in sorted(self.counts.items()))


class SignalPingPong(SignalTurns):
    """Two processes that send each other SIGUSR1."""

    name = "signal"

    @staticmethod
    def _receiver() -> Receiver:
        return SignalReceiver((signal.SIGUSR1,))

    @staticmethod
    def _bell(receiver: Receiver, pid: int) -> Bell:
        spec = NativeSpec("signal", (), None, {"pid": pid, "signo": int(signal.SIGUSR1)})
        return SignalBell(receiver, SignalSender(pid).send, spec)


PING_PONG = SignalPingPong

"""What the four signal mechanisms share: what arrived, the mask it waits behind, and the errors of sending.

A signal that nobody has blocked is delivered between two instructions of the program: its handler runs, or its default
action ends the process. Whoever wants to *receive* signals like messages first blocks them. Then they stay pending in
the kernel until sigtimedwait(2) or a signalfd takes them, and nothing is interrupted. The order matters:

  1. the receiver blocks the signal (the constructor does)
  2. it tells the sender so: over the start barrier, a pipe, or because it was forked with the signal blocked
  3. the sender sends

Sent before 1, a signal's default action is carried out, and for nearly all of them that is death.

A mask belongs to a thread. A signal sent to the process goes to any thread that does not block it, so in a process with
several threads all must block it: make the receiver first, threads started later inherit the mask.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipclab.errors import IpclabError, NoRoom, PeerGone, Unavailable, UsageError, from_os_error
from ipclab.mechanisms.base import Deadline, Peer, Resource
from ipclab.records import Limit, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: si_code: how a signal was sent (sigaction(2)). The first is kill(2), the second sigqueue(3), the third tgkill(2).
SI_USER, SI_QUEUE, SI_TIMER, SI_MESGQ, SI_ASYNCIO, SI_TKILL = 0, -1, -2, -3, -4, -6
_WITH_VALUE = frozenset({SI_QUEUE, SI_TIMER, SI_MESGQ, SI_ASYNCIO})
_UNBLOCKABLE = frozenset({signal.SIGKILL, signal.SIGSTOP})
_STATUS = Path("/proc/self/status")


class Arrival(NamedTuple):
    """One signal that was taken, and what the kernel says about its origin."""

    signo: int
    #: si_code: SI_USER, SI_QUEUE, ..., or what the kernel had to report.
    code: int
    #: Sender's pid and real uid, as the kernel wrote them for kill(2); sigqueue(3) lets its caller write them.
    pid: int
    uid: int
    #: The word sent along; None when there was none.
    value: int | None

    @property
    def name(self) -> str:
        """As signal(7) writes it: SIGUSR1, SIGRTMIN+3."""
        return signal_name(self.signo)


def signal_name(signo: int) -> str:
    """As signal(7) writes it; real-time signals are named relative to SIGRTMIN, which the C library chooses."""
    if signal.SIGRTMIN <= signo <= signal.SIGRTMAX:
        return f"SIGRTMIN+{signo - signal.SIGRTMIN}" if signo > signal.SIGRTMIN else "SIGRTMIN"
    try:
        return signal.Signals(signo).name
    except ValueError:
        return f"signal {signo}"


def payload(code: int, value: int) -> int | None:
    """The word of a signal: sigqueue(3), timers, message queues and asynchronous I/O send one; others have none."""
    return value if code in _WITH_VALUE else None


class Mask:
    """Some signals blocked in this thread; `close` takes away what is pending of them, and unblocks them.

    What was blocked before stays blocked. Close it in the thread that made it. Without taking the pending ones away,
    unblocking would deliver them, and the default action of most is to end the process.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self.signals = frozenset(int(signo) for signo in signals)
        _check_signals(self.signals)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
        self._mine = self.signals - {int(signo) for signo in before}

    def close(self) -> None:
        """Undo; twice is allowed."""
        mine, self._mine = self._mine, frozenset()
        if not mine:
            return
        while signal.sigtimedwait(mine, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, mine)


def _check_signals(signals: frozenset[int]) -> None:
    if not signals:
        raise UsageError("no signal was named")
    for signo in signals:
        if signo in _UNBLOCKABLE:
            raise UsageError(f"{signal_name(signo)} can be neither blocked nor received: signal(7)")
        if signo not in signal.valid_signals():
            raise UsageError(f"there is no signal {signo} here", hint=f"1 to {signal.SIGRTMAX}, signal(7)")


class Receiver(Resource):
    """Takes signals one by one, as messages. A context manager; leaving it closes it. Kinds say how one is taken."""

    def __init__(self, signals: Iterable[int]) -> None:
        self._mask = Mask(signals)
        self._peer: Peer | None = None
        self._closed = False

    @property
    def signals(self) -> frozenset[int]:
        """What it receives."""
        return self._mask.signals

    def wait(self, timeout_s: float | None = None) -> Arrival:
        """The next signal: of several pending ones the lowest number first. Sleeps while there is none.

        Raises TimedOut; PeerGone when the watched process has ended, after what it had sent. Handlers of other signals
        run meanwhile, and what they raise ends the wait.
        """
        if self._closed:
            raise IpclabError("this receiver of signals is closed")
        deadline = Deadline(timeout_s)
        while True:
            gone = self._peer is not None and self._peer.gone()
            arrival = self._take(0.0 if gone else deadline.left_s(), self._peer)
            if arrival is not None:
                return arrival
            if gone:
                raise PeerGone("the process that was to send a signal has ended")
            deadline.check("waiting for a signal")

    @property
    def peer(self) -> Peer | None:
        """The process that is watched."""
        return self._peer

    @abstractmethod
    def _take(self, timeout_s: float | None, peer: Peer | None) -> Arrival | None:
        """One signal within the time; None when the time is over, or earlier to have `peer` looked at again."""

    def pending(self) -> frozenset[int]:
        """Which of its signals are pending now; how often nobody is told (sigpending(2))."""
        return self._mask.signals & {int(signo) for signo in signal.sigpending()}

    def watch(self, pid: int) -> None:
        """Watch the sending process: a wait then ends when it ends. Signals by themselves tell nobody."""
        self._peer = Peer.instead_of(self._peer, pid)

    def close(self) -> None:
        """Drop what is pending and restore the thread's mask. Twice is allowed."""
        if self._closed:
            return
        self._closed = True
        if self._peer is not None:
            self._peer.close()
        self._mask.close()


def send(call: Callable[[], object], syscall: str, signo: int, whom: str) -> None:
    """Make the sending call and translate its refusal: PeerGone, NoRoom, Unavailable, UsageError."""
    try:
        call()
    except OSError as err:
        raise _refusal(err, syscall, f"{signal_name(signo)} to {whom}", signo) from err


def _refusal(err: OSError, syscall: str, what: str, signo: int) -> IpclabError:
    number = err.errno
    if number == errno.ESRCH:
        return PeerGone(f"{what}: there is no such process", errno=number, syscall=syscall)
    if number == errno.EPERM:
        hint = "it runs as another user; that takes CAP_KILL"
        return Unavailable(f"{what}: not permitted", hint=hint, errno=number, syscall=syscall)
    if number == errno.EAGAIN:
        text = f"{what}: its user's signal queue is full (RLIMIT_SIGPENDING)"
        return NoRoom(text, hint="raise it (ulimit -i), or let the receiver catch up", errno=number, syscall=syscall)
    if number == errno.EINVAL:
        return UsageError(f"there is no signal {signo} here", errno=number, syscall=syscall)
    return from_os_error(err, what, syscall=syscall)


def check_value(value: int) -> None:
    """The word of a signal is a C int (union sigval has room for a pointer too, which means nothing elsewhere)."""
    if not -(2**31) <= value < 2**31:
        raise UsageError(f"{value} does not fit the word of a signal", hint="-2147483648 to 2147483647")


def queue_limits() -> tuple[Limit, ...]:
    """How many signals may be queued for this user, and how many are."""
    soft, _ = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    return (
        Limit(
            name="signals queued for one user",
            value=None if soft == resource.RLIM_INFINITY else soft,
            unit="signals",
            source="getrlimit(RLIMIT_SIGPENDING)",
        ),
        Limit(name="queued now", value=_queued_now(), unit="signals", source=f"{_STATUS}, SigQ"),
    )


def _queued_now() -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1].split("/")[0]) for line in lines if line.startswith("SigQ:"))
    except (OSError, ValueError, StopIteration):
        return None


def probe_call(call: Callable[[], object], syscall: str) -> Probe:
    """Whether a harmless call works here."""
    try:
        call()
    except OSError as err:
        return Probe(works=False, reason=f"{syscall}: {os.strerror(err.errno or 0)}", remedy=_remedy(err.errno))
    return Probe(works=True)


def _remedy(number: int | None) -> str:
    if number in (errno.EMFILE, errno.ENFILE):
        return "raise RLIMIT_NOFILE (ulimit -n)"
    if number in (errno.EPERM, errno.ENOSYS):
        return "allow the call in this container's seccomp profile"
    return ""

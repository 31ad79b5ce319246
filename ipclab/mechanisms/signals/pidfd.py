"""pidfd-signal: a signal to exactly one process, never to another that has got its pid.

    fd = pidfd_open(pid)   ...time passes, the process ends...   pidfd_send_signal(fd, SIGTERM) -> ESRCH

What it is. A pidfd is a descriptor that refers to one process for good (pidfd_open(2)). pidfd_send_signal(2) signals
through it: either that process, or nobody. A pid is only a number: once its process has ended and been waited for, the
kernel gives it to another, and kill(2) would hit that one. Pids wrap at kernel.pid_max, on a busy machine within hours.

Lifetime. The descriptor lives until it is closed, the process it names may be long gone. It does not keep the process,
or its zombie, in any way.

Boundaries. As the signal sent: a number, and with a value an int (rt-signal).

Order. As the signals sent: see signal and rt-signal.

Capacity and limits. A descriptor for each process (RLIMIT_NOFILE); for queued signals RLIMIT_SIGPENDING.

Blocking. Sending never waits. The pidfd itself is readable from the moment the process has ended, so poll(2) waits for
that, also for processes that are no children, together with whatever else there is to wait for.

When an end dies. After the process has ended and was waited for, sending fails with ESRCH, here PeerGone. Between its
end and the waiting it is a zombie: sending succeeds and does nothing, while `ended()` tells already. Opening a pidfd by
number has the old race once: safe is the parent (nobody else can wait for its child), or CLONE_PIDFD, or a look at the
start time in /proc after opening. A pidfd can be sent to another process (fd-passing), which may then signal by it.

Use it when a program keeps track of processes that it did not start itself, or starts and ends many.

Not when the receiver is the caller's own child that it has not waited for: its pid cannot be reused, kill(2) does.

Man pages. pidfd_open(2), pidfd_send_signal(2), kill(2), poll(2), signal(7).
"""

from __future__ import annotations

import os
import select
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ipclab import _core
from ipclab.errors import IpclabError, PeerGone, TimedOut, from_os_error
from ipclab.mechanisms.base import Bell, Deadline, Link, NativeSpec, Resource
from ipclab.mechanisms.signals._bell import SignalBell, SignalTurns
from ipclab.mechanisms.signals._line import Receiver, check_value, probe_call, queue_limits, send
from ipclab.mechanisms.signals.realtime import RealtimeReceiver
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    pass

__all__ = ["LINK", "MECHANISM", "PidfdSender", "limits", "probe"]

MECHANISM = Mechanism(
    name="pidfd-signal",
    family="signals",
    summary="a signal to exactly one process, by descriptor",
    lifetime="process",
    man_pages=("pidfd_open(2)", "pidfd_send_signal(2)", "kill(2)", "poll(2)", "signal(7)"),
)
LINK: type[Link] | None = None

_PID_MAX = Path("/proc/sys/kernel/pid_max")
_LONGEST_POLL_MS = 2**31 - 1


def probe() -> Probe:
    """Open a pidfd of this process and ask by it; signal 0 is only asked, never sent."""
    return probe_call(_try_self, "pidfd_send_signal")


def _try_self() -> None:
    fd = os.pidfd_open(os.getpid())
    try:
        _core.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)


def limits() -> tuple[Limit, ...]:
    """What bounds it here."""
    try:
        most: int | None = int(_PID_MAX.read_text())
    except (OSError, ValueError):
        most = None
    return (
        Limit(name="pids before they are used again", value=most, unit="pids", source=str(_PID_MAX)),
        *queue_limits(),
    )


class PidfdSender(Resource):
    """Signals one process through a pidfd, which it owns. A context manager; leaving it closes the descriptor."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = -1
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError as err:
            text = f"process {pid}: there is no such process"
            raise PeerGone(text, errno=err.errno, syscall="pidfd_open") from err
        except OSError as err:
            raise from_os_error(err, f"process {pid}", syscall="pidfd_open") from err

    def send(self, signo: int = signal.SIGUSR1, value: int | None = None) -> None:
        """Send to that very process; never waits. `value` queues the word with it, as sigqueue(3).

        Raises PeerGone once it has ended and was waited for, NoRoom, Unavailable, UsageError.
        """
        if value is not None:
            check_value(value)
        call = partial(_core.pidfd_send_signal, self.fileno(), signo, value)
        send(call, "pidfd_send_signal", signo, f"process {self.pid}")

    def fileno(self) -> int:
        """The pidfd: readable from the end of the process on."""
        if self._fd < 0:
            raise IpclabError(f"the pidfd of process {self.pid} is closed")
        return self._fd

    def ended(self) -> bool:
        """Whether the process has ended, a zombie included; never blocks."""
        return self._poll(0)

    def wait_ended(self, timeout_s: float | None = None) -> None:
        """Sleep until the process has ended. It stays a zombie until its parent waits for it. Raises TimedOut."""
        deadline = Deadline(timeout_s)
        while True:
            left_s = deadline.left_s()
            if self._poll(None if left_s is None else min(int(left_s * 1e3) + 1, _LONGEST_POLL_MS)):
                return
            if deadline.over():
                raise TimedOut(f"process {self.pid} has not ended: the time is over")

    def _poll(self, timeout_ms: int | None) -> bool:
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(timeout_ms))

    def close(self) -> None:
        """Close the pidfd. Twice is allowed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class PidfdPingPong(SignalTurns):
    """Two processes that queue each other SIGRTMIN with a word, through pidfds."""

    name = "pidfd-signal"

    @staticmethod
    def _receiver() -> Receiver:
        return RealtimeReceiver()

    @staticmethod
    def _bell(receiver: Receiver, pid: int) -> Bell:
        sender = PidfdSender(pid)
        spec = NativeSpec("pidfd-signal", (sender.fileno(),), None, {"signo": int(signal.SIGRTMIN)})
        return SignalBell(receiver, partial(sender.send, signal.SIGRTMIN, 0), spec, sender.close)


PING_PONG = PidfdPingPong

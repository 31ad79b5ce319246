"""signalfd: signals read from a file descriptor, in a poll loop, without any handler.

    kill, sigqueue  -->  [ pending in this process ]  -->  read(fd): 128 bytes for each signal

What it is. signalfd(2) makes a descriptor that is readable while one of a set of signals is pending; read(2) takes them
and returns a struct signalfd_siginfo each: number, si_code, sender's pid and uid, the word of sigqueue. The signals
have to be blocked, else they are delivered as ever and the descriptor never sees them. No code is interrupted anywhere.

Lifetime. The descriptor lives until it is closed. It holds no signals: they stay pending in the process. It reads those
of *whoever calls read*: a child that inherited it reads its own.

Boundaries. Kept: 128 bytes are one signal. read(2) returns as many whole ones as are pending and fit.

Order. As the kernel takes them: the lowest number first, real-time ones of one number first in, first out.

Capacity and limits. Those of the signals: one pending of each standard number (they coalesce here as everywhere),
RLIMIT_SIGPENDING for queued ones. The descriptor counts against RLIMIT_NOFILE.

Blocking. read(2) sleeps while none is pending, or says EAGAIN with SFD_NONBLOCK; poll, select and epoll work on it,
which is its point: one wait for signals, sockets, timers and a watched process (pidfd).

When an end dies. The receiver is told nothing of a sender's death; but the same poll can wait for the sender's pidfd,
and `watch` does just that.

Use it when a program has an event loop: SIGCHLD, SIGTERM and SIGINT become ordinary events.

Not when children are started without care: the blocked mask is inherited over fork and execve, and a child that never
unblocks SIGTERM cannot be asked to end. Not for signals that report a fault (SIGSEGV): those cannot wait.

Man pages. signalfd(2), signal(7), sigprocmask(2), poll(2), read(2).
"""

from __future__ import annotations

import math
import os
import select
import signal
import struct
from typing import TYPE_CHECKING

from ipclab import _core
from ipclab.errors import IpclabError, from_os_error
from ipclab.mechanisms.base import Bell, Link, NativeSpec, Peer
from ipclab.mechanisms.signals._bell import SignalBell, SignalTurns
from ipclab.mechanisms.signals._line import Arrival, Receiver, payload, probe_call, queue_limits
from ipclab.mechanisms.signals.realtime import RealtimeSender
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["INFO_BYTES", "LINK", "MECHANISM", "Arrival", "SignalFd", "limits", "probe"]

MECHANISM = Mechanism(
    name="signalfd",
    family="signals",
    summary="signals read from a file descriptor",
    lifetime="process",
    man_pages=("signalfd(2)", "signal(7)", "sigprocmask(2)", "poll(2)", "read(2)"),
)
LINK: type[Link] | None = None

#: sizeof(struct signalfd_siginfo): linux/signalfd.h.
INFO_BYTES = 128
#: ssi_signo, ssi_errno, ssi_code, ssi_pid, ssi_uid, ssi_fd, ssi_tid, ssi_band, ssi_overrun, ssi_trapno, ssi_status,
#: ssi_int; what follows is of no use between processes.
_INFO = struct.Struct("=IiiIIiIIIIii")
#: SFD_NONBLOCK is O_NONBLOCK.
_NONBLOCK = os.O_NONBLOCK
_LONGEST_POLL_MS = 2**31 - 1


def probe() -> Probe:
    """Make a signalfd and close it; no mask is touched."""
    return probe_call(lambda: os.close(_core.signalfd(-1, [signal.SIGUSR1], _NONBLOCK)), "signalfd")


def limits() -> tuple[Limit, ...]:
    """What bounds it here."""
    return (
        *queue_limits(),
        Limit(name="one signal read", value=INFO_BYTES, unit="bytes", source="struct signalfd_siginfo, signalfd(2)"),
    )


class SignalFd(Receiver):
    """Takes blocked signals from a signalfd. Owns the descriptor; `close` closes it and restores the mask."""

    def __init__(self, signals: Iterable[int] = (signal.SIGUSR1, signal.SIGUSR2)) -> None:
        super().__init__(signals)
        try:
            self._fd = _core.signalfd(-1, sorted(self.signals), _NONBLOCK)
        except OSError as err:
            self._mask.close()
            raise from_os_error(err, "signalfd", syscall="signalfd", hint="raise RLIMIT_NOFILE (ulimit -n)") from err

    def fileno(self) -> int:
        """The descriptor: readable while a signal is pending. Read it with `read_nowait`."""
        if self._closed:
            raise IpclabError("this signalfd is closed")
        return self._fd

    def read_nowait(self, most: int = 16) -> list[Arrival]:
        """What is pending now, at most `most`, with one read(2); empty when nothing is."""
        try:
            raw = os.read(self.fileno(), most * INFO_BYTES)
        except BlockingIOError:
            return []
        return [_arrival(raw, start) for start in range(0, len(raw), INFO_BYTES)]

    def _take(self, timeout_s: float | None, peer: Peer | None) -> Arrival | None:
        found = self.read_nowait(1)
        if found or timeout_s == 0:
            return found[0] if found else None
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        if peer is not None and peer.fd is not None:
            poller.register(peer.fd, select.POLLIN)
        poller.poll(None if timeout_s is None else min(math.ceil(timeout_s * 1e3), _LONGEST_POLL_MS))
        found = self.read_nowait(1)
        return found[0] if found else None

    def close(self) -> None:
        """Close the descriptor, drop what is pending, restore the mask. Twice is allowed."""
        if not self._closed:
            os.close(self._fd)
        super().close()


def _arrival(raw: bytes, start: int) -> Arrival:
    signo, _errno, code, pid, uid, *_rest, value = _INFO.unpack_from(raw, start)
    return Arrival(signo, code, pid, uid, payload(code, value))


class SignalFdPingPong(SignalTurns):
    """Two processes that queue each other SIGRTMIN with a word, and read it from a signalfd."""

    name = "signalfd"

    @staticmethod
    def _receiver() -> Receiver:
        return SignalFd((signal.SIGRTMIN,))

    @staticmethod
    def _bell(receiver: Receiver, pid: int) -> Bell:
        assert isinstance(receiver, SignalFd)
        spec = NativeSpec("signalfd", (receiver.fileno(),), None, {"pid": pid, "signo": int(signal.SIGRTMIN)})
        return SignalBell(receiver, RealtimeSender(pid).send, spec)


PING_PONG = SignalFdPingPong

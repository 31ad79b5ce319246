"""Two processes that take turns by signals.

A signal needs a pid, and a process that has blocked the signal before it comes. So each side, when it is taken, blocks
the signal first and only then tells its pid to the other one, over a socket that serves for nothing else.

A mask belongs to a thread: take a side while the process has one thread, or the signal may end it.
"""

from __future__ import annotations

import os
import socket
import struct
from abc import abstractmethod
from typing import TYPE_CHECKING, Self

from ipclab.errors import PeerGone, TimedOut, from_os_error
from ipclab.mechanisms.base import Bell, NativeSpec, PingPong, Side, watched
from ipclab.mechanisms.data._cloakroom import Cloakroom

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclab.mechanisms.signals._line import Receiver

#: How long `take` waits for the other side. Chosen, longer than any start of a process.
MEET_S = 30.0
_PID = struct.Struct("q")


class SignalBell(Bell):
    """A side that takes signals by a receiver, which it owns, and sends them by a call."""

    def __init__(
        self, receiver: Receiver, ring: Callable[[], None], spec: NativeSpec, close: Callable[[], None] | None = None
    ) -> None:
        self._receiver = receiver
        self._ring = ring
        self._spec = spec
        self._close = close

    def ring(self) -> None:
        self._ring()

    def wait(self, timeout_s: float | None = None) -> None:
        self._receiver.wait(timeout_s)

    def native(self) -> NativeSpec:
        return self._spec._replace(numbers=self._spec.numbers | watched(self._receiver.peer))

    def watch(self, pid: int) -> None:
        self._receiver.watch(pid)

    def close(self) -> None:
        self._receiver.close()
        close, self._close = self._close, None
        if close is not None:
            close()


class SignalTurns(PingPong):
    """Two processes that get to know each other's pid."""

    def __init__(self, cloakroom: Cloakroom) -> None:
        self._cloakroom = cloakroom

    @classmethod
    def open(cls) -> Self:
        """Make the socket pair the two introduce themselves by. Raises NoRoom."""
        cloakroom = Cloakroom(cls.name)
        try:
            a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with a, b:
                cloakroom.leave("a", [a.detach()])
                cloakroom.leave("b", [b.detach()])
        except BaseException as err:
            cloakroom.close()
            if isinstance(err, OSError):
                raise from_os_error(err, cls.name, syscall="socketpair", hint="raise RLIMIT_NOFILE") from err
            raise
        return cls(cloakroom)

    @staticmethod
    @abstractmethod
    def _receiver() -> Receiver:
        """What takes this side's signals; blocks them from here on."""

    @staticmethod
    @abstractmethod
    def _bell(receiver: Receiver, pid: int) -> Bell:
        """This side, which rings that process."""

    def take(self, side: Side) -> Bell:
        """Block the signal, and meet the other side. Raises TimedOut after MEET_S, PeerGone."""
        (fd,) = self._cloakroom.fetch(side)
        with socket.socket(fileno=fd) as meeting:
            receiver = self._receiver()
            try:
                return self._bell(receiver, _exchange_pids(meeting, self.name))
            except BaseException:
                receiver.close()
                raise

    def close(self) -> None:
        """Let go of what nobody has taken."""
        self._cloakroom.close()


def _exchange_pids(meeting: socket.socket, what: str) -> int:
    meeting.settimeout(MEET_S)
    try:
        meeting.send(_PID.pack(os.getpid()))
        record = meeting.recv(_PID.size)
    except TimeoutError as err:
        raise TimedOut(f"{what}: the other side has not been taken within {MEET_S:.0f} s") from err
    except OSError as err:
        raise from_os_error(err, f"{what}: meeting the other side", syscall="recv") from err
    if len(record) != _PID.size:
        raise PeerGone(f"{what}: the other side has gone before it was met", syscall="recv")
    return int(_PID.unpack(record)[0])

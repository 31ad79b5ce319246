"""Links that lie, for the tests of the bench's honesty: each does one thing wrong, at one message.

`FaultyLink` wraps an End in the role's own process, for the Python driver. `RelayLink` puts a process between the two
sides, which forwards messages and does the wrong thing to one: so the core's loops meet it too.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ipclab import _core
from ipclab.mechanisms.base import End, Link, NativeSpec, Side
from ipclab.mechanisms.data.pipe import PipeLink
from ipclab.mechanisms.data.unix_seqpacket import UnixSeqpacketLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer


def tamper(fault: str, message: bytes, held: list[bytes]) -> list[bytes]:
    """What is passed on instead of the message that is to suffer, or of the one behind it when that was held back."""
    if fault == "drop":
        return []
    if fault == "reorder":
        held.append(message)
        return []
    if fault == "truncate":
        return [message[:-1]]
    if fault == "corrupt":
        spoilt = bytearray(message)
        spoilt[len(spoilt) // 2] ^= 0x10
        return [bytes(spoilt)]
    if fault == "repeat":
        return [message, message]
    raise AssertionError(fault)


class FaultyEnd(End):
    """Does the wrong thing to the `at`-th message sent."""

    def __init__(self, inner: End, fault: str, at: int) -> None:
        self._inner, self._fault, self._at = inner, fault, at
        self._sent = 0
        self._held: list[bytes] = []

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        message = bytes(data)
        number, self._sent = self._sent, self._sent + 1
        messages = tamper(self._fault, message, self._held) if number == self._at else [message]
        if messages and self._held:
            messages.append(self._held.pop())
        for each in messages:
            self._inner.send(each)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        return self._inner.recv_into(buffer, timeout_s)

    def watch(self, pid: int) -> None:
        self._inner.watch(pid)

    def native(self) -> NativeSpec:
        return self._inner.native()

    def close(self) -> None:
        self._inner.close()


class BlindEnd(FaultyEnd):
    """Takes messages off the wire, and never reads the payload into the caller's buffer."""

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        return self._inner.recv_into(bytearray(memoryview(buffer).nbytes), timeout_s)


class HastyEnd(FaultyEnd):
    """Answers itself with what it was given to send: the other side never hears of it."""

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        self._held = [bytes(data)]

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        if not self._held:
            return self._inner.recv_into(buffer, timeout_s)
        message = self._held.pop()
        memoryview(buffer)[: len(message)] = message
        return len(message)


class DyingEnd(FaultyEnd):
    """Is killed when it receives the `at`-th message."""

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        if self._sent == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._sent += 1
        return super().recv_into(buffer, timeout_s)


class FaultyLink(Link):
    """A link whose side `side` has an end that lies."""

    name = "planted"
    end: ClassVar[type[FaultyEnd]] = FaultyEnd
    base: ClassVar[type[Link]] = UnixSeqpacketLink
    side: ClassVar[Side] = "a"
    fault: ClassVar[str] = ""
    at: ClassVar[int] = -1

    def __init__(self, inner: Link) -> None:
        self._inner = inner

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls(cls.base.open(message_bytes=message_bytes, depth=depth))

    def take(self, side: Side) -> End:
        end = self._inner.take(side)
        return self.end(end, self.fault, self.at) if side == self.side else end

    def close(self) -> None:
        self._inner.close()


class ShortLivedLink(Link):
    """A pipe whose side b is killed a moment after it was taken."""

    name = "planted"
    #: Long after the loops have begun, long before they are done.
    LIFE_S = 0.2

    def __init__(self, inner: Link) -> None:
        self._inner = inner

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls(PipeLink.open(message_bytes=message_bytes, depth=depth))

    def take(self, side: Side) -> End:
        if side == "b":
            threading.Timer(self.LIFE_S, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return self._inner.take(side)

    def close(self) -> None:
        self._inner.close()


class RelayLink(Link):
    """Two links with a process in between, which does the wrong thing to message `at` of side a."""

    name = "planted"
    base: ClassVar[type[Link]] = UnixSeqpacketLink
    fault: ClassVar[str] = ""
    at: ClassVar[int] = -1

    def __init__(self, near: Link, far: Link, message_bytes: int) -> None:
        self._links = near, far
        self._opener = os.getpid()
        self._relay = os.fork()
        if self._relay == 0:
            with suppress(BaseException):
                _core.set_pdeathsig(signal.SIGKILL)
                self._forward(near.take("b"), far.take("a"), message_bytes)
            os._exit(0)

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        near, far = (cls.base.open(message_bytes=message_bytes, depth=depth) for _ in range(2))
        return cls(near, far, message_bytes)

    def _forward(self, near: End, far: End, message_bytes: int) -> None:
        # The way back, without a fault. A thread: nobody would reap a process of this one.
        threading.Thread(target=_pass_on, args=(far, near.send, message_bytes), daemon=True).start()
        held: list[bytes] = []
        number = -1

        def send(message: bytes) -> None:
            nonlocal number
            number += 1
            messages = tamper(self.fault, message, held) if number == self.at else [message]
            if messages and held:
                messages.append(held.pop())
            for each in messages:
                far.send(each)

        _pass_on(near, send, message_bytes)

    def take(self, side: Side) -> End:
        near, far = self._links
        return near.take("a") if side == "a" else far.take("b")

    def close(self) -> None:
        for link in self._links:
            link.close()
        if os.getpid() == self._opener and self._relay:
            os.kill(self._relay, signal.SIGKILL)
            os.waitpid(self._relay, 0)
            self._relay = 0


def _pass_on(source: End, send: Callable[[bytes], Any], message_bytes: int) -> None:
    buffer = bytearray(message_bytes)
    while True:
        size = source.recv_into(buffer)
        send(bytes(buffer[:size]))

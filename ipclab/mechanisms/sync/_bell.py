"""Two processes that take turns by objects without data: one object each way, rung by one side, waited at by the other.

    a rings ---> [ to b ] ---> b wakes up, rings ---> [ to a ] ---> a wakes up ...

That is the smallest thing one can do with a semaphore, an eventfd or a futex word, and so what its latency is measured
by. The objects are made before the fork and inherited; whoever opened them removes their names.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from ipclab.errors import PeerGone, TimedOut
from ipclab.mechanisms.base import Bell, Deadline, NativeSpec, Peer, PingPong, Side, watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclab.mechanisms.sync._lock import Lock

T = TypeVar("T")


class SyncBell(Bell):
    """A side whose wait is a call with a time-out, and whose ring is a call. The objects stay the opener's to close."""

    def __init__(self, wait: Callable[[float | None], object], ring: Callable[[], object], spec: NativeSpec) -> None:
        self._wait = wait
        self._ring = ring
        self._spec = spec
        self._peer: Peer | None = None

    @classmethod
    def of_locks(cls, incoming: Lock, outgoing: Lock, spec: NativeSpec) -> Self:
        """A side that waits at one semaphore and posts the other."""
        return cls(incoming.acquire, outgoing.release, spec)

    def ring(self) -> None:
        self._ring()

    def wait(self, timeout_s: float | None = None) -> None:
        if self._peer is None:
            self._wait(timeout_s)
            return
        deadline = Deadline(timeout_s)
        while True:
            gone = self._peer.gone()
            try:
                self._wait(0 if gone else deadline.slice_s())
                return
            except TimedOut as err:
                if gone:
                    raise PeerGone("the process that was to ring has ended") from err
                deadline.check("waiting to be rung")

    def native(self) -> NativeSpec:
        return self._spec._replace(numbers=self._spec.numbers | watched(self._peer))

    def watch(self, pid: int) -> None:
        self._peer = Peer.instead_of(self._peer, pid)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._spec = self._spec._replace(buffer=None)


class Turns(PingPong, Generic[T]):
    """One object for each direction, inherited by fork."""

    def __init__(self, stack: ExitStack, to_a: T, to_b: T) -> None:
        self._stack = stack
        self._to_a = to_a
        self._to_b = to_b

    @classmethod
    def open(cls) -> Self:
        with ExitStack() as stack:
            to_a, to_b = cls._make(stack)
            return cls(stack.pop_all(), to_a, to_b)

    @classmethod
    @abstractmethod
    def _make(cls, stack: ExitStack) -> tuple[T, T]:
        """The two objects, not rung; entered into the stack, which closes them."""

    @staticmethod
    @abstractmethod
    def _bell(incoming: T, outgoing: T) -> Bell:
        """The side that waits at one and rings the other."""

    def take(self, side: Side) -> Bell:
        return self._bell(self._to_a, self._to_b) if side == "a" else self._bell(self._to_b, self._to_a)

    def close(self) -> None:
        self._stack.close()

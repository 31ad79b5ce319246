"""What everything in this family has in common: who may go on, for how long to wait, when it is given back.

    with X.create(...) as x:            its life: leaving the block closes it, and removes its name in its creator
        with x.held(timeout_s=1.0):     a turn: acquire, release
            ...

All waits take `timeout_s` (None: for ever, 0: do not wait) and raise TimedOut. EINTR is not seen by the caller, a
KeyboardInterrupt is. An exception that strikes between the kernel's "yours" and the next line of Python leaves the
thing acquired: whoever is interrupted in acquire() should end, or close it.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.mechanisms.base import Resource
from ipclab.mechanisms.shared.memfd import Memfd

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Deadline

#: First and longest pause where the kernel offers no wait with a deadline. Chosen: a waiter finds a free lock 20 ms
#: late at worst and costs fifty cheap system calls a second.
SHORTEST_PAUSE_S = 0.0005
LONGEST_PAUSE_S = 0.02


class Lock(Resource):
    """Something that is taken and given back."""

    @abstractmethod
    def acquire(self, timeout_s: float | None = None) -> None:
        """Take it; waits while it cannot be had. Raises TimedOut."""

    @abstractmethod
    def release(self) -> None:
        """Give it back; never waits."""

    @contextmanager
    def held(self, timeout_s: float | None = None) -> Iterator[Self]:
        """A block that has it."""
        self.acquire(timeout_s)
        try:
            yield self
        finally:
            self.release()


class Placed(Resource):
    """An object that lies in shared memory: in a memfd of its own, or at an offset of any writable shared mapping.

    A memfd of its own is inherited by fork; `fd` can be sent to others, which map it and use `at`.
    """

    #: How many bytes it takes, and how it must be aligned.
    SIZE_BYTES = 64
    ALIGN_BYTES = _core.ALIGN

    def __init__(self, buffer: Buffer, offset: int = 0, home: Memfd | None = None) -> None:
        self._memory = memoryview(buffer)
        self._offset = offset
        self._home = home

    @classmethod
    def at(cls, buffer: Buffer, offset: int = 0) -> Self:
        """The object that somebody has prepared there. The buffer is held until close()."""
        return cls(buffer, offset)

    @classmethod
    def _in_new_memory(cls) -> Self:
        home = Memfd.create(cls.SIZE_BYTES, f"ipclab-{cls.__name__}")
        return cls(home.buffer, 0, home)

    @property
    def fd(self) -> int:
        """The memfd it lies in. OSError when it lies in somebody else's memory."""
        if self._home is None:
            raise OSError(f"this {type(self).__name__} has no memory of its own")
        return self._home.fd

    def close(self) -> None:
        """Let go of the memory; the object itself stays for the others."""
        self._memory.release()
        if self._home is not None:
            self._home.close()


def nanoseconds(timeout_s: float | None) -> int | None:
    """A timeout as the core takes it."""
    return None if timeout_s is None else max(0, int(timeout_s * 1e9))


def poll_until(attempt: Callable[[], bool], deadline: Deadline, what: str) -> None:
    """Try again and again, with growing pauses, until it works; TimedOut names `what`. For calls without a deadline."""
    pause_s = SHORTEST_PAUSE_S
    while not attempt():
        deadline.check(what)
        time.sleep(deadline.slice_s(pause_s))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

"""futex: sleep while a word in memory has this value.

What it is. futex(2) has no object. FUTEX_WAIT(word, expected) puts the caller to sleep if the word still has the
expected value, compared and queued in one step under the kernel's lock, so that a change between looking and sleeping
cannot be missed; FUTEX_WAKE(word, n) wakes up to n sleepers. Everything else is the user's: the word means what atomic
instructions make of it. All the other things in shared memory here (semaphore, mutex, condition, barrier, the ring's
notes) are made of it. The mutex below is the third one of Ulrich Drepper's "Futexes Are Tricky", in Python to be read:

    0 free    1 taken, nobody sleeps    2 taken, somebody may sleep
    acquire: 0 -> 1, done, and no system call was made. Else: make it 2 and sleep while it is 2; whoever comes back
             takes it as 2, because it cannot know whether others still sleep
    release: 1 -> 0, done, no system call. It was 2: make it 0 and wake one

Lifetime. The word's memory; the kernel keeps a queue only while somebody sleeps.

Boundaries. It carries no data but the word itself.

Order. FUTEX_WAKE wakes the longest sleeper (by priority), but who is running may take the lock before it: no fairness.
The atomics here are sequentially consistent: what was stored before a release is seen after the acquire.

Capacity and limits. A word of 32 bits, aligned to 4, in memory both have mapped. A sleeper is a thread, so the number
of threads is the limit.

Blocking. FUTEX_WAIT sleeps (state S) until woken, until the deadline, until a signal. It may also return for nothing,
so the word is looked at again, always, in a loop.

When an end dies. The word stays as it was: a killed holder leaves the mutex taken for ever, and the next one times out.
Worse, a sleeper that is killed after it was woken and before it took the lock has swallowed the wake-up: the lock is
free, and the others sleep on until somebody contends for it again. Robust futexes (robust-mutex) exist because of this.

Use it when you build such a thing, or want to see what they are made of.

Not when any of them does what you need: getting it right took a paper.

Man pages. futex(2), futex(7), get_robust_list(2).
"""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from ipclab import _core
from ipclab.errors import IpclabError, TimedOut
from ipclab.mechanisms.base import Bell, Deadline, Link, NativeSpec
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync._bell import SyncBell, Turns
from ipclab.mechanisms.sync._lock import Lock, Placed, nanoseconds
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

MECHANISM = Mechanism(
    name="futex",
    family="synchronisation",
    summary="sleep while a word in memory has a value: what the others are made of",
    lifetime="process",
    man_pages=("futex(2)", "futex(7)"),
)
LINK: type[Link] | None = None

FREE, TAKEN, CONTENDED = 0, 1, 2


class FutexWord(Placed):
    """A 32-bit word in shared memory, its atomics, and sleeping on it."""

    ALIGN_BYTES = 4

    @classmethod
    def create(cls, value: int = 0) -> Self:
        """A new word in a memfd of its own. Raises NoRoom."""
        word = cls._in_new_memory()
        word.store(value)
        return word

    @classmethod
    def place(cls, buffer: Buffer, offset: int, value: int = 0) -> Self:
        """A word at this offset (a multiple of 4) of shared memory."""
        word = cls(buffer, offset)
        word.store(value)
        return word

    @property
    def place_in_memory(self) -> tuple[memoryview, int]:
        """The memory it lies in, and its offset."""
        return self._memory, self._offset

    def load(self) -> int:
        """The value now."""
        return _core.atomic_load(self._memory, self._offset)

    def store(self, value: int) -> None:
        """Set it; wakes nobody."""
        _core.atomic_store(self._memory, self._offset, value)

    def add(self, value: int) -> int:
        """Add, modulo 2**32; the value before."""
        return _core.atomic_add(self._memory, self._offset, value)

    def exchange_if(self, expected: int, desired: int) -> int:
        """Compare and exchange: the value before; it was exchanged if that was the expected one."""
        return _core.atomic_cas(self._memory, self._offset, expected, desired)

    def wait(self, expected: int, timeout_s: float | None = None) -> bool:
        """FUTEX_WAIT: sleep while the word is `expected`; False when the time is over. Look at the word afterwards."""
        return _core.futex_wait(self._memory, self._offset, expected, nanoseconds(timeout_s))

    def wake(self, count: int = 1) -> int:
        """FUTEX_WAKE: wake up to `count` sleepers; how many there were."""
        return _core.futex_wake(self._memory, self._offset, count)


class FutexMutex(Lock):
    """Drepper's mutex number three. It does not know its owner: anybody can release it, and nobody notices a death."""

    def __init__(self, word: FutexWord) -> None:
        self.word = word
        #: futex(2) calls this object has made in this process: 0 as long as nobody had to wait.
        self.system_calls = 0

    @classmethod
    def create(cls) -> Self:
        """A free one in a memfd of its own. Raises NoRoom."""
        return cls(FutexWord.create(FREE))

    @classmethod
    def place(cls, buffer: Buffer, offset: int) -> Self:
        """A free one at this offset (a multiple of 4) of shared memory."""
        return cls(FutexWord.place(buffer, offset, FREE))

    def acquire(self, timeout_s: float | None = None) -> None:
        """Take it; sleeps while it is taken. Raises TimedOut, also when its holder is dead."""
        was = self.word.exchange_if(FREE, TAKEN)
        if was == FREE:
            return
        deadline = Deadline(timeout_s)
        while True:
            # Announce the sleeper first: whoever releases it from now on will make the system call that wakes us.
            if was == CONTENDED or self.word.exchange_if(TAKEN, CONTENDED) != FREE:
                self.system_calls += 1
                if not self.word.wait(CONTENDED, deadline.left_s()):
                    raise TimedOut("futex mutex: nobody has released it in time")
            was = self.word.exchange_if(FREE, CONTENDED)
            if was == FREE:
                return

    def release(self) -> None:
        """Give it back and wake one sleeper, if there may be one."""
        was = self.word.exchange_if(TAKEN, FREE)
        if was == CONTENDED:
            self.word.store(FREE)
            self.system_calls += 1
            self.word.wake(1)
        elif was == FREE:
            raise IpclabError("futex mutex: released, but nobody had taken it")

    def close(self) -> None:
        """Let go of the memory."""
        self.word.close()


def probe() -> Probe:
    """Wake nobody."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            _core.futex_wake(memory, 0, 1)
    except OSError as err:
        return Probe(works=False, reason=str(err), remedy="allow futex(2)")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """The word, and how many can sleep."""
    return (
        Limit(name="size of the word", value=32, unit="bits", source="futex(2)"),
        _live.sysctl("kernel/threads-max", "threads, each of which may sleep", "threads"),
        _live.map_count(),
    )


class FutexRing:
    """One direction: a word that counts how often it was rung. The reader remembers how many of them it has heard."""

    def __init__(self, word: FutexWord) -> None:
        self.word = word
        self.heard = 0

    def ring(self) -> None:
        """Count one more and wake the other side."""
        self.word.add(1)
        self.word.wake(1)

    def wait(self, timeout_s: float | None = None) -> None:
        """Sleep until there is one that has not been heard. Raises TimedOut."""
        deadline = Deadline(timeout_s)
        while self.word.load() == self.heard:
            if not self.word.wait(self.heard, deadline.left_s()):
                raise TimedOut("futex: nobody has rung in time")
        self.heard = (self.heard + 1) % 2**32


class FutexPingPong(Turns[FutexRing]):
    """Two words in one memfd, each on a cache line of its own."""

    name = "futex"

    @classmethod
    def _make(cls, stack: ExitStack) -> tuple[FutexRing, FutexRing]:
        memory = stack.enter_context(Memfd.create(2 * _core.ALIGN, "ipclab-futex"))
        first, second = (stack.enter_context(FutexWord.place(memory.buffer[:], at, 0)) for at in (0, _core.ALIGN))
        return FutexRing(first), FutexRing(second)

    @staticmethod
    def _bell(incoming: FutexRing, outgoing: FutexRing) -> Bell:
        memory, at = incoming.word.place_in_memory
        numbers = {"in": at, "out": outgoing.word.place_in_memory[1], "heard": incoming.heard}
        return SyncBell(incoming.wait, outgoing.ring, NativeSpec("futex", (), memory[:], numbers))


PING_PONG = FutexPingPong

"""semaphore: a bounded buffer in shared memory; first with no rule at all (items get lost), then with three semaphores.

    python demos/semaphore.py      (or: ipclab demo semaphore)

Look at: how many items never come out, and how many come out twice, when two processes change `tail` or `head` at the
same time; then who sleeps, and when: producers while no slot is free, consumers while none is filled. man: sem_wait(3)
"""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Callable

from ipclab.mechanisms.sync.barrier import Barrier
from ipclab.mechanisms.sync.posix_sem import NamedSemaphore
from ipclab.processes import Stage, say

FAMILY = "synchronisation"
NEEDS = ("posix-sem",)
BETTER_WITH = ()

SLOTS, PRODUCERS, CONSUMERS, EACH, TOTAL = 8, 2, 2, 400, 800
MOMENT_S = 2e-5  # a process can be stopped between any two instructions, for any time; here it happens often
TAIL, HEAD, NO_MORE, SLOT = 0, 1, 2, 3  # words of the shared page: next to fill, next to take, the end, the slots
SEEN = SLOT + SLOTS  # then, per consumer and item, how often that consumer took that item


def main() -> int:
    with Stage("semaphore", "Two producers, two consumers, eight slots: what keeps them in order?") as stage:
        the_race(stage)
        three_semaphores(stage)
        stage.verdict("unguarded, items are lost; with one semaphore to exclude and two to count, each arrives once")
    return stage.exit_code


class Buffer:
    """A ring of slots in shared memory. Correct for one producer and one consumer, wrong for more."""

    def __init__(self) -> None:
        self.words = memoryview(mmap.mmap(-1, 8 * (SEEN + CONSUMERS * TOTAL))).cast("q")
        self.gap: Callable[[], object] = lambda: time.sleep(MOMENT_S)

    def put(self, item: int) -> None:
        words = self.words
        while (tail := words[TAIL]) - words[HEAD] >= SLOTS:
            time.sleep(MOMENT_S)
        words[SLOT + tail % SLOTS] = item
        self.gap()
        words[TAIL] = tail + 1

    def take(self) -> int | None:
        """The next item; None when there is none and there will be none."""
        words = self.words
        while (head := words[HEAD]) >= words[TAIL]:
            if words[NO_MORE]:
                return None
            time.sleep(MOMENT_S)
        item = words[SLOT + head % SLOTS]
        time.sleep(MOMENT_S)
        words[HEAD] = head + 1
        return item

    def tally(self) -> tuple[int, int]:
        """How many items nobody took, and how many were taken more than once."""
        times = [sum(self.words[SEEN + item :: TOTAL]) for item in range(TOTAL)]
        return times.count(0), sum(count > 1 for count in times)


class GuardedBuffer(Buffer):
    """The same with Dijkstra's three semaphores."""

    def __init__(self) -> None:
        super().__init__()
        self.free = NamedSemaphore.create(SLOTS, "free")
        self.filled = NamedSemaphore.create(0, "filled")
        self.mutex = NamedSemaphore.create(1, "mutex")

    def put(self, item: int) -> None:
        self.free.acquire()  # sleeps while no slot is free
        with self.mutex.held():
            super().put(item)
        self.filled.release()

    def take(self) -> int | None:
        self.filled.acquire()  # sleeps while no slot is filled
        with self.mutex.held():
            item = super().take()
        self.free.release()
        return item

    def unlink(self) -> None:
        for semaphore in (self.free, self.filled, self.mutex):
            semaphore.unlink()


def produce(number: int, buffer: Buffer) -> None:
    for item in range(number * EACH, (number + 1) * EACH):
        buffer.put(item)
    say(f"put items {number * EACH} to {item}")


def consume(number: int, buffer: Buffer) -> None:
    first = SEEN + number * TOTAL
    while (item := buffer.take()) is not None:
        buffer.words[first + item] += 1
    say(f"took {sum(buffer.words[first : first + TOTAL])} items")


def the_race(stage: Stage) -> None:
    stage.scene(f"No semaphore: {PRODUCERS} x {EACH} items through {SLOTS} slots; both producers read `tail`, then add")
    buffer, both = Buffer(), Barrier.create(PRODUCERS)
    buffer.gap = lambda: both.wait(20)  # they meet between the two, as bad luck would have it
    producers = [stage.spawn(f"producer-{n}", produce, n, buffer) for n in range(PRODUCERS)]
    for n in range(CONSUMERS):
        stage.spawn(f"consumer-{n}", consume, n, buffer)
    stage.release()
    for process in producers:
        process.wait(20)
    buffer.words[NO_MORE] = True
    stage.wait(20)
    lost, doubled = buffer.tally()
    stage.say(f"{TOTAL} items put, tail says {buffer.words[TAIL]}: two read the same tail and filled the same slot")
    stage.check(lost > 0, f"the race is real: {lost} items never came out, {doubled} came out more than once")


def three_semaphores(stage: Stage) -> None:
    stage.scene(f"Three semaphores: free = {SLOTS}, filled = 0, mutex = 1")
    buffer = GuardedBuffer()
    producers = [stage.spawn(f"producer-{n}", produce, n, buffer) for n in range(PRODUCERS)]
    stage.release()
    asleep, put = [stage.asleep_in(producer, syscall="futex") for producer in producers], buffer.words[TAIL]
    stage.check(all(asleep) and put == SLOTS, f"{put} slots are filled, free is {buffer.free.value}: producers sleep")
    consumers = [stage.spawn(f"consumer-{n}", consume, n, buffer) for n in range(CONSUMERS)]
    for process in producers:
        process.wait(20)
    asleep = [stage.asleep_in(consumer, syscall="futex") for consumer in consumers]
    stage.check(all(asleep), f"everything is taken, filled is {buffer.filled.value}: consumers sleep")
    buffer.words[NO_MORE] = True
    for _ in consumers:
        buffer.filled.release()  # wakes one that will find nothing: the end
    stage.wait(20)
    buffer.unlink()
    stage.check(buffer.tally() == (0, 0), f"all {TOTAL} items came out, each once")


if __name__ == "__main__":
    sys.exit(main())

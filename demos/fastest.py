"""fastest: is shared memory the fastest? With semaphores and as a ring against pipe and socket, 64 bytes and 1 MiB.

    python demos/fastest.py        (or: ipclab demo fastest)

Look at: the medians, and at their spread before believing them. Every message is stamped by its sender and read to its
last byte by its receiver, whose clock counts. The kernel copies a pipe's bytes twice, but it does all the waiting and
waking too; shared memory leaves these to you, and how you do them decides: here in Python, and in C for the ring.
man: pipe(7), unix(7), shm_overview(7), sem_overview(7), futex(2)
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from ipclab import _core
from ipclab.errors import PeerGone
from ipclab.mechanisms import load
from ipclab.processes import Stage

FAMILY = "comparison"
NEEDS = ("pipe", "unix-stream", "posix-shm", "ring")
BETTER_WITH = ()

KERNEL = {"pipe": "pipe", "unix-stream": "unix socket"}  # the kernel carries the bytes
SHARED = {"posix-shm": "with semaphores", "ring": "as a ring"}
SIZES = [("64 bytes", 64, 2000, 512), ("1 MiB", 1 << 20, 16, 2)]
ROUNDS = 5
# Each on one CPU, and not on the same where there are two: a move would cost more than a message.
SENDERS_CPU, RECEIVERS_CPU = {min(os.sched_getaffinity(0))}, {max(os.sched_getaffinity(0))}

Figures = dict[str, list[float]]  # rival -> nanoseconds a message, one for each round
Side = Callable[[], Callable[[bytearray], Any]]  # called in the process that will use it, gives its put or its get


def main() -> int:
    with Stage("fastest", "Is shared memory the fastest way to pass a message?") as stage:
        stage.release()
        answers = []
        for label, size, count, depth in SIZES:  # count messages, of which depth may be under way
            stage.scene(f"{label}: {count} messages a round, up to {depth} under way; {ROUNDS} rounds, taking turns")
            figures = measure(stage, size, count, depth)
            show(stage, figures, size)
            answers.append(f"{label}: " + ", ".join(judge(figures, name) for name in SHARED))
        stage.say(f"x: times as fast as the better of pipe and socket; yes: in {ROUNDS - 1} rounds of {ROUNDS} or more")
        stage.verdict(f"shared memory the fastest? {'; '.join(answers)}")
    return stage.exit_code


# --- measure ---------------------------------------------------------------------------------------------------------
def measure(stage: Stage, size: int, count: int, depth: int) -> Figures:
    with ExitStack() as closing:
        inbox, outbox = (closing.enter_context(end) for end in Pipe())
        sides = {name: closing.enter_context(opened(name, size, depth)) for name in KERNEL | SHARED}
        sender = stage.spawn("sender", send, [side for side, _ in sides.values()], size, count, inbox)
        receiver = stage.spawn("receiver", receive, {n: side for n, (_, side) in sides.items()}, size, count, outbox)
        receiver.wait(25)
        sender.wait(20)
        if not inbox.poll():
            raise PeerGone("the receiver ended without figures")
        figures, wrong = inbox.recv()
    total = ROUNDS * len(figures) * count
    stage.check(wrong == 0, f"{total} messages arrived, each with its number, its length and all of its bytes")
    return dict(figures)


@contextmanager
def opened(name: str, size: int, depth: int) -> Iterator[tuple[Side, Side]]:
    link_type = load(name).LINK
    if name in SHARED and link_type is not None:
        with link_type.open(message_bytes=size, depth=depth) as link:
            yield lambda: link.take("a").send, lambda: link.take("b").recv_into
        return
    # Pipe and socket are driven by their system calls alone, so that nothing of ours slows them down.
    reader, writer = os.pipe() if name == "pipe" else (end.detach() for end in socket.socketpair())
    with suppress(OSError):  # a socket knows no such thing, and a user gets no more than fs.pipe-max-size
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, max(size, 65536))
    put, get = partial(whole, partial(os.write, writer)), partial(whole, lambda left: os.readv(reader, [left]))
    yield lambda: put, lambda: get
    os.close(reader)
    os.close(writer)


def whole(call: Callable[[memoryview], int], message: bytearray) -> int:
    """Until all of it has passed: a stream may take or give a part of it only."""
    left = memoryview(message)
    while left:
        left = left[call(left) :]
    return len(message)


def send(takes: list[Side], size: int, count: int, receiver: Connection) -> None:
    os.sched_setaffinity(0, SENDERS_CPU)
    message = bytearray(size)
    _core.message_fill(message)
    puts = [take() for take in takes]
    for _ in range(ROUNDS):
        for put in puts:
            receiver.recv()  # it is ready, and its clock runs
            for sequence in range(count):
                _core.message_stamp(message, sequence)
                put(message)


def receive(takes: dict[str, Side], size: int, count: int, sender: Connection) -> None:
    os.sched_setaffinity(0, RECEIVERS_CPU)
    message = bytearray(size)
    gets = {name: take() for name, take in takes.items()}
    figures: Figures = {name: [] for name in takes}
    wrong = 0
    for _ in range(ROUNDS):
        for name, get in gets.items():
            started_ns = time.monotonic_ns()
            sender.send("go")
            wrong += sum(get(message) != size or not _core.message_check(message, n) for n in range(count))
            figures[name].append((time.monotonic_ns() - started_ns) / count)
    sender.send((figures, wrong))


# --- judge -----------------------------------------------------------------------------------------------------------
def show(stage: Stage, figures: Figures, size: int) -> None:
    stage.say(f"{'medians of the rounds':<30}{'us a message':>14}{'MB/s':>8}{'slowest : fastest round':>26}")
    for name, per_message_ns in sorted(figures.items(), key=lambda rival: median(rival[1])):
        middle_ns, spread = median(per_message_ns), max(per_message_ns) / min(per_message_ns)
        label = KERNEL.get(name) or f"shared memory {SHARED[name]}"
        stage.say(f"{label:<30}{middle_ns / 1e3:>14.2f}{size * 1e3 / middle_ns:>8.0f}{spread:>26.1f}")


def judge(figures: Figures, name: str) -> str:
    """Whether this kind of shared memory beat the kernel's best round by round: derived, whatever comes out."""
    rounds = zip(figures[name], *(figures[rival] for rival in KERNEL), strict=True)
    ratios = [min(theirs) / ours for ours, *theirs in rounds]
    ahead = sum(ratio > 1 for ratio in ratios)
    answer = "yes" if ahead >= ROUNDS - 1 else "no" if ahead <= 1 else "undecided"
    return f"{SHARED[name]} {answer} ({median(ratios):.1f}x)"


if __name__ == "__main__":
    sys.exit(main())

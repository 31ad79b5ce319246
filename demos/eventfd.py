"""eventfd: a 64-bit counter behind a file descriptor; adding wakes, reading takes all of it or one.

    python demos/eventfd.py        (or: ipclab demo eventfd)

Look at: three additions that come out as one sum; the same counter as a semaphore, one by one; a process that sleeps on
two of them in one poll(2); and the writer that blocks when the counter is full.
man: eventfd(2), poll(2)
"""

from __future__ import annotations

import os
import select
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab.processes import Stage, say

FAMILY = "synchronisation"
NEEDS = ("eventfd",)
BETTER_WITH = ()

FULL = 2**64 - 2  # the largest value the counter holds
ADDED = (3, 4, 5)


def adder(fd: int, values: tuple[int, ...]) -> None:
    for value in values:
        os.eventfd_write(fd, value)
        say(f"added {value}: write(2) has returned")


def counter(stage: Stage) -> None:
    stage.scene("A counter: three additions, one read")
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    stage.spawn("adder", adder, fd, ADDED)
    stage.release()
    stage.wait(20)
    total = os.eventfd_read(fd)
    stage.say(f"one read(2) returned {total}")
    stage.check(total == sum(ADDED), f"the additions became one sum: {' + '.join(map(str, ADDED))} = {total}")
    stage.check(is_empty(fd), "the read took all: the next one is EAGAIN")
    os.close(fd)


def is_empty(fd: int) -> bool:
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return True
    return False


def semaphore(stage: Stage) -> None:
    stage.scene("EFD_SEMAPHORE: the same counter, taken one by one")
    fd = os.eventfd(0, os.EFD_SEMAPHORE)
    ours, theirs = Pipe(duplex=False)
    takers = [stage.spawn(f"taker-{n}", take_one, n, fd, theirs) for n in range(3)]
    stage.release()
    asleep = [stage.asleep_in(taker, syscall="read") for taker in takers]
    stage.check(all(asleep), "the counter is 0: all three sleep in read(2)")
    os.eventfd_write(fd, 2)
    winners = {stage.hear(ours), stage.hear(ours)}
    (loser,) = {0, 1, 2} - winners
    stage.check(stage.asleep_in(takers[loser], syscall="read"), f"added 2: two went on, taker-{loser} still sleeps")
    os.eventfd_write(fd, 1)
    stage.check(stage.hear(ours) == loser, f"added 1: taker-{loser} went on as well")
    os.close(fd)


def take_one(number: int, fd: int, notes: Connection) -> None:
    say(f"read(2) returned {os.eventfd_read(fd)}")
    notes.send(number)


def poller(doors: dict[str, int], notes: Connection) -> None:
    poll = select.poll()
    for fd in doors.values():
        poll.register(fd, select.POLLIN)
    names = {fd: name for name, fd in doors.items()}
    for _ in doors:
        for fd, _events in poll.poll():
            say(f"poll(2) returned: {names[fd]!r} holds {os.eventfd_read(fd)}")
            notes.send(names[fd])


def pollable(stage: Stage) -> None:
    stage.scene("It is a file descriptor: one process sleeps on two of them")
    doors = {"work": os.eventfd(0), "stop": os.eventfd(0)}
    ours, theirs = Pipe(duplex=False)
    waiter = stage.spawn("poller", poller, doors, theirs)
    stage.release()
    woken = []
    for name in ("work", "stop"):
        stage.asleep_in(waiter, syscall="poll")
        os.eventfd_write(doors[name], 1)
        woken.append(stage.hear(ours))
    stage.check(woken == ["work", "stop"], f"the one that was written woke it each time: {woken}")
    stage.wait(20)
    for fd in doors.values():
        os.close(fd)


def full(stage: Stage) -> None:
    stage.scene("A full counter blocks its writer")
    fd = os.eventfd(0)
    os.eventfd_write(fd, FULL)
    late = stage.spawn("adder", adder, fd, (1,))
    stage.release()
    stage.check(stage.asleep_in(late, syscall="write"), "at 2**64 - 2 there is no room for 1: it sleeps in write(2)")
    value = os.eventfd_read(fd)
    ending = late.wait(20)
    stage.check(value == FULL and ending.exit_code == 0, f"the read of {value} made room and let it go on")
    os.close(fd)


def main() -> int:
    with Stage("eventfd", "How does one number wake a process that sleeps?") as stage:
        counter(stage)
        semaphore(stage)
        pollable(stage)
        full(stage)
        stage.verdict("an eventfd sums what is added, hands it out whole or one by one, and sleeps beside any other fd")
    return stage.exit_code


if __name__ == "__main__":
    sys.exit(main())

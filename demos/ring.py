"""ring: messages through shared memory, where the kernel is asked for one thing only: to sleep.

    python demos/ring.py        (or: ipclab demo ring)

Look at: how many messages crossed and how often anybody slept; at the producer that sleeps because the ring is full,
and wakes because the consumer has taken something; and at what put and get say when the process on the other side is
killed. How it is made: the first page of ipclab/core/ring.h.
man: memfd_create(2), mmap(2), futex(2)
"""

from __future__ import annotations

import os
import signal
import sys

from ipclab import Ring
from ipclab.errors import PeerGone
from ipclab.processes import Process, Stage, say

FAMILY = "shared memory"
NEEDS = ("ring",)
BETTER_WITH = ()

MESSAGES = 20_000
CAPACITY = 4096
PART = bytes(1000)  # a few of these fill it
TAKEN = 3  # messages at a time


def main() -> int:
    with Stage("ring", "How do two processes pass messages without a system call for each?") as stage:
        messages_cross(stage)
        full_ring_puts_its_producer_to_sleep(stage)
        dead_producer_is_noticed(stage)
        stage.verdict("the kernel is asked only to sleep and to wake; a dead peer is an error, not a hang")
    return stage.exit_code


def message(number: int) -> bytes:
    return bytes([number % 251]) * (number % 300)


# --- 1: messages -----------------------------------------------------------------------------------------------------
def messages_cross(stage: Stage) -> None:
    stage.scene(f"{MESSAGES} messages of 0 to 299 bytes through a ring of {CAPACITY} bytes")
    with Ring(CAPACITY) as ring:
        consumer = stage.spawn("consumer", take_and_compare, ring)
        producer = stage.spawn("producer", put_all, ring)
        stage.release()
        stage.check(producer.wait(20).exit_code == 0, "producer has put them all")
        stage.check(consumer.wait(20).exit_code == 0, "consumer took them in order, each as long as it was put")


def put_all(ring: Ring) -> None:
    for number in range(MESSAGES):
        ring.put(message(number), timeout_s=20)
    did = ring.statistics()
    say(f"put {did['put_count']}, slept {did['put_sleep_count']}, woke consumer {did['consumer_wake_count']} times")


def take_and_compare(ring: Ring) -> int:
    wrong = sum(ring.get(timeout_s=20) != message(number) for number in range(MESSAGES))
    did = ring.statistics()
    say(f"got {did['get_count']}, slept {did['get_sleep_count']}, woke producer {did['producer_wake_count']} times")
    return 1 if wrong else 0


# --- 2: full, and then nobody left to empty it -----------------------------------------------------------------------
def full_ring_puts_its_producer_to_sleep(stage: Stage) -> None:
    stage.scene("A consumer that takes nothing until it is told")
    gate, key = os.pipe()
    with Ring(CAPACITY) as ring:
        consumer = stage.spawn("consumer", take_when_told, ring, gate, killable=True)
        stage.check(stage.asleep_in(consumer, syscall="read"), "consumer waits for our word, in read(2)")
        producer = stage.spawn("producer", put_for_ever, ring)
        expect_full(stage, ring, producer)
        os.write(key, b"!")
        stage.check(stage.asleep_in(consumer, syscall="read"), f"consumer has taken {TAKEN} messages and waits again")
        expect_full(stage, ring, producer)

        stage.scene("The consumer is killed while the producer sleeps")
        consumer.kill()
        stage.check(consumer.wait(20).signal == signal.SIGKILL, "consumer is gone by SIGKILL: it could not say goodbye")
        stage.check(producer.wait(20).exit_code == 0, "producer was not left asleep: its put raised PeerGone")
    os.close(gate)
    os.close(key)


def expect_full(stage: Stage, ring: Ring, producer: Process) -> None:
    stage.check(stage.asleep_in(producer, syscall="futex"), "producer sleeps in futex(2)")
    stage.look(producer)
    used, room = (ring.statistics()[count] for count in ("used_bytes", "room_bytes"))
    stage.check(room - used < len(PART) + 8, f"{used} of {room} bytes are in use: no room for {len(PART)} more")


def take_when_told(ring: Ring, gate: int) -> None:
    ring.claim_consumer()
    while os.read(gate, 1):
        for _ in range(TAKEN):
            ring.get(timeout_s=20)


def put_for_ever(ring: Ring) -> int:
    try:
        while True:
            ring.put(PART, timeout_s=20)
    except PeerGone as error:
        say(f"put: {error}")
    return 0


# --- 3: the last words -----------------------------------------------------------------------------------------------
def dead_producer_is_noticed(stage: Stage) -> None:
    stage.scene("A producer puts two messages and is killed; the consumer wants three")
    with Ring(CAPACITY) as ring:
        producer = stage.spawn("producer", put_two_and_die, ring, killable=True)
        stage.check(producer.wait(20).signal == signal.SIGKILL, "producer is gone by SIGKILL")
        consumer = stage.spawn("consumer", take_three, ring)
        stage.check(consumer.wait(20).exit_code == 0, "what it had put was delivered first, then get raised PeerGone")


def put_two_and_die(ring: Ring) -> None:
    ring.put(b"first")
    ring.put(b"second")
    os.kill(os.getpid(), signal.SIGKILL)


def take_three(ring: Ring) -> int:
    taken = []
    try:
        for _ in range(3):
            taken.append(ring.get(timeout_s=20))
    except PeerGone as error:
        say(f"got {taken}, then: {error}")
        return 0 if taken == [b"first", b"second"] else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())

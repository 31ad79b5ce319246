"""The loops that the python driver measures. Each does what core/loops.c does under the same name, and no more.

    one way         sender: stamp, send                          receiver: receive, verify
    ping-pong       ping: stamp, send, receive, verify           pong: receive, verify, stamp, send
    on a schedule   sender: wait until it is due, stamp, send    receiver: receive, verify, record since it was due

They write what they did into a Log, also when an exception ends them; an exception may come from anywhere, because the
timer raises one. The loop's variable then tells how far it was, so that counting costs nothing.

Receiving. An End fills a buffer of the loop's: `recv_into`. A library that can only hand out objects (pickles, samples
in shared memory) has `recv` in its place (peers.py), and what it handed out is verified where it is: it is not made to
copy once more.
"""

from __future__ import annotations

import time
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from ipclab import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclab.bench.lane import Turn
    from ipclab.mechanisms.base import Bell, End

#: How long before a message is due the scheduled sender stops sleeping: longer than Python's sleep is late.
SPIN_NS = 200_000


class Log:
    """What a loop did."""

    __slots__ = ("bad_sequence", "duration_ns", "first", "histogram", "messages")

    def __init__(self, first: int) -> None:
        self.first = first
        self.messages = 0
        self.duration_ns = 0
        self.bad_sequence = -1
        self.histogram = _core.Histogram()


def message_of(size: int) -> bytearray:
    """A message that can be stamped."""
    message = bytearray(size)
    _core.message_fill(message)
    return message


def object_checker(take: Callable[[], Any], size: int) -> Callable[[int], bool]:
    """Receives an object and says whether it is the message of that number."""
    check = _core.message_check

    def got(sequence: int) -> bool:
        message = take()
        return len(message) == size and check(message, sequence)

    return got


# --- one way ----------------------------------------------------------------------------------------------------------


def send(end: End, size: int, first: int, count: int, log: Log) -> None:
    """Stamp and send `count` messages."""
    put, stamp, message = end.send, _core.message_stamp, message_of(size)
    sequence = first
    begin_ns = monotonic_ns()
    try:
        for sequence in range(first, first + count):
            stamp(message, sequence)
            put(message)
        sequence += 1
    finally:
        log.duration_ns = monotonic_ns() - begin_ns
        log.messages = sequence - first


def receive(end: End, size: int, first: int, count: int, log: Log) -> None:
    """Receive and verify; the clock starts when the first message has been verified."""
    one_way = _receive_objects if hasattr(end, "recv") else _receive_into
    one_way(end, size, first, 1, log)
    if log.messages == 1 and count > 1:
        one_way(end, size, first + 1, count - 1, log)


def _receive_into(end: End, size: int, first: int, count: int, log: Log) -> None:
    take, check, buffer = end.recv_into, _core.message_check, bytearray(size)
    sequence = first
    begin_ns = monotonic_ns()
    try:
        for sequence in range(first, first + count):
            if take(buffer) != size or not check(buffer, sequence):
                log.bad_sequence = sequence
                return
        sequence += 1
    finally:
        log.duration_ns = monotonic_ns() - begin_ns
        log.messages = sequence - log.first


def _receive_objects(end: Any, size: int, first: int, count: int, log: Log) -> None:
    take, check = end.recv, _core.message_check
    sequence = first
    begin_ns = monotonic_ns()
    try:
        for sequence in range(first, first + count):
            message = take()
            if len(message) != size or not check(message, sequence):
                log.bad_sequence = sequence
                return
        sequence += 1
    finally:
        log.duration_ns = monotonic_ns() - begin_ns
        log.messages = sequence - log.first


# --- one way over what drops messages: never more under way than there is room for -----------------------------------


def send_in_windows(end: End, size: int, first: int, count: int, log: Log, window: int) -> None:
    """As `send`; waits for an answer to each half window but the last two sent."""
    put, take, stamp = end.send, end.recv_into, _core.message_stamp
    message, answer, half = message_of(size), bytearray(size), max(1, window // 2)
    answers = 0
    sequence = first
    begin_ns = monotonic_ns()
    try:
        for sequence in range(first, first + count):
            sent = sequence - first
            if sent >= 2 * half and not sent % half:
                take(answer)
                answers += 1
            stamp(message, sequence)
            put(message)
        for _ in range(count // half - answers):
            take(answer)
        sequence += 1
    finally:
        log.duration_ns = monotonic_ns() - begin_ns
        log.messages = sequence - first


def receive_in_windows(end: End, size: int, first: int, count: int, log: Log, window: int) -> None:
    """As `receive`; answers each half window."""
    put, take, check = end.send, end.recv_into, _core.message_check
    buffer, answer, half = bytearray(size), message_of(size), max(1, window // 2)
    sequence = first
    begin_ns = 0
    try:
        for sequence in range(first, first + count):
            if take(buffer) != size or not check(buffer, sequence):
                log.bad_sequence = sequence
                return
            begin_ns = begin_ns or monotonic_ns()
            if not (sequence - first + 1) % half:
                put(answer)
        sequence += 1
    finally:
        log.duration_ns = monotonic_ns() - begin_ns if begin_ns else 0
        log.messages = sequence - first


# --- there and back ---------------------------------------------------------------------------------------------------


def ping(end: End, size: int, first: int, count: int, log: Log) -> None:
    """Send, wait for the reply, verify it; each round trip is recorded."""
    if hasattr(end, "recv"):
        _ping_objects(end, size, first, count, log)
        return
    put, take, stamp, check = end.send, end.recv_into, _core.message_stamp, _core.message_check
    message, buffer, record, now = message_of(size), bytearray(size), log.histogram.record, monotonic_ns
    sequence = first
    began_ns = last_ns = now()
    try:
        for sequence in range(first, first + count):
            stamp(message, sequence)
            put(message)
            if take(buffer) != size or not check(buffer, sequence):
                log.bad_sequence = sequence
                return
            at_ns = now()
            record(at_ns - last_ns)
            last_ns = at_ns
        sequence += 1
    finally:
        log.duration_ns = now() - began_ns
        log.messages = sequence - first


def _ping_objects(end: Any, size: int, first: int, count: int, log: Log) -> None:
    put, got, stamp = end.send, object_checker(end.recv, size), _core.message_stamp
    message, record, now = message_of(size), log.histogram.record, monotonic_ns
    sequence = first
    began_ns = last_ns = now()
    try:
        for sequence in range(first, first + count):
            stamp(message, sequence)
            put(message)
            if not got(sequence):
                log.bad_sequence = sequence
                return
            at_ns = now()
            record(at_ns - last_ns)
            last_ns = at_ns
        sequence += 1
    finally:
        log.duration_ns = now() - began_ns
        log.messages = sequence - first


def pong(end: End, size: int, first: int, count: int, log: Log) -> None:
    """Wait, verify, reply."""
    if hasattr(end, "recv"):
        _pong_objects(end, size, first, count, log)
        return
    put, take, stamp, check = end.send, end.recv_into, _core.message_stamp, _core.message_check
    message, buffer = message_of(size), bytearray(size)
    sequence = first
    began_ns = monotonic_ns()
    try:
        for sequence in range(first, first + count):
            if take(buffer) != size or not check(buffer, sequence):
                log.bad_sequence = sequence
                return
            stamp(message, sequence)
            put(message)
        sequence += 1
    finally:
        log.duration_ns = monotonic_ns() - began_ns
        log.messages = sequence - first


def _pong_objects(end: Any, size: int, first: int, count: int, log: Log) -> None:
    put, got, stamp, message = end.send, object_checker(end.recv, size), _core.message_stamp, message_of(size)
    sequence = first
    began_ns = monotonic_ns()
    try:
        for sequence in range(first, first + count):
            if not got(sequence):
                log.bad_sequence = sequence
                return
            stamp(message, sequence)
            put(message)
        sequence += 1
    finally:
        log.duration_ns = monotonic_ns() - began_ns
        log.messages = sequence - first


def ring_first(bell: Bell, count: int, log: Log) -> None:
    """Ring, and wait to be rung; each round trip is recorded."""
    ring, wait, record, now = bell.ring, bell.wait, log.histogram.record, monotonic_ns
    done = 0
    began_ns = last_ns = now()
    try:
        for done in range(count):  # noqa: B007 - it tells how far the loop was
            ring()
            wait()
            at_ns = now()
            record(at_ns - last_ns)
            last_ns = at_ns
        done += 1
    finally:
        log.duration_ns = now() - began_ns
        log.messages = done


def ring_back(bell: Bell, count: int, log: Log) -> None:
    """Wait to be rung, and ring."""
    ring, wait = bell.ring, bell.wait
    done = 0
    began_ns = monotonic_ns()
    try:
        for done in range(count):  # noqa: B007 - it tells how far the loop was
            wait()
            ring()
        done += 1
    finally:
        log.duration_ns = monotonic_ns() - began_ns
        log.messages = done


# --- on a schedule ----------------------------------------------------------------------------------------------------


def send_on_schedule(end: End, turn: Turn, log: Log) -> None:
    """Send each message when it is due; what is late goes at once, the schedule does not wait."""
    put, stamp, now, sleep = end.send, _core.message_stamp, monotonic_ns, time.sleep
    message = message_of(turn.size_bytes)
    spin_ns = 0 if turn.together else SPIN_NS
    first, interval_ns = turn.first, turn.interval_ns
    due_ns, sequence = turn.start_ns, first
    began_ns = now()
    try:
        for sequence in range(first, first + turn.count):
            while (left_ns := due_ns - now()) > 0:
                if left_ns > spin_ns:
                    sleep((left_ns - spin_ns) / 1e9)
            stamp(message, sequence)
            put(message)
            due_ns += interval_ns
        sequence += 1
    finally:
        log.duration_ns = now() - began_ns
        log.messages = sequence - first


def receive_on_schedule(end: End, turn: Turn, log: Log) -> None:
    """Receive and verify; record how long ago each message was due."""
    got = object_checker(end.recv, turn.size_bytes) if hasattr(end, "recv") else _into_checker(end, turn.size_bytes)
    record, now, first, interval_ns = log.histogram.record, monotonic_ns, turn.first, turn.interval_ns
    due_ns, sequence = turn.start_ns, first
    began_ns = now()
    try:
        for sequence in range(first, first + turn.count):
            if not got(sequence):
                log.bad_sequence = sequence
                return
            record(max(0, now() - due_ns))
            due_ns += interval_ns
        sequence += 1
    finally:
        log.duration_ns = now() - began_ns
        log.messages = sequence - first


def _into_checker(end: End, size: int) -> Callable[[int], bool]:
    take, check, buffer = end.recv_into, _core.message_check, bytearray(size)
    return lambda sequence: take(buffer) == size and check(buffer, sequence)

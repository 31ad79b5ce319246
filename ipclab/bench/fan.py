"""Several producers and several consumers of one kernel object, through its Python interface.

    producer 0 --\\                       /--> consumer 0
    producer 1 ---+--> queue, pipe, ... -+---> consumer 1
    producer 2 --/                       \\

The ends are taken before the fork, and all producers inherit a's, all consumers b's (fan_lane.py). So this is for
objects whose ends several processes may use, each message whole: SHARED_ENDS.

Every message says who sent it: the producer's number is in the upper half of its sequence number. A lone consumer meets
each producer's messages without a gap; one of several meets them in order, and what is missing is missed in the end,
because together they must have received as many as were sent. Each consumer takes a share fixed beforehand.
"""

from __future__ import annotations

import struct
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from ipclab import _core
from ipclab.bench import loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclab.bench.lane import Turn
    from ipclab.mechanisms.base import End
    from ipclab.records import Case

#: Messages each producer may send: the rest of the sequence number is its own.
NUMBER_BITS = 40
_NUMBER = (1 << NUMBER_BITS) - 1
#: A message has to have room for the sequence number.
LEAST_BYTES = 8
_SEQUENCE = struct.Struct("<Q")


#: Mechanisms whose one object several processes may put into and take out of, each message whole; and up to which size:
#: queues and sockets always, pipes up to PIPE_BUF (pipe(7)).
SHARED_ENDS: dict[str, int | None] = {
    "pipe": 4096,
    "posix-mq": None,
    "sysv-mq": None,
    "unix-datagram": None,
    "unix-seqpacket": None,
    "mp-queue": None,
    "mp-simplequeue": None,
    "faster-fifo": None,
}
#: Why the others are not among them, where it is not that each end belongs to one process.
_WHY_NOT = {
    "ring": "the ring is one to one: one producer, one consumer; --pairs runs several rings",
    "fifo": "its ends are opened by both sides at once, so they cannot be inherited: a pipe is the same without a name",
}


def obstacle(case: Case) -> str | None:
    """Why this case cannot be a fan; None: it can, or it is none."""
    if (case.producers, case.consumers) == (1, 1):
        return None
    if case.mechanism not in SHARED_ENDS:
        return _WHY_NOT.get(case.mechanism, "its ends belong to one process each: --pairs runs several of it")
    if case.pattern != "throughput":
        return f"{case.pattern} is between two processes: --producers and --consumers are of --pattern throughput"
    largest = SHARED_ENDS[case.mechanism]
    if largest is not None and case.size_bytes > largest:
        return f"several writers mix messages over {largest} bytes (PIPE_BUF, pipe(7)): a smaller --size"
    if case.driver != "python":
        return "fans are of the python driver: native ends belong to one process each"
    if case.size_bytes < LEAST_BYTES:
        return f"in a fan a message has {LEAST_BYTES} bytes or more, to say who sent it"
    return None


class FanLoops:
    """The loops of one worker."""

    def __init__(self, case: Case, worker: int) -> None:
        self._case = case
        self._worker = worker
        #: Of each producer: the lowest number that may come now.
        self._due = [0] * case.producers

    def run(self, end: End, turn: Turn, log: loops.Log) -> None:
        """Send, or receive and verify."""
        if turn.side == "a":
            first = log.first = (self._worker << NUMBER_BITS) + turn.first
            loops.send(end, turn.size_bytes, first, turn.count, log)
        else:
            self._receive(end, turn, log)

    def _receive(self, end: End, turn: Turn, log: loops.Log) -> None:
        got: Callable[[], Any] = getattr(end, "recv", None) or buffer_fetcher(end, turn.size_bytes)
        due, alone, size, done = self._due, self._case.consumers == 1, turn.size_bytes, 0
        check, read, now = _core.message_check, _SEQUENCE.unpack_from, monotonic_ns
        begin_ns = 0
        try:
            while done < turn.count:
                message = got()
                sequence = read(message)[0] if len(message) == size else -1
                producer, number = sequence >> NUMBER_BITS, sequence & _NUMBER
                if not 0 <= producer < len(due) or not check(message, sequence):
                    log.bad_sequence = turn.first + done
                    return
                if number < due[producer] or (alone and number > due[producer]):
                    log.bad_sequence = due[producer]
                    return
                due[producer] = number + 1
                done += 1
                begin_ns = begin_ns or now()
        finally:
            log.duration_ns = now() - begin_ns if begin_ns else 0
            log.messages = done


def buffer_fetcher(end: End, size: int) -> Callable[[], Any]:
    """Receives into a buffer of its own; what came, or something of another length."""
    take, buffer = end.recv_into, bytearray(size)
    return lambda: buffer if take(buffer) == size else b""

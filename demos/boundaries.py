"""boundaries: the same four writes through a byte stream and through message queues, side by side.

    python demos/boundaries.py        (or: ipclab demo boundaries)

Look at: how many reads it takes to get four writes out again, and what becomes of a write of no bytes. Then at a reader
whose buffer is too small: from a stream it gets the rest next time, from a datagram socket never. And at the cure for
streams: say how long a message is before you send it.
man: pipe(7), mq_overview(7), unix(7), MSG_TRUNC in recv(2)
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NamedTuple

import posix_ipc

from ipclab.processes import Stage, registry, say

FAMILY = "comparison"
NEEDS = ("pipe", "unix-datagram")
BETTER_WITH = ("posix-mq",)

WRITES = [b"one", b"", b"three", b"fourteen"]
LARGE, SMALL = 64, 4  # bytes offered to each read


class Channel(NamedTuple):
    name: str
    write: Callable[[bytes], object]
    read: Callable[[int], bytes]  # at most so many bytes; BlockingIOError or BusyError when there is nothing


def main() -> int:
    with Stage("boundaries", "Four writes go in. Do four reads get them out again?") as stage:
        with open_channels() as (stream, datagram, *queues):
            stage.release()
            same_writes(stage, [stream, datagram, *queues])
            small_buffer(stage, [stream, datagram])
            framing(stage, stream)
        stage.verdict("a stream keeps bytes in order, a queue keeps messages; on a stream their length must travel too")
    return stage.exit_code


@contextmanager
def open_channels() -> Iterator[list[Channel]]:
    with ExitStack() as closing:
        incoming, outgoing = os.pipe()
        closing.callback(os.close, incoming)
        closing.callback(os.close, outgoing)
        os.set_blocking(incoming, False)
        near, far = (closing.enter_context(end) for end in socket.socketpair(type=socket.SOCK_DGRAM))
        far.setblocking(False)
        found = [Channel("pipe", partial(os.write, outgoing), partial(os.read, incoming))]
        found.append(Channel("unix-datagram", near.send, far.recv))
        name = registry.new_name("posix-mq", "boundaries")
        closing.callback(registry.forget, "posix-mq", name)
        with suppress(posix_ipc.Error, OSError):  # without a queue the socket alone has to stand for messages
            queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, 0o600, len(WRITES), LARGE)
            closing.callback(queue.close)
            closing.callback(queue.unlink)
            found.append(Channel("posix-mq", queue.send, lambda _size: bytes(queue.receive(timeout=0)[0])))
        yield found


# --- 1: the same writes ----------------------------------------------------------------------------------------------
def same_writes(stage: Stage, channels: Sequence[Channel]) -> None:
    stage.scene(f"{len(WRITES)} writes into each: {WRITES}")
    got = pass_through(stage, channels, LARGE)
    stream, *others = channels
    stage.check(got[stream.name] == [b"".join(WRITES)], "pipe: one read gave it all, nothing marks where a write ended")
    for queue in others:
        stage.check(got[queue.name] == WRITES, f"{queue.name}: each read gave one write, the one of no bytes too")


def pass_through(stage: Stage, channels: Sequence[Channel], size: int) -> dict[str, list[bytes]]:
    """One process writes everything and ends, then another reads; what each read gave."""
    stage.check(stage.spawn("writer", write_all, channels).wait(20).exit_code == 0, "writer wrote everything and ended")
    inbox, outbox = Pipe(duplex=False)
    with inbox, outbox:
        stage.spawn("reader", read_all, channels, size, outbox).wait(20)
        return defaultdict(list, inbox.recv() if inbox.poll() else {})


def write_all(channels: Sequence[Channel]) -> None:
    for channel in channels:
        for data in WRITES:
            channel.write(data)


def read_all(channels: Sequence[Channel], size: int, outbox: Connection) -> None:
    got = {channel.name: drain(channel, size) for channel in channels}
    for name, reads in got.items():
        say(f"{name:<14} reads of up to {size} bytes: {reads}")
    outbox.send(got)


def drain(channel: Channel, size: int) -> list[bytes]:
    reads = []
    while True:
        try:
            reads.append(channel.read(size))
        except (BlockingIOError, posix_ipc.BusyError):
            return reads


# --- 2: a small buffer -----------------------------------------------------------------------------------------------
def small_buffer(stage: Stage, channels: Sequence[Channel]) -> None:
    stage.scene(f"The same writes, but the reader's buffer has {SMALL} bytes")
    got = pass_through(stage, channels, SMALL)
    stream, datagram = channels
    stage.check(b"".join(got[stream.name]) == b"".join(WRITES), "pipe: what did not fit came with the next read")
    cut = [data[:SMALL] for data in WRITES]
    stage.check(got[datagram.name] == cut, "unix-datagram: what did not fit is lost, and recv(2) did not say so")


# --- 3: the cure -----------------------------------------------------------------------------------------------------
def framing(stage: Stage, stream: Channel) -> None:
    stage.scene("Boundaries on a stream: four bytes of length in front of each message")
    stage.spawn("writer", write_framed, stream).wait(20)
    reader = stage.spawn("reader", read_framed, stream).wait(20)
    stage.check(reader.exit_code == 0, f"{len(WRITES)} messages came out as they went in, the empty one too")


def write_framed(stream: Channel) -> None:
    for data in WRITES:
        stream.write(struct.pack("!I", len(data)) + data)


def read_framed(stream: Channel) -> int:
    messages = []
    for _ in WRITES:
        (length,) = struct.unpack("!I", stream.read(4))
        messages.append(stream.read(length))  # all of it is there; else one would read until it is
    say(f"read {messages}")
    return 0 if messages == WRITES else 1


if __name__ == "__main__":
    sys.exit(main())

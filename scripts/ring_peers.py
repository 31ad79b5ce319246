"""ipclab.Ring against its peers, one way, in one interleaved run.

    pip install '.[peers]'
    python scripts/ring_peers.py [--rounds 9] [--seconds 0.3]

Per sample: two fresh processes, pinned to two CPUs; the sender stamps every message, the receiver checks sequence,
length and the sum over every byte with the same C call for every peer, and stops the clock when it has the last one.
Samples go A B C D A B C D ...; the figure is the median over the rounds of the ratio ring / peer within a round.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import shared_memory
from typing import Any

from ipclab import Ring, _core

#: Room in the ring: more than a private cache holds. Below that the consumer fetches every line out of the producer's
#: cache, which takes twice as long as out of the shared one.
RING_BYTES = 1 << 21

Sender = Callable[[int], None]
Receiver = Callable[[int], None]


class RingPeer:
    """ipclab.Ring: put and get_into."""

    name = "ring"

    def __init__(self, size: int) -> None:
        self.size = size
        self.ring = Ring(RING_BYTES)

    def send(self, count: int) -> None:
        put, stamp = self.ring.put, _core.message_stamp
        message = bytearray(self.size)
        _core.message_fill(message)
        for sequence in range(count):
            stamp(message, sequence)
            put(message)

    def receive(self, count: int) -> None:
        get_into, check = self.ring.get_into, _core.message_check
        buffer = bytearray(self.size)
        for sequence in range(count):
            if get_into(buffer) != self.size or not check(buffer, sequence):
                raise SystemExit(f"{self.name}: message {sequence} is wrong")

    def close(self) -> None:
        self.ring.close()


class PipePeer:
    """os.pipe: os.write and os.read, 64 B fit PIPE_BUF, so one read is one message as long as all are alike."""

    name = "os.pipe"

    def __init__(self, size: int) -> None:
        self.size = size
        self.read_fd, self.write_fd = os.pipe()

    def send(self, count: int) -> None:
        write, stamp, fd, size = os.write, _core.message_stamp, self.write_fd, self.size
        message = bytearray(size)
        _core.message_fill(message)
        for sequence in range(count):
            stamp(message, sequence)
            if write(fd, message) != size:
                raise SystemExit("os.pipe: short write")

    def receive(self, count: int) -> None:
        read, check, fd, size = os.read, _core.message_check, self.read_fd, self.size
        for sequence in range(count):
            message = read(fd, size)
            if len(message) != size or not check(message, sequence):
                raise SystemExit(f"{self.name}: message {sequence} is wrong")

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


class FasterFifoPeer:
    """faster_fifo.Queue: put and get, one object each."""

    name = "faster_fifo"

    def __init__(self, size: int) -> None:
        from faster_fifo import Queue

        self.size = size
        self.queue: Any = Queue(max_size_bytes=1 << 20)

    def send(self, count: int) -> None:
        put, stamp = self.queue.put, _core.message_stamp
        message = bytearray(self.size)
        _core.message_fill(message)
        for sequence in range(count):
            stamp(message, sequence)
            put(bytes(message), timeout=60)

    def receive(self, count: int) -> None:
        get, check, size = self.queue.get, _core.message_check, self.size
        for sequence in range(count):
            message = get(timeout=60)
            if len(message) != size or not check(message, sequence):
                raise SystemExit(f"{self.name}: message {sequence} is wrong")

    def close(self) -> None:
        self.queue.close()


class ShmSemaphorePeer:
    """multiprocessing.shared_memory in slots, two posix_ipc semaphores: the textbook's bounded buffer."""

    name = "shm+sem 8 slots"
    slots = 8

    def __init__(self, size: int) -> None:
        import posix_ipc

        self.size = size
        self.memory = shared_memory.SharedMemory(create=True, size=self.slots * size)
        self.free = posix_ipc.Semaphore(None, posix_ipc.O_CREX, 0o600, self.slots)
        self.used = posix_ipc.Semaphore(None, posix_ipc.O_CREX, 0o600, 0)
        self.free.unlink()
        self.used.unlink()
        self.at = 0  # the next slot, in whichever process this is

    def send(self, count: int) -> None:
        wait, post, stamp = self.free.acquire, self.used.release, _core.message_stamp
        slots = [self.memory.buf[i * self.size : (i + 1) * self.size] for i in range(self.slots)]
        message = bytearray(self.size)
        _core.message_fill(message)
        for sequence in range(count):
            stamp(message, sequence)
            wait(60)
            slots[self.at][:] = message
            self.at = (self.at + 1) % self.slots
            post()

    def receive(self, count: int) -> None:
        wait, post, check = self.used.acquire, self.free.release, _core.message_check
        slots = [self.memory.buf[i * self.size : (i + 1) * self.size] for i in range(self.slots)]
        buffer = bytearray(self.size)
        for sequence in range(count):
            wait(60)
            buffer[:] = slots[self.at]
            self.at = (self.at + 1) % self.slots
            post()
            if not check(buffer, sequence):
                raise SystemExit(f"{self.name}: message {sequence} is wrong")

    def close(self) -> None:
        self.free.close()
        self.used.close()
        self.memory.close()
        self.memory.unlink()


class DeepShmSemaphorePeer(ShmSemaphorePeer):
    """The same with as much memory as the ring has."""

    name = "shm+sem, 2 MiB"
    slots = RING_BYTES // 65536


Peer = RingPeer | PipePeer | FasterFifoPeer | ShmSemaphorePeer


def in_child(cpu: int, work: Callable[[], None]) -> int:
    """Run `work` in a forked child pinned to one CPU (if this process may use it); its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _core.set_pdeathsig(signal.SIGKILL)
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[cpu % len(allowed)]})
        gc.disable()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end_all(pids: list[int]) -> bool:
    """Wait for all children; when one fails the others are killed. Whether all succeeded."""
    failed = False
    while pids:
        pid, status = os.wait()
        if pid not in pids:
            continue  # a helper process of multiprocessing
        pids.remove(pid)
        if status and not failed:
            failed = True
            for other in pids:
                os.kill(other, signal.SIGKILL)
    return not failed


def sample_ns(kind: type[Peer], size: int, count: int) -> int:
    """Nanoseconds the receiver needed for `count` messages, after as many warm-up messages as a tenth of them."""
    peer = kind(size)
    result_read, result_write = os.pipe()
    warm_up = max(10, count // 10)

    def receive() -> None:
        peer.receive(warm_up)
        begin_ns = time.monotonic_ns()
        peer.receive(count)
        os.write(result_write, str(time.monotonic_ns() - begin_ns).encode())

    def send() -> None:
        peer.send(warm_up)
        peer.send(count)

    pids = [in_child(1, receive), in_child(0, send)]
    os.close(result_write)
    succeeded = end_all(pids)
    answer = os.read(result_read, 100)
    os.close(result_read)
    peer.close()
    if not succeeded:
        raise SystemExit(f"{kind.name} failed")
    return int(answer)


def calibrate(kind: type[Peer], size: int, seconds: float) -> int:
    """How many messages take about `seconds`: double until a tenth of it is reached, then scale."""
    count = 1000
    while (taken_ns := sample_ns(kind, size, count)) < seconds * 1e8:
        count *= 2
    return max(1000, int(count * seconds * 1e9 / taken_ns))


def compare(size: int, kinds: list[type[Peer]], rounds: int, seconds: float) -> None:
    """Interleave the peers and print each one's median rate and the ratio of the first one to it."""
    counts = {kind: calibrate(kind, size, seconds) for kind in kinds}
    rates: dict[type[Peer], list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            rates[kind].append(counts[kind] / sample_ns(kind, size, counts[kind]) * 1e9)
    for kind in kinds:
        ratios = [first / other for first, other in zip(rates[kinds[0]], rates[kind], strict=True)]
        rate = statistics.median(rates[kind])
        print(
            f"{size:6} B  {kind.name:15} {rate / 1e6:8.3f} M msg/s {rate * size / 1e9:7.2f} GB/s   "
            f"ring / it: {statistics.median(ratios):6.2f}  (min {min(ratios):.2f}, max {max(ratios):.2f})"
        )


def main() -> None:
    """Both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    small: list[type[Peer]] = [RingPeer, PipePeer]
    try:
        import faster_fifo  # noqa: F401

        small.append(FasterFifoPeer)
    except ImportError:
        print("faster_fifo is not installed: pip install '.[peers]'")
    compare(64, small, options.rounds, options.seconds)
    compare(65536, [RingPeer, ShmSemaphorePeer, DeepShmSemaphorePeer], options.rounds, options.seconds)


if __name__ == "__main__":
    main()

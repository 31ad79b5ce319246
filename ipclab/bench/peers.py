"""Other libraries' channels between processes, as further mechanisms of the bench: what ipclab's are compared with.

    mp-pipe          multiprocessing.Pipe: a socket pair, send_bytes and recv_bytes_into
    mp-simplequeue   multiprocessing.SimpleQueue: a pipe with a lock at each end; pickles
    mp-queue         multiprocessing.Queue: the same behind a buffer and a thread that feeds the pipe; pickles
    faster-fifo      faster_fifo.Queue: a ring in shared memory under one lock; pickles
    iceoryx2         publish and subscribe without a copy in shared memory; the receiver polls

Each is used as its own manual does it, one message a call. The receiver verifies what it was handed with the same C
call as everywhere. A queue whose receiver gets an object hands it out by `recv`, so that it is not copied once more;
senders that pickle later than they return must be given an object of its own (`bytes`).

A link is two channels, one each way, made before the fork. Nobody here tells of a peer's death; the driver's timer
does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from abc import abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ipclab.errors import BufferTooSmall, PeerGone, Unavailable
from ipclab.mechanisms.base import End, Link, other
from ipclab.processes import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side

#: What a library's own wait is cut into where it cannot be interrupted by a signal.
SLICE_S = 0.1


class ObjectEnd(End):
    """An end that receives objects."""

    @abstractmethod
    def recv(self) -> Any:
        """The next message, an object with a length and a buffer; valid until the next call. Waits for ever."""

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """As End; without a time limit."""
        message = self.recv()
        with memoryview(buffer).cast("B") as view:
            if len(message) > len(view):
                raise BufferTooSmall(f"a message of {len(message)} bytes, a buffer of {len(view)} bytes")
            view[: len(message)] = message
            return len(message)


# --- multiprocessing --------------------------------------------------------------------------------------------------


class MpPipeEnd(End):
    """One Connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._put, self._get = connection.send_bytes, connection.recv_bytes_into

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        self._put(data)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        try:
            return int(self._get(buffer))
        except EOFError as err:
            raise PeerGone("mp-pipe: the other side has closed its end") from err

    def close(self) -> None:
        self._connection.close()


class MpPipeLink(Link):
    """multiprocessing.Pipe(), which goes both ways."""

    name = "mp-pipe"

    def __init__(self) -> None:
        from multiprocessing import Pipe

        self._ends: dict[Side, Any] = dict(zip(("a", "b"), Pipe(), strict=True))

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls()

    def take(self, side: Side) -> End:
        self._ends.pop(other(side)).close()
        return MpPipeEnd(self._ends.pop(side))

    def close(self) -> None:
        while self._ends:
            self._ends.popitem()[1].close()


class QueueEnd(ObjectEnd):
    """One queue to put into and one to get from."""

    def __init__(self, outgoing: Any, incoming: Any, close: Callable[[], None]) -> None:
        self._put, self.recv = outgoing.put, incoming.get  # type: ignore[method-assign]
        self._close = close

    def recv(self) -> Any:
        """The queue's own get stands in its place."""
        raise NotImplementedError

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        self._put(bytes(data))

    def close(self) -> None:
        self._close()


class SimpleQueueLink(Link):
    """Two multiprocessing.SimpleQueue."""

    name = "mp-simplequeue"

    def __init__(self) -> None:
        from multiprocessing import SimpleQueue

        self._queues: tuple[SimpleQueue[bytes], ...] = SimpleQueue(), SimpleQueue()

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls()

    def take(self, side: Side) -> End:
        to_b, to_a = self._queues
        return QueueEnd(*((to_b, to_a) if side == "a" else (to_a, to_b)), self.close)

    def close(self) -> None:
        for queue in self._queues:
            queue.close()


class MpQueueLink(Link):
    """Two multiprocessing.Queue(maxsize=depth)."""

    name = "mp-queue"

    def __init__(self, depth: int) -> None:
        from multiprocessing import Queue

        self.depth = depth
        self._queues: tuple[Queue[bytes], ...] = Queue(depth), Queue(depth)

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls(depth)

    def take(self, side: Side) -> End:
        to_b, to_a = self._queues
        return QueueEnd(*((to_b, to_a) if side == "a" else (to_a, to_b)), self.close)

    def close(self) -> None:
        """What is not sent yet is dropped: whoever closes has met the other side, or has failed."""
        for queue in self._queues:
            queue.cancel_join_thread()
            queue.close()
            # Whoever has only got, or only opened, it keeps the end that a process which puts would close.
            for end in (queue._reader, queue._writer):  # type: ignore[attr-defined, unused-ignore]
                with contextlib.suppress(OSError):
                    end.close()


# --- faster-fifo ------------------------------------------------------------------------------------------------------


class FasterFifoEnd(ObjectEnd):
    """Its waits are pthread_cond_timedwait in C++, which no signal ends: so they are cut into slices."""

    def __init__(self, outgoing: Any, incoming: Any) -> None:
        from queue import Empty, Full

        self._put, self._get, self._full, self._empty = outgoing.put, incoming.get, Full, Empty

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        message = bytes(data)
        while True:
            try:
                self._put(message, timeout=SLICE_S)
                return
            except self._full:
                continue

    def recv(self) -> Any:
        while True:
            try:
                return self._get(timeout=SLICE_S)
            except self._empty:
                continue

    def close(self) -> None:
        """The memory goes with the process."""


@contextlib.contextmanager
def _own_heap() -> Iterator[None]:
    """multiprocessing takes shared memory from one heap that it never gives back; inside this block from another one,
    which goes with what was taken from it."""
    from multiprocessing import heap

    wrapper: Any = heap.BufferWrapper
    before = wrapper._heap
    wrapper._heap = heap.Heap()
    try:
        yield
    finally:
        wrapper._heap = before


class FasterFifoLink(Link):
    """Two faster_fifo.Queue with room for `depth` messages and what pickling adds."""

    name = "faster-fifo"

    def __init__(self, message_bytes: int, depth: int) -> None:
        from faster_fifo import Queue

        self.depth = depth
        self.capacity_bytes = depth * (message_bytes + 64)
        with _own_heap():
            self._queues: tuple[Any, ...] = Queue(self.capacity_bytes), Queue(self.capacity_bytes)

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls(message_bytes, depth)

    def take(self, side: Side) -> End:
        to_b, to_a = self._queues
        return FasterFifoEnd(to_b, to_a) if side == "a" else FasterFifoEnd(to_a, to_b)

    def close(self) -> None:
        for queue in self._queues:
            queue.close()
        self._queues = ()


# --- iceoryx2 ---------------------------------------------------------------------------------------------------------


class Iceoryx2End(ObjectEnd):
    """A node with a publisher and a subscriber. The payload is written into, and verified in, shared memory.

    Publish and subscribe has no wait: the receiver polls, and so does a sender who finds the buffer full. From the
    SPINS-th look on each look gives the CPU away (sched_yield(2)): on one CPU nothing would go on otherwise.
    """

    SPINS = 100

    def __init__(self, link: Iceoryx2Link, side: Side) -> None:
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        size = link.message_bytes
        self._node = iceoryx2.NodeBuilder.new().config(link.config()).create(iceoryx2.ServiceType.Ipc)
        self._services = [self._service(iceoryx2, link, channel) for channel in ("to-b", "to-a")]
        out, into = self._services if side == "a" else self._services[::-1]
        # Discard: send() then says that nobody got it, instead of spinning where no signal handler runs.
        full = iceoryx2.BackpressureStrategy.DiscardData
        self._publisher = out.publisher_builder().initial_max_slice_len(size).backpressure_strategy(full).create()
        self._subscriber = into.subscriber_builder().buffer_size(link.depth).create()
        self._loan, self._receive = self._publisher.loan_slice_uninit, self._subscriber.receive
        self._bytes = ctypes.c_char * size
        self._sample: Any = None

    def _service(self, iceoryx2: Any, link: Iceoryx2Link, channel: str) -> Any:
        builder = self._node.service_builder(iceoryx2.ServiceName.new(channel))
        builder = builder.publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        builder = builder.subscriber_max_buffer_size(link.depth).enable_safe_overflow(False).history_size(0)
        return builder.max_publishers(1).max_subscribers(1).open_or_create()

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        source = self._bytes.from_buffer(data)
        size = ctypes.sizeof(source)
        looks = 0
        while True:
            sample = self._loan(size)
            ctypes.memmove(sample.payload_ptr, source, size)
            if sample.assume_init().send():
                return
            looks += 1
            if looks > self.SPINS:
                os.sched_yield()

    def recv(self) -> Any:
        if self._sample is not None:
            self._sample.delete()
        looks = 0
        while (sample := self._receive()) is None:
            looks += 1
            if looks > self.SPINS:
                os.sched_yield()
        self._sample = sample
        return sample.payload().as_memory_view()

    def close(self) -> None:
        for part in (self._sample, self._publisher, self._subscriber):
            if part is not None:
                part.delete()
        self._sample = self._publisher = self._subscriber = None
        self._loan = self._receive = None
        self._services.clear()
        self._node = None


class Iceoryx2Link(Link):
    """A folder of its own for both processes' nodes, and a prefix for what they make in /dev/shm."""

    name = "iceoryx2"

    def __init__(self, message_bytes: int, depth: int) -> None:
        self.message_bytes = message_bytes
        self.depth = depth
        self._opener_pid = os.getpid()
        self._folder: Path | None = registry.new_path("iceoryx2")
        self._prefix = registry.new_name("posix-shm", "iceoryx2")
        self._folder.mkdir(0o700)

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls(message_bytes, depth)

    def config(self) -> Any:
        """The library's defaults in our folder and under our names."""
        from iceoryx2 import FileName, Path, config

        made = config.default()
        made.global_cfg.root_path = Path.new(str(self._folder))
        made.global_cfg.prefix = FileName.new(f"{self._prefix[1:]}-")
        return made

    def take(self, side: Side) -> End:
        return Iceoryx2End(self, side)

    def close(self) -> None:
        """Remove everything both have made, also when one was killed."""
        if os.getpid() != self._opener_pid or self._folder is None:
            return
        for path in Path("/dev/shm").glob(f"{self._prefix[1:]}-*"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        registry.forget("path", str(self._folder))
        registry.forget("posix-shm", self._prefix)
        self._folder = None


# --- the table --------------------------------------------------------------------------------------------------------

PEERS: dict[str, type[Link]] = {
    kind.name: kind for kind in (MpPipeLink, SimpleQueueLink, MpQueueLink, FasterFifoLink, Iceoryx2Link)
}

#: What has to be installed: peer to module. All of them are in one extra.
_NEEDS = {"faster-fifo": "faster_fifo", "iceoryx2": "iceoryx2"}


def find(name: str) -> type[Link]:
    """A peer's Link. Raises Unavailable when its package is not installed."""
    module = _NEEDS.get(name)
    if module is not None and find_spec(module) is None:
        raise Unavailable(f"{name}: the package {module} is not installed", hint="pip install 'ipclab[peers]'")
    return PEERS[name]


def missing() -> tuple[str, ...]:
    """The peers whose packages are not installed."""
    return tuple(name for name, module in _NEEDS.items() if find_spec(module) is None)

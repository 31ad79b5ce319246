"""ipclab.Ring as its user meets it: every length, every way to be told no, every way to lose the other side."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipclab import Ring, _core
from ipclab.errors import (
    BufferTooSmall,
    IpclabError,
    MessageTooLarge,
    NoRoom,
    PeerGone,
    TimedOut,
    UsageError,
    WouldBlock,
)

DEADLOCK_S = 30.0  # only a hang lasts this long


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """A forked process that does `work` and exits; it is killed if it is still there at the end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _core.set_pdeathsig(signal.SIGKILL)
            work()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def succeeded(pid: int) -> bool:
    """Wait for a child and tell whether it exited with 0."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def asleep(pid: int) -> bool:
    """Wait until the process sleeps; False when it ends instead."""
    end = time.monotonic() + DEADLOCK_S
    while time.monotonic() < end:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
        if state in "SZX":
            return state == "S"
        os.sched_yield()
    return False


@contextmanager
def once_asleep(ring: Ring, counter: str, act: Callable[[], object]) -> Iterator[None]:
    """Meanwhile, in another thread: wait until this process sleeps in the ring, then act."""
    before = ring.statistics()[counter]

    def watch() -> None:
        end = time.monotonic() + DEADLOCK_S
        while ring.statistics()[counter] == before and time.monotonic() < end:
            time.sleep(0)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


def test_messages_keep_their_boundaries_and_their_order() -> None:
    with Ring(1000) as ring:
        for message in (b"", b"a", bytearray(b"bc"), memoryview(b"def")):
            ring.put(message)
        assert [ring.get() for _ in range(4)] == [b"", b"a", b"bc", b"def"]


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(1, 9000), data=st.data())
def test_every_length_wraps(capacity: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, capacity), max_size=60))
    with Ring(capacity) as ring:
        buffer = bytearray(capacity)
        for number, length in enumerate(lengths):
            message = bytes((number + i) & 255 for i in range(length))
            ring.put(message)
            assert ring.get_into(buffer) == length
            assert buffer[:length] == message


def test_every_length_from_nothing_to_the_capacity() -> None:
    capacity = 4096 * 2 - 8 + 5
    source = memoryview(os.urandom(capacity))
    with Ring(capacity) as ring:
        for length in range(capacity + 1):
            ring.put(source[:length])
            assert ring.get() == source[:length]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=300), st.none()), max_size=200))
def test_it_is_a_queue(steps: list[bytes | None]) -> None:
    """Against a list as the model: bytes are put, None gets."""
    model: list[bytes] = []
    with Ring(4000) as ring:
        for step in steps:
            if step is None:
                if model:
                    assert ring.get_nowait() == model.pop(0)
                else:
                    with pytest.raises(WouldBlock):
                        ring.get_nowait()
                continue
            try:
                ring.put_nowait(step)
            except WouldBlock:
                assert sum(map(len, model)) > 1000
            else:
                model.append(step)
        assert ring.statistics()["put_count"] - ring.statistics()["get_count"] == len(model)


@pytest.mark.parametrize("size", [0, 1, 64, 65536, 65537, 1 << 20])
def test_between_two_processes_both_ways(size: int) -> None:
    """64 KiB and more are copied without the GIL: the other path."""
    there, back = Ring(1 << 20), Ring(1 << 20)

    def echo() -> None:
        buffer = bytearray(1 << 20)
        for _ in range(50):
            back.put(memoryview(buffer)[: there.get_into(buffer)])

    with there, back, child(echo) as pid:
        message = bytearray(size)
        _core.message_fill(message)
        for sequence in range(50):
            _core.message_stamp(message, sequence)
            there.put(message, timeout_s=DEADLOCK_S)
            assert back.get(timeout_s=DEADLOCK_S) == message
        assert succeeded(pid)


def test_a_fast_producer_waits_for_a_slow_consumer() -> None:
    with Ring(100) as ring:
        with child(lambda: [ring.put(bytes([i % 256])) for i in range(1000)]) as pid:  # fills it
            assert asleep(pid)
            assert [ring.get(timeout_s=DEADLOCK_S)[0] for _ in range(1000)] == [i % 256 for i in range(1000)]
            assert succeeded(pid)


def test_too_large_says_what_the_limit_is() -> None:
    with Ring(100) as ring:
        with pytest.raises(MessageTooLarge, match=r"101 bytes is over the limit of 100 bytes \(the ring's") as caught:
            ring.put(bytes(101))
        assert (caught.value.limit_bytes, caught.value.size_bytes) == (100, 101)
        ring.put(bytes(100))
        assert len(ring.get()) == 100


def test_a_small_buffer_leaves_the_message() -> None:
    with Ring(100) as ring:
        ring.put(b"abcdef")
        with pytest.raises(BufferTooSmall, match="6 bytes"):
            ring.get_into(bytearray(5))
        assert ring.get() == b"abcdef"


def test_time_outs() -> None:
    with Ring(10) as ring:
        for wait in (lambda: ring.get(timeout_s=0), lambda: ring.get(0.01), lambda: ring.get_into(bytearray(9), 0.01)):
            with pytest.raises(TimedOut):
                wait()
        with pytest.raises(TimeoutError):  # TimedOut is one
            [ring.put(b"x" * 10, timeout_s=0.001) for _ in range(5000)]
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="negative"):
                ring.get(timeout_s=bad)
        with pytest.raises(TypeError, match=r"call it as put\(data, timeout_s=None\)"):
            ring.put(b"x", seconds=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            ring.put("text")  # type: ignore[arg-type]
        with pytest.raises((TypeError, BufferError)):
            ring.get_into(b"read-only")


@pytest.mark.parametrize("capacity", [0, -1, 1 << 62])
def test_impossible_capacities(capacity: int) -> None:
    with pytest.raises(UsageError):
        Ring(capacity)


def test_more_than_the_machine_has_is_an_error_not_a_kill() -> None:
    with pytest.raises(NoRoom, match="no memory for a ring") as caught:
        Ring(1 << 50)
    assert caught.value.errno == errno.ENOSPC


def test_what_was_put_before_the_close_is_got_then_peer_gone() -> None:
    with Ring(100) as ring:

        def produce() -> None:
            ring.put(b"last")
            ring.close()

        with child(produce) as pid:
            assert succeeded(pid)
            assert ring.get() == b"last"
            with pytest.raises(PeerGone, match=rf"producer, process {pid}, has closed"):
                ring.get()


def test_put_after_the_consumer_has_closed() -> None:
    with Ring(100) as ring:

        def consume() -> None:
            ring.get()
            ring.close()

        with child(consume) as pid:
            ring.put(b"x")
            assert succeeded(pid)
            with pytest.raises(PeerGone, match="consumer"):
                ring.put(b"y")


def test_a_producer_killed_while_the_consumer_sleeps() -> None:
    with Ring(100) as ring:

        def produce() -> None:
            ring.put(b"only")
            signal.pause()

        with child(produce) as pid:
            assert ring.get() == b"only"
            with once_asleep(ring, "get_sleep_count", lambda: os.kill(pid, signal.SIGKILL)):
                with pytest.raises(PeerGone, match="died"):
                    ring.get()


def test_a_consumer_killed_while_the_producer_sleeps() -> None:
    with Ring(100) as ring:

        def consume() -> None:
            ring.get()
            signal.pause()

        with child(consume) as pid:
            ring.put(b"first")
            with once_asleep(ring, "put_sleep_count", lambda: os.kill(pid, signal.SIGKILL)):
                with pytest.raises(PeerGone, match="died"):
                    [ring.put(b"x" * 50) for _ in range(1000)]


def test_a_peer_that_died_before_its_first_call() -> None:
    with Ring(100) as ring, child(lambda: None) as pid:
        os.waitpid(pid, 0)
        with pytest.raises(PeerGone):
            ring.get()


def test_passed_as_a_descriptor() -> None:
    """The other process did not inherit the mapping: it gets the memfd by SCM_RIGHTS."""
    ours, theirs = socket.socketpair()

    def receive() -> None:
        ours.close()
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        with Ring.from_fd(fds[0]) as ring:
            os.close(fds[0])
            if ring.get(timeout_s=DEADLOCK_S) != b"through the descriptor":
                raise SystemExit

    with ours, theirs, child(receive) as pid, Ring(100) as ring:
        socket.send_fds(ours, [b"r"], [ring.fileno()])
        ring.put(b"through the descriptor")
        assert succeeded(pid)


def _answer(there: Ring, back: Ring) -> None:
    back.put(there.get(timeout_s=DEADLOCK_S).upper())


def test_pickled_by_multiprocessing_spawn() -> None:
    with Ring(100) as there, Ring(100) as back:
        process = multiprocessing.get_context("spawn").Process(target=_answer, args=(there, back))
        process.start()
        there.put(b"spawned")
        assert back.get(timeout_s=DEADLOCK_S) == b"SPAWNED"
        process.join()
        process.close()
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # the start method's helper process


def test_descriptors_that_are_no_ring() -> None:
    read, write = os.pipe()
    memfd = os.memfd_create("empty")
    try:
        for fd in (read, memfd):
            with pytest.raises(IpclabError, match="not a ring"):
                Ring.from_fd(fd)
    finally:
        for fd in (read, write, memfd):
            os.close(fd)
    with pytest.raises(IpclabError):
        Ring.from_fd(9999)


def test_a_second_producer_is_told_who_the_first_is() -> None:
    with Ring(100) as ring:
        ring.put(b"mine")

        def put() -> None:
            try:
                ring.put(b"mine too")
            except IpclabError as error:
                os._exit(0 if f"producer is process {os.getppid()}" in str(error) else 2)

        with child(put) as pid:
            assert succeeded(pid)


def test_closed_is_closed() -> None:
    ring = Ring(100)
    ring.close()
    ring.close()
    for call in (ring.get, ring.get_nowait, ring.fileno, ring.statistics, ring.claim_consumer, lambda: ring.put(b"")):
        with pytest.raises(IpclabError, match="closed"):
            call()


def test_close_from_another_thread_ends_a_wait() -> None:
    ring = Ring(100)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            ring.get()
        except IpclabError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not ring.statistics()["get_sleep_count"]:
        os.sched_yield()
    with pytest.raises(IpclabError, match="another thread is in get"):
        ring.get_nowait()
    ring.close()
    thread.join(DEADLOCK_S)
    assert not thread.is_alive()
    assert "closed" in str(ended[0])
    with pytest.raises(IpclabError, match="closed"):
        ring.fileno()


def test_ctrl_c_ends_a_wait_and_the_ring_goes_on() -> None:
    with Ring(100) as ring:
        with once_asleep(ring, "get_sleep_count", lambda: os.kill(os.getpid(), signal.SIGINT)):
            with pytest.raises(KeyboardInterrupt):
                ring.get(timeout_s=DEADLOCK_S)
        ring.put(b"still here")
        assert ring.get() == b"still here"


def test_a_handled_signal_does_not_end_a_wait() -> None:
    hits: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: hits.append(number))
    try:
        with Ring(100) as ring:

            def produce() -> None:
                for _ in range(5):
                    os.kill(os.getppid(), signal.SIGUSR1)
                ring.put(b"after the signals")

            with child(produce) as pid:
                assert ring.get(timeout_s=DEADLOCK_S) == b"after the signals"
                assert succeeded(pid)
            assert hits
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_wakes_only_a_sleeper() -> None:
    with Ring(1000) as ring:
        for _ in range(20):
            ring.put(b"x")
            ring.get()
        counts = ring.statistics()
        assert counts["consumer_wake_count"] == counts["producer_wake_count"] == 0
        assert counts["put_sleep_count"] == counts["get_sleep_count"] == 0


def test_calls_do_not_leak() -> None:
    """Errors included: a thousand of each leave no memory mapping, descriptor or reference behind."""

    def everything() -> None:
        with Ring(100) as ring:
            ring.put(b"x" * 50)
            for call in (
                lambda: ring.put(bytes(101)),
                lambda: ring.get_into(bytearray(1)),
                lambda: ring.put(b"x" * 100, timeout_s=0) or [ring.put_nowait(b"x" * 99) for _ in range(99)],
            ):
                with pytest.raises(IpclabError):
                    call()

    def held() -> tuple[int, int]:
        with open("/proc/self/maps") as file:
            return len(list(Path("/proc/self/fd").iterdir())), sum("memfd:ipclab" in line for line in file)

    everything()
    before = held()
    for _ in range(300):
        everything()
    assert held() == before

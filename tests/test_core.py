"""The binding: what it refuses, how it names what the kernel refused, and that a signal ends no wait but its own."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipclab import _core

PLACED: list[tuple[str, tuple[Any, ...]]] = [
    ("sem_init", (1,)),
    ("sem_post", ()),
    ("sem_wait", (0,)),
    ("sem_getvalue", ()),
    ("sem_destroy", ()),
    ("lock_init", ()),
    ("lock_acquire", (0,)),
    ("lock_consistent", ()),
    ("lock_release", ()),
    ("lock_owner", ()),
    ("barrier_init", (2,)),
    ("barrier_wait", (0,)),
    ("barrier_break", ()),
    ("futex_wait", (0, 0)),
    ("futex_wake", (1,)),
    ("atomic_load", ()),
    ("atomic_store", (1,)),
    ("atomic_add", (1,)),
    ("atomic_cas", (0, 1)),
]


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 4096) as page:
        yield page


@pytest.mark.parametrize(("name", "rest"), PLACED, ids=[name for name, _ in PLACED])
def test_no_object_outside_its_buffer(memory: mmap.mmap, name: str, rest: tuple[Any, ...]) -> None:
    call = getattr(_core, name)
    for offset in (-64, -1, 1, 4095, 4096, 1 << 62, -(1 << 62)):
        with pytest.raises(ValueError, match="is not a place for an object"):
            call(memory, offset, *rest)
    with pytest.raises((TypeError, BufferError)):
        call(b"read-only" * 100, 0, *rest)
    with pytest.raises(TypeError):
        call(None, 0, *rest)
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    ("call", "number", "name"),
    [
        (lambda: _core.sigqueue(os.getpid(), 999, 0), errno.EINVAL, "sigqueue"),
        (lambda: _core.pidfd_send_signal(-1, 0), errno.EBADF, "pidfd_send_signal"),
        (lambda: _core.vmsplice(-1, b"x"), errno.EBADF, "vmsplice"),
        (lambda: _core.process_vm_readv(os.getpid(), 8, bytearray(1)), errno.EFAULT, "process_vm_readv"),
        (lambda: _core.signalfd(-2, [signal.SIGUSR1]), errno.EBADF, "signalfd"),
        (lambda: _core.set_pdeathsig(999), errno.EINVAL, "prctl"),
    ],
)
def test_errors_name_the_call(call: Callable[[], object], number: int, name: str) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is checked below)
        call()
    assert caught.value.errno == number
    assert caught.value.syscall == name  # type: ignore[attr-defined]


def test_a_subreaper_knows_it() -> None:
    assert not _core.is_child_subreaper()
    _core.set_child_subreaper(True)
    try:
        assert _core.is_child_subreaper()
    finally:
        _core.set_child_subreaper(False)


def test_time_outs_are_never_negative(memory: mmap.mmap) -> None:
    _core.sem_init(memory, 0, 0)
    with pytest.raises(ValueError, match="negative"):
        _core.sem_wait(memory, 0, -1)
    assert not _core.sem_wait(memory, 0, 0)
    with pytest.raises(ValueError, match="not a signal number"):
        _core.signalfd(-1, [65])


def test_atomics_are_32_bits(memory: mmap.mmap) -> None:
    assert _core.atomic_add(memory, 4, -1) == 0
    assert _core.atomic_load(memory, 4) == 0xFFFFFFFF
    assert _core.atomic_cas(memory, 4, 1, 2) == 0xFFFFFFFF
    assert _core.atomic_cas(memory, 4, 0xFFFFFFFF, 7) == 0xFFFFFFFF
    _core.atomic_store(memory, 8, 9)
    assert (_core.atomic_load(memory, 4), _core.atomic_load(memory, 8)) == (7, 9)


def test_the_barrier_through_python(memory: mmap.mmap) -> None:
    _core.barrier_init(memory, 0, 3)
    orders: list[int] = []
    threads = [threading.Thread(target=lambda: orders.append(_core.barrier_wait(memory, 0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    orders.append(_core.barrier_wait(memory, 0, 30_000_000_000))
    for thread in threads:
        thread.join()
    assert sorted(orders) == [0, 1, 2]
    with pytest.raises(OSError, match="timed out"):
        _core.barrier_wait(memory, 0, 1000)
    _core.barrier_break(memory, 0)
    with pytest.raises(BrokenPipeError):
        _core.barrier_wait(memory, 0)
    with pytest.raises(OSError, match="Invalid"):
        _core.barrier_init(memory, 0, 0)


WAITS: dict[str, Callable[[mmap.mmap], object]] = {
    "sem_wait": lambda memory: _core.sem_wait(memory, 64),
    "futex_wait": lambda memory: _core.futex_wait(memory, 128, 0),
    "barrier_wait": lambda memory: _core.barrier_wait(memory, 192),
    "sigwaitinfo": lambda memory: _core.sigwaitinfo_value([signal.SIGUSR2]),
}


@pytest.mark.parametrize("name", WAITS)
def test_an_exception_from_a_handler_ends_a_wait(memory: mmap.mmap, name: str) -> None:
    """As Ctrl-C does; the handler runs at once, not when the wait is over."""
    _core.sem_init(memory, 64, 0)
    _core.barrier_init(memory, 192, 2)
    main, tid = threading.main_thread().ident, threading.get_native_id()
    assert main is not None
    waiting, struck = threading.Event(), threading.Event()

    def strike(_signo: int, _frame: object) -> None:
        if waiting.is_set() and not struck.is_set():
            struck.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        # Again and again: a signal that comes between Python's look for signals and the call does not end it.
        while not struck.wait(0.01):
            if open(f"/proc/self/task/{tid}/stat").read().rpartition(")")[2].split()[0] == "S":  # noqa: SIM115
                signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, strike)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            begin_and_wait(waiting, WAITS[name], memory)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)


def begin_and_wait(waiting: threading.Event, wait: Callable[[mmap.mmap], object], memory: mmap.mmap) -> None:
    """From now on it may be interrupted; wait for ever."""
    waiting.set()
    wait(memory)


def test_a_stamped_message_of_every_length() -> None:
    for size in range(300):
        buffer = bytearray(size)
        _core.message_fill(buffer)
        _core.message_stamp(buffer, 41)
        assert _core.message_check(buffer, 41)
        assert size == 0 or not _core.message_check(buffer, 40)
        for at in range(24, size):
            buffer[at] ^= 1
            assert not _core.message_check(buffer, 41)
            buffer[at] ^= 1


def test_calls_do_not_leak(memory: mmap.mmap) -> None:
    """Errors included: memory in use does not grow with the number of calls."""

    def everything() -> None:
        for name, rest in PLACED:
            with pytest.raises(ValueError, match="place"):
                getattr(_core, name)(memory, 1, *rest)
        with pytest.raises(OSError, match="Bad file"):
            _core.vmsplice(-1, b"x")
        _core.message_check(memory, 1)

    def resident_pages() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    for _ in range(200):
        everything()
    before = resident_pages()
    for _ in range(1000):
        everything()
    assert resident_pages() - before < 256  # one leaked object of 50 bytes a call would be more than that

"""Every kind of lock under the same questions: who may go on, for how long one waits, what a killed holder leaves.

What is particular to one kind is in test_sync_counters.py, test_sync_memory.py and test_sync_files.py.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from actors import Actor, actors

from ipclab.errors import TimedOut
from ipclab.mechanisms import CATALOGUE, load
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync._lock import Lock
from ipclab.mechanisms.sync.fcntl_lock import OfdLock, RecordLock
from ipclab.mechanisms.sync.flock import FileLock
from ipclab.mechanisms.sync.futex import FutexMutex
from ipclab.mechanisms.sync.posix_sem import NamedSemaphore
from ipclab.mechanisms.sync.robust_mutex import OwnerDied, RobustMutex
from ipclab.mechanisms.sync.sysv_sem import SysvSemaphore
from ipclab.mechanisms.sync.unnamed_sem import UnnamedSemaphore

SYNC = [name for name, path in CATALOGUE.items() if path.startswith("sync.")]

#: kind -> (mechanism, how to make a free one, what the next one sees when its holder was killed)
KINDS: dict[str, tuple[str, Callable[[], Lock], str]] = {
    "posix-sem": ("posix-sem", NamedSemaphore.create, "TimedOut"),
    "unnamed-sem": ("unnamed-sem", UnnamedSemaphore.create, "TimedOut"),
    "sysv-sem": ("sysv-sem", SysvSemaphore.create, "acquired"),
    "sysv-sem without undo": ("sysv-sem", lambda: SysvSemaphore.create(undo=False), "TimedOut"),
    "futex": ("futex", FutexMutex.create, "TimedOut"),
    "robust-mutex": ("robust-mutex", RobustMutex.create, "OwnerDied"),
    "flock": ("flock", FileLock.create, "acquired"),
    "record lock": ("fcntl-lock", RecordLock.create, "acquired"),
    "ofd lock": ("fcntl-lock", OfdLock.create, "acquired"),
}
#: These belong to the open file description, which a forked child shares: each actor opens the file for itself.
REOPEN = {"flock", "ofd lock"}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    probe = load(KINDS[name][0]).probe()
    if not probe.works:
        pytest.skip(f"{name}: {probe.reason}")
    return name


@pytest.fixture
def lock(kind: str) -> Iterator[Lock]:
    with KINDS[kind][1]() as lock:
        yield lock


@pytest.fixture
def two(kind: str, lock: Lock) -> Iterator[tuple[Actor, Actor]]:
    """Two processes that share the lock."""
    with actors(lock, "a", "b") as (a, b):
        prepare(kind, a, b)
        yield a, b


def prepare(kind: str, *crew: Actor) -> None:
    for actor in crew:
        if kind in REOPEN:
            actor.call("run", reopen)


def reopen(part: Any) -> None:
    part.link = part.link.reopen()


def acquire(part: Any, timeout_s: float | None) -> None:
    part.link.acquire(timeout_s)


def release(part: Any) -> None:
    part.link.release()


# --- turns ------------------------------------------------------------------------------------------------------------


def test_who_comes_second_waits_until_it_is_released(two: tuple[Actor, Actor]) -> None:
    a, b = two
    a.call("run", acquire, 30.0)
    waiting = b.start("run", acquire, 30.0)
    b.until_asleep()
    a.call("run", release)
    waiting.result()
    with pytest.raises(TimedOut):
        a.call("run", acquire, 0)
    b.call("run", release)
    a.call("run", acquire, 30.0)


@pytest.mark.parametrize("timeout_s", [0, 0.05])
def test_the_time_runs_out(two: tuple[Actor, Actor], timeout_s: float) -> None:
    a, b = two
    a.call("run", acquire, 30.0)
    for _ in range(2):
        with pytest.raises(TimedOut) as caught:
            b.call("run", acquire, timeout_s)
        assert isinstance(caught.value, TimeoutError)
    a.call("run", release)
    b.call("run", acquire, timeout_s)


def test_a_signal_with_a_handler_ends_no_wait(two: tuple[Actor, Actor]) -> None:
    a, b = two
    a.call("run", acquire, 30.0)
    b.call("run", count_signals)
    waiting = b.start("run", acquire, 30.0)
    b.until_asleep()
    os.kill(b.pid, signal.SIGUSR1)
    b.until_asleep()
    a.call("run", release)
    waiting.result()
    assert b.call("run", signals_counted) == 1


def count_signals(part: Any) -> None:
    part.signals = 0

    def count(signo: int, frame: object) -> None:
        part.signals += 1

    signal.signal(signal.SIGUSR1, count)


def signals_counted(part: Any) -> int:
    return int(part.signals)


@pytest.mark.parametrize("timeout_s", [None, 20.0])
def test_ctrl_c_ends_a_wait(two: tuple[Actor, Actor], timeout_s: float | None) -> None:
    a, b = two
    a.call("run", acquire, 30.0)
    waiting = b.start("run", acquire, timeout_s)
    b.until_asleep()
    b.interrupt()
    with pytest.raises(KeyboardInterrupt):
        waiting.result()
    a.call("run", release)
    b.call("run", acquire, 30.0)


def increment(part: Any, times: int) -> None:
    """The lost update, unless the lock holds: read, let others run, write."""
    words = part.link.counter.buffer.cast("Q")
    for _ in range(times):
        with part.link.held(30.0):
            value = words[0]
            os.sched_yield()
            words[0] = value + 1
    words.release()


def test_no_update_is_lost(kind: str, lock: Any) -> None:
    processes, times = 3, 150
    with Memfd.create(8) as counter:
        lock.counter = counter
        with actors(lock, "a", "b", "c") as crew:
            prepare(kind, *crew)
            if kind in REOPEN:
                for actor in crew:
                    actor.call("run", inherit_counter, counter.fd)
            for call in [actor.start("run", increment, times) for actor in crew]:
                call.result()
        assert int.from_bytes(counter.buffer[:8], "little") == processes * times


def inherit_counter(part: Any, fd: int) -> None:
    part.link.counter = Memfd.attach(fd)


# --- death ------------------------------------------------------------------------------------------------------------


def outcome(part: Any, timeout_s: float) -> str:
    """What the next one sees; whoever gets it gives it back."""
    try:
        part.link.acquire(timeout_s)
    except TimedOut:
        return "TimedOut"
    except OwnerDied as died:
        part.link.make_consistent()
        part.link.release()
        return f"OwnerDied {died.pid}"
    part.link.release()
    return "acquired"


def expected(kind: str, dead: Actor) -> str:
    sees = KINDS[kind][2]
    return f"OwnerDied {dead.pid}" if sees == "OwnerDied" else sees


def test_the_holder_is_killed_then_the_next_one_comes(kind: str, two: tuple[Actor, Actor]) -> None:
    a, b = two
    a.call("run", acquire, 30.0)
    a.kill()
    sees = expected(kind, a)
    assert b.call("run", outcome, 0.1 if sees == "TimedOut" else 30.0) == sees
    # Whoever could recover has recovered: it is a lock like any other again.
    assert b.call("run", outcome, 0.1) == ("TimedOut" if sees == "TimedOut" else "acquired")


def test_the_holder_is_killed_while_the_next_one_waits(kind: str, two: tuple[Actor, Actor]) -> None:
    a, b = two
    sees = expected(kind, a)
    if sees == "TimedOut":
        pytest.skip("nobody wakes the waiter: see the test before")
    a.call("run", acquire, 30.0)
    waiting = b.start("run", outcome, 30.0)
    b.until_asleep()
    a.kill()
    assert waiting.result() == sees


def test_a_waiter_is_killed_and_nobody_minds(kind: str, lock: Lock) -> None:
    with actors(lock, "a", "b", "c") as (a, b, c):
        prepare(kind, a, b, c)
        a.call("run", acquire, 30.0)
        b.start("run", acquire, 30.0)
        b.until_asleep()
        b.kill()
        a.call("run", release)
        assert c.call("run", outcome, 30.0) == "acquired"


# --- its life ---------------------------------------------------------------------------------------------------------


def test_a_child_that_leaves_does_not_remove_it(lock: Any) -> None:
    pid = os.fork()
    if pid == 0:
        lock.__exit__(None, None, None)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with lock.held(30.0):
        pass


def test_closing_twice_is_allowed(lock: Any) -> None:
    lock.close()
    lock.close()


def test_held_gives_it_back_after_an_exception(lock: Lock) -> None:
    with pytest.raises(ZeroDivisionError), lock.held(30.0):
        _ = 1 // 0
    with lock.held(30.0):
        pass


# --- what is said about them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYNC)
def test_every_one_says_whether_it_works_and_what_bounds_it(name: str) -> None:
    module = load(name)
    assert module.LINK is None
    assert module.MECHANISM.name == name
    assert (module.MECHANISM.boundaries, module.MECHANISM.duplex) == (None, None)
    probe = module.probe()
    assert probe.works or (probe.reason and probe.remedy)
    limits = module.limits()
    assert limits
    for limit in limits:
        assert limit.name
        assert limit.source
        if limit.source.startswith("/proc/sys/") and limit.value is not None:
            assert str(limit.value) in Path(limit.source).read_text().split()


def test_errors_cross_process_boundaries() -> None:
    error = pickle.loads(pickle.dumps(OwnerDied(42)))
    assert isinstance(error, OwnerDied)
    assert (error.pid, str(error)) == (42, str(OwnerDied(42)))

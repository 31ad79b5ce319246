"""The counters: named, unnamed and SysV semaphores, and the eventfd."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from actors import actors

from ipclab.errors import IpclabError, NameInUse, PeerGone, TimedOut, Unavailable, UsageError
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync.eventfd import MOST, EventFd
from ipclab.mechanisms.sync.posix_sem import NamedSemaphore
from ipclab.mechanisms.sync.sysv_sem import SEMVMX, SysvSemaphore
from ipclab.mechanisms.sync.unnamed_sem import UnnamedSemaphore
from ipclab.processes import registry, removal

SEMAPHORES: dict[str, Callable[[int], Any]] = {
    "posix-sem": NamedSemaphore.create,
    "unnamed-sem": UnnamedSemaphore.create,
    "sysv-sem": lambda value: SysvSemaphore.create(value, undo=False),
}


@pytest.fixture(params=list(SEMAPHORES))
def create(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    if request.param == "sysv-sem":
        pytest.importorskip("sysv_ipc")
    return SEMAPHORES[request.param]


def acquire(part: Any, timeout_s: float | None = 30.0) -> None:
    part.link.acquire(timeout_s)


def release(part: Any) -> None:
    part.link.release()


# --- what all semaphores do -------------------------------------------------------------------------------------------


def test_it_counts(create: Callable[[int], Any]) -> None:
    with create(2) as semaphore:
        assert semaphore.value == 2
        semaphore.acquire(0)
        semaphore.acquire(0)
        assert semaphore.value == 0
        with pytest.raises(TimedOut):
            semaphore.acquire(0)
        semaphore.release()
        assert semaphore.value == 1


def test_anybody_may_release_so_it_hands_over(create: Callable[[int], Any]) -> None:
    with create(0) as semaphore, actors(semaphore, "a", "b") as (a, b):
        waiting = b.start("run", acquire)
        b.until_asleep()
        a.call("run", release)
        waiting.result()


def test_each_release_lets_one_go(create: Callable[[int], Any]) -> None:
    with create(0) as semaphore, actors(semaphore, "a", "b", "c") as (a, b, c):
        waiting = [b.start("run", acquire), c.start("run", acquire)]
        b.until_asleep()
        c.until_asleep()
        a.call("run", release)
        a.call("run", release)
        for call in waiting:
            call.result()
        assert semaphore.value == 0


def test_an_impossible_first_value_is_refused(create: Callable[[int], Any]) -> None:
    for value in (-1, 1 << 31, 1 << 40):
        with pytest.raises(IpclabError):
            create(value)


# --- POSIX ------------------------------------------------------------------------------------------------------------


def test_a_named_semaphore_is_found_by_its_name() -> None:
    with NamedSemaphore.create(1) as mine, NamedSemaphore.attach(mine.name) as theirs:
        assert (Path("/dev/shm") / f"sem.{mine.name[1:]}").stat().st_mode & 0o777 == 0o600
        mine.acquire(0)
        with pytest.raises(TimedOut):
            theirs.acquire(0)
    with pytest.raises(IpclabError, match="does not exist"):
        NamedSemaphore.attach(mine.name)
    with pytest.raises(IpclabError, match="is closed"):
        mine.acquire(0)


@pytest.mark.parametrize("close_first", [True, False])
def test_a_name_can_be_removed_before_and_after_closing(close_first: bool) -> None:
    semaphore = NamedSemaphore.create(1)
    for step in (semaphore.close, semaphore.unlink)[:: 1 if close_first else -1]:
        step()
    assert not removal.exists("posix-sem", semaphore.name)


def test_posix_ipc_itself_forgets_the_name_on_close() -> None:
    """The trap the page tells of: if this fails, posix_ipc has changed and the page should."""
    import posix_ipc

    name = registry.new_name("posix-sem", "trap")
    semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600)
    semaphore.close()
    with pytest.raises(posix_ipc.ExistentialError):
        semaphore.unlink()
    posix_ipc.unlink_semaphore(name)
    registry.forget("posix-sem", name)


def test_a_semaphore_cannot_count_beyond_its_maximum() -> None:
    most = os.sysconf("SC_SEM_VALUE_MAX")
    with NamedSemaphore.create(most) as named, UnnamedSemaphore.create(most) as unnamed:
        for semaphore in (named, unnamed):
            with pytest.raises(IpclabError) as caught:
                semaphore.release()
            assert caught.value.errno == errno.EOVERFLOW


def test_a_taken_name_says_so() -> None:
    with NamedSemaphore.create(1) as mine, pytest.raises(NameInUse):
        NamedSemaphore._open(mine.name, 1)


# --- unnamed ----------------------------------------------------------------------------------------------------------


def test_an_unnamed_semaphore_lies_where_it_is_placed() -> None:
    with Memfd.create(4096) as segment:
        with UnnamedSemaphore.place(segment.buffer, 128, 3) as mine, UnnamedSemaphore.at(segment.buffer, 128) as same:
            mine.acquire(0)
            assert same.value == 2
            with pytest.raises(OSError, match="no memory of its own"):
                mine.fd  # noqa: B018
        with pytest.raises(ValueError, match="not a place"):
            UnnamedSemaphore.place(segment.buffer, 4090, 1)


def test_its_memfd_is_all_another_process_needs() -> None:
    with UnnamedSemaphore.create(1) as mine, Memfd.attach(mine.fd) as segment:
        with UnnamedSemaphore.at(segment.buffer) as theirs:
            theirs.acquire(0)
            assert mine.value == 0


# --- SysV -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sysv() -> Any:
    return pytest.importorskip("sysv_ipc")


def test_undo_gives_back_what_a_dead_process_took(sysv: Any) -> None:
    with SysvSemaphore.create(3) as semaphore, actors(semaphore, "a") as (a,):
        a.call("run", acquire)
        a.call("run", acquire)
        assert semaphore.value == 1
        a.kill()
        assert semaphore.value == 3
        assert semaphore.last_pid == a.pid


def test_removal_wakes_who_waits(sysv: Any) -> None:
    with SysvSemaphore.create(0) as semaphore, actors(semaphore, "a") as (a,):
        waiting = a.start("run", acquire, None)
        a.until_asleep()
        assert semaphore.waiting == 1
        semaphore.unlink()
        with pytest.raises(PeerGone, match="removed"):
            waiting.result()
        with pytest.raises(PeerGone, match="removed"):
            semaphore.acquire(0)
        with pytest.raises(PeerGone, match="removed"):
            semaphore.value  # noqa: B018


def wait_zero(part: Any) -> None:
    part.link.wait_zero(30.0)


def test_one_can_wait_for_zero(sysv: Any) -> None:
    with SysvSemaphore.create(1) as semaphore, actors(semaphore, "a") as (a,):
        with pytest.raises(TimedOut):
            semaphore.wait_zero(0)
        waiting = a.start("run", wait_zero)
        a.until_asleep()
        semaphore.acquire(0)
        waiting.result()
        assert semaphore.value == 0


def test_a_sysv_semaphore_cannot_count_beyond_its_maximum(sysv: Any) -> None:
    with SysvSemaphore.create(SEMVMX) as semaphore, pytest.raises(IpclabError) as caught:
        semaphore.release()
    assert caught.value.errno == errno.ERANGE


def test_a_key_finds_it_and_no_key_says_so(sysv: Any) -> None:
    with SysvSemaphore.create(1) as mine:
        theirs = SysvSemaphore.attach(mine.key)
        theirs.acquire(0)
        assert mine.value == 0
        theirs.release()
        theirs.__exit__(None, None, None)
        assert mine.value == 1
    with pytest.raises(IpclabError, match="does not exist"):
        SysvSemaphore.attach(mine.key)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sysv_ipc", None)
    makers: tuple[Callable[[], object], ...] = (SysvSemaphore.create, lambda: SysvSemaphore.attach(1))
    for make in makers:
        with pytest.raises(Unavailable, match="pip install"):
            make()


# --- eventfd ----------------------------------------------------------------------------------------------------------


def take(part: Any, timeout_s: float | None = 30.0) -> int:
    return int(part.link.take(timeout_s))


def add(part: Any, value: int) -> None:
    part.link.add(value, 30.0)


def test_an_eventfd_adds_up_and_gives_all_at_once() -> None:
    with EventFd.create() as event:
        for value in (1, 2, 3, 0):
            event.add(value)
        assert event.count() == 6
        assert event.take(0) == 6
        assert event.count() == 0
        with pytest.raises(TimedOut):
            event.take(0)
        with pytest.raises(TimedOut):
            event.take(0.02)


def test_as_a_semaphore_it_gives_one_at_a_time() -> None:
    with EventFd.create(2, semaphore=True) as event:
        assert [event.take(0), event.take(0)] == [1, 1]
        with pytest.raises(TimedOut):
            event.take(0)


def test_it_wakes_who_waits_in_another_process() -> None:
    with EventFd.create() as event, actors(event, "a") as (a,):
        waiting = a.start("run", take)
        a.until_asleep()
        event.add(5)
        assert waiting.result() == 5


def test_it_can_be_polled_with_others() -> None:
    reader, writer = os.pipe()
    with EventFd.create() as event:
        poller = select.poll()
        poller.register(event, select.POLLIN)
        poller.register(reader, select.POLLIN)
        assert poller.poll(0) == []
        event.add()
        assert poller.poll(0) == [(event.fileno(), select.POLLIN)]
    os.close(reader)
    os.close(writer)


def test_what_would_go_beyond_its_largest_count_waits() -> None:
    with EventFd.create() as event, actors(event, "a") as (a,):
        event.add(MOST, 0)
        for value in (1, MOST):
            with pytest.raises(TimedOut):
                event.add(value, 0.02)
        waiting = a.start("run", add, 7)
        a.until_asleep()
        assert event.take(0) == MOST
        waiting.result()
        assert event.take(0) == 7


def test_pollout_for_one_does_not_let_more_in() -> None:
    with EventFd.create() as event:
        event.add(MOST - 1, 0)
        with pytest.raises(TimedOut):
            event.add(2, 0.05)
        event.add(1, 0)
        assert event.take(0) == MOST


@pytest.mark.parametrize("value", [-1, MOST + 1, 1 << 70])
def test_an_impossible_addition_is_refused(value: int) -> None:
    with EventFd.create() as event, pytest.raises(UsageError):
        event.add(value)
    with pytest.raises(UsageError):
        EventFd.create(value)


def test_a_closed_eventfd_says_so() -> None:
    event = EventFd.create()
    event.close()
    event.close()
    with pytest.raises(IpclabError, match="closed"):
        event.take(0)


def test_ctrl_c_ends_a_wait_for_an_eventfd() -> None:
    with EventFd.create() as event, actors(event, "a") as (a,):
        waiting = a.start("run", take, None)
        a.until_asleep()
        a.interrupt()
        with pytest.raises(KeyboardInterrupt):
            waiting.result()

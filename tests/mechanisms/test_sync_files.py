"""File locks: whom they belong to, and what drops them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from actors import actors

from ipclab.errors import IpclabError, TimedOut, UsageError
from ipclab.mechanisms.sync.fcntl_lock import _FLOCK, LARGEST_OFFSET, Deadlock, Holder, OfdLock, RecordLock
from ipclab.mechanisms.sync.flock import FileLock


def acquire(part: Any, timeout_s: float | None, first: int = 0, length: int = 0) -> None:
    part.link.acquire(timeout_s, first=first, length=length)


def release(part: Any, first: int = 0, length: int = 0) -> None:
    part.link.release(first=first, length=length)


def lock_whole(part: Any, shared: bool) -> None:
    part.link.acquire(0, shared=shared)


def unlock_whole(part: Any) -> None:
    part.link.release()


def open_and_close(part: Any) -> None:
    part.link.path.read_bytes()


# --- flock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FileLock, OfdLock])
def test_many_readers_or_one_writer(kind: Any) -> None:
    with kind.create() as one, one.reopen() as two, one.reopen() as three:
        one.acquire(0, shared=True)
        two.acquire(0, shared=True)
        with pytest.raises(TimedOut):
            three.acquire(0)
        one.release()
        two.release()
        three.acquire(0)
        with pytest.raises(TimedOut):
            one.acquire(0, shared=True)


@pytest.mark.parametrize("kind", [FileLock, OfdLock])
def test_a_fork_shares_the_description_and_so_the_lock(kind: Any) -> None:
    with kind.create() as mine, mine.reopen() as stranger, actors(mine, "a") as (a,):
        mine.acquire(0)
        a.call("run", lock_whole, False)  # it has it already
        with pytest.raises(TimedOut):
            stranger.acquire(0)
        a.call("run", unlock_whole)  # and can give it away
        stranger.acquire(0)


@pytest.mark.parametrize("kind", [FileLock, OfdLock])
def test_an_heir_keeps_the_lock_of_a_closed_parent(kind: Any) -> None:
    with kind.create() as mine, mine.reopen() as stranger:
        mine.acquire(0)
        with actors(mine, "heir") as (heir,):
            mine.close()
            with pytest.raises(TimedOut):
                stranger.acquire(0)
            heir.kill()
            stranger.acquire(30.0)


def test_its_own_second_description_is_a_stranger() -> None:
    with FileLock.create() as one, FileLock.attach(one.path) as two, one.held(0), pytest.raises(TimedOut):
        two.acquire(0.01)


def test_reading_the_file_drops_no_flock() -> None:
    with FileLock.create() as mine, mine.reopen() as stranger:
        mine.acquire(0)
        mine.path.read_bytes()
        with pytest.raises(TimedOut):
            stranger.acquire(0)


# --- record and OFD locks ---------------------------------------------------------------------------------------------


def test_struct_flock_is_as_long_as_the_kernels() -> None:
    assert _FLOCK.size == 32


@pytest.mark.parametrize("kind", [RecordLock, OfdLock])
def test_ranges_do_not_touch_each_other(kind: Any) -> None:
    with kind.create() as mine, actors(mine, "a") as (a,):
        if kind is OfdLock:
            a.call("run", reopen)
        mine.acquire(0, first=0, length=10)
        a.call("run", acquire, 0, 10, 10)
        with pytest.raises(TimedOut):
            a.call("run", acquire, 0, 9, 1)
        mine.release(first=5, length=5)
        a.call("run", acquire, 0, 5, 5)
        with mine.held(0, first=LARGEST_OFFSET - 1, length=1), pytest.raises(TimedOut):
            a.call("run", acquire, 0)


def reopen(part: Any) -> None:
    part.link = part.link.reopen()


def test_the_holder_of_a_record_lock_is_a_process() -> None:
    with RecordLock.create() as mine, actors(mine, "a") as (a,):
        assert mine.holder() is None
        a.call("run", acquire, 0, 3, 4)
        assert mine.holder() == Holder(pid=a.pid, first=3, length=4, shared=False)
        assert mine.holder(first=7) is None


def test_the_holder_of_an_ofd_lock_is_no_process() -> None:
    with OfdLock.create() as mine, mine.reopen() as stranger:
        mine.acquire(0, shared=True)
        assert stranger.holder() == Holder(pid=-1, first=0, length=0, shared=True)
        assert stranger.holder(shared=True) is None


def test_closing_any_descriptor_drops_a_record_lock() -> None:
    with RecordLock.create() as mine, actors(mine, "a") as (a,):
        a.call("run", acquire, 0)
        with pytest.raises(TimedOut):
            mine.acquire(0)
        a.call("run", open_and_close)
        mine.acquire(0)


def test_closing_another_descriptor_drops_no_ofd_lock() -> None:
    with OfdLock.create() as mine, mine.reopen() as stranger:
        mine.acquire(0)
        mine.path.read_bytes()
        with pytest.raises(TimedOut):
            stranger.acquire(0)


def test_a_process_does_not_stand_in_its_own_way_with_record_locks() -> None:
    with RecordLock.create() as one, RecordLock.attach(one.path) as two:
        one.acquire(0)
        two.acquire(0)


def test_record_and_ofd_locks_see_each_other_and_flock_does_not() -> None:
    with RecordLock.create() as record, OfdLock.attach(record.path) as ofd, FileLock.attach(record.path) as whole:
        with actors(record, "a") as (a,):
            a.call("run", acquire, 0)
            with pytest.raises(TimedOut):
                ofd.acquire(0)
            whole.acquire(0)


def test_the_kernel_refuses_to_close_a_cycle() -> None:
    with RecordLock.create() as lock, actors(lock, "a", "b") as (a, b):
        a.call("run", acquire, 30.0, 0, 1)
        b.call("run", acquire, 30.0, 1, 1)
        waiting = a.start("run", acquire, None, 1, 1)
        a.until_asleep()
        with pytest.raises(Deadlock):
            b.call("run", acquire, None, 0, 1)
        b.call("run", release, 1, 1)
        waiting.result()


@pytest.mark.parametrize(("first", "length"), [(-1, 1), (0, -1), (LARGEST_OFFSET, 1), (1 << 70, 0)])
def test_an_impossible_range_is_refused(first: int, length: int) -> None:
    with OfdLock.create() as lock, pytest.raises(UsageError):
        lock.acquire(0, first=first, length=length)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_private_and_goes_with_its_creator() -> None:
    with FileLock.create() as mine:
        assert mine.path.stat().st_mode & 0o777 == 0o600
        with FileLock.attach(mine.path):
            pass
        assert mine.path.exists()
        assert not os.get_inheritable(mine.fileno())
    assert not mine.path.exists()
    with pytest.raises(IpclabError, match="closed"):
        mine.acquire(0)


def test_a_missing_file_and_a_link_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IpclabError, match="does not exist"):
        FileLock.attach(tmp_path / "none")
    (tmp_path / "link").symlink_to("none")
    with pytest.raises(IpclabError):
        FileLock.attach(tmp_path / "link")

"""What lies in shared memory: futex, robust mutex, condition variable, barrier."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
from typing import Any

import pytest
from actors import actors

from ipclab.errors import IpclabError, PeerGone, TimedOut, UsageError
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.sync.barrier import MOST_PARTIES, Barrier
from ipclab.mechanisms.sync.condvar import Condition
from ipclab.mechanisms.sync.futex import CONTENDED, FREE, TAKEN, FutexMutex, FutexWord
from ipclab.mechanisms.sync.robust_mutex import NotRecoverable, OwnerDied, RobustMutex


def acquire(part: Any, timeout_s: float | None = 30.0) -> None:
    part.link.acquire(timeout_s)


def release(part: Any) -> None:
    part.link.release()


# --- futex ------------------------------------------------------------------------------------------------------------


def test_a_futex_sleeps_only_while_the_word_is_the_expected() -> None:
    with FutexWord.create(7) as word:
        assert word.wait(8, 0.0)  # not 8: no sleep
        assert not word.wait(7, 0.02)
        assert word.wake() == 0


def test_the_atomics_return_what_was_there() -> None:
    with FutexWord.create(1) as word:
        assert word.add(4) == 1
        assert word.exchange_if(5, 9) == 5
        assert word.exchange_if(5, 1) == 9
        assert word.load() == 9
        word.store(2**32 - 1)
        assert word.add(1) == 2**32 - 1
        assert word.load() == 0


def sleep_on(part: Any, expected: int) -> bool:
    return bool(part.link.wait(expected, 30.0))


def test_wake_counts_whom_it_wakes() -> None:
    with FutexWord.create(0) as word, actors(word, "a", "b", "c") as crew:
        calls = [actor.start("run", sleep_on, 0) for actor in crew]
        for actor in crew:
            actor.until_asleep()
        assert word.wake(1) == 1
        assert word.wake(10) == 2
        assert [call.result() for call in calls] == [True, True, True]


def system_calls(part: Any) -> int:
    return int(part.link.system_calls)


def test_an_uncontended_mutex_makes_no_system_call() -> None:
    with FutexMutex.create() as mutex:
        for _ in range(100):
            with mutex.held(0):
                assert mutex.word.load() == TAKEN
        assert mutex.word.load() == FREE
        assert mutex.system_calls == 0
        with pytest.raises(IpclabError, match="nobody had taken it"):
            mutex.release()


def test_a_contended_mutex_sleeps_and_wakes() -> None:
    with FutexMutex.create() as mutex, actors(mutex, "a", "b") as (a, b):
        a.call("run", acquire)
        waiting = b.start("run", acquire)
        b.until_asleep()
        assert mutex.word.load() == CONTENDED
        a.call("run", release)
        waiting.result()
        assert a.call("run", system_calls) == 1  # it woke
        assert b.call("run", system_calls) >= 1  # it slept
        b.call("run", release)
        assert mutex.word.load() == FREE


# --- robust mutex -----------------------------------------------------------------------------------------------------


def test_its_owner_can_be_read() -> None:
    with RobustMutex.create() as mutex, actors(mutex, "a") as (a,):
        assert mutex.owner_pid == 0
        a.call("run", acquire)
        assert mutex.owner_pid == a.pid
        a.call("run", release)
        assert mutex.owner_pid == 0


def test_a_second_acquire_by_the_holder_is_a_deadlock_and_says_so() -> None:
    with RobustMutex.create() as mutex, mutex.held(0):
        for timeout_s in (0.5, None):
            with pytest.raises(IpclabError) as caught:
                mutex.acquire(timeout_s)
            assert caught.value.errno == errno.EDEADLK


def test_only_the_holder_may_release() -> None:
    with RobustMutex.create() as mutex, actors(mutex, "a") as (a,):
        with pytest.raises(IpclabError) as caught:
            mutex.release()
        assert caught.value.errno == errno.EPERM
        a.call("run", acquire)
        with pytest.raises(IpclabError):
            mutex.release()
        assert mutex.owner_pid == a.pid


def test_only_the_holding_thread_may_release() -> None:
    caught: list[int | None] = []

    def release_it() -> None:
        try:
            mutex.release()
        except IpclabError as err:
            caught.append(err.errno)

    with RobustMutex.create() as mutex, mutex.held(0):
        thread = threading.Thread(target=release_it)
        thread.start()
        thread.join(60)
        assert caught == [errno.EPERM]
        assert mutex.owner_pid == os.getpid()


def test_released_without_repair_it_is_lost_for_all() -> None:
    with RobustMutex.create() as mutex, actors(mutex, "a", "b") as (a, b):
        a.call("run", acquire)
        a.kill()
        with pytest.raises(OwnerDied) as caught:
            mutex.acquire(30.0)
        assert caught.value.pid == a.pid
        assert mutex.owner_pid == os.getpid()
        mutex.release()
        for _ in range(2):
            with pytest.raises(NotRecoverable):
                mutex.acquire(30.0)
        with pytest.raises(NotRecoverable):
            b.call("run", acquire)


def test_a_repair_is_told_who_died_and_makes_it_whole() -> None:
    with RobustMutex.create() as mutex, actors(mutex, "a") as (a,):
        a.call("run", acquire)
        a.kill()
        died: list[int] = []
        with mutex.held(30.0, repair=died.append):
            pass
        assert died == [a.pid]
        with mutex.held(0, repair=died.append):
            pass
        assert died == [a.pid]


def test_a_repair_that_fails_leaves_it_lost() -> None:
    def fail(pid: int) -> None:
        raise ZeroDivisionError

    with RobustMutex.create() as mutex, actors(mutex, "a") as (a,):
        a.call("run", acquire)
        a.kill()
        with pytest.raises(ZeroDivisionError):
            mutex.acquire(30.0, repair=fail)
        with pytest.raises(NotRecoverable):
            mutex.acquire(30.0)


def test_there_is_nothing_to_repair_while_all_live() -> None:
    with RobustMutex.create() as mutex, mutex.held(0), pytest.raises(IpclabError):
        mutex.make_consistent()


def die_again_and_again(part: Any) -> None:
    """Take it, tear the data, put it right, give it back: until the kill that comes at any of these instructions."""
    words = part.link.data.buffer.cast("Q")

    def repair(pid: int) -> None:
        words[1] = words[0]

    while True:
        with part.link.held(30.0, repair):
            words[0] += 1
            words[1] += 1


def test_killed_at_random_moments_it_never_hangs_and_never_lies() -> None:
    moments = random.Random(1)
    with RobustMutex.create() as mutex, Memfd.create(16) as data:
        mutex.data = data  # type: ignore[attr-defined]
        words = data.buffer.cast("Q")

        def repair(pid: int) -> None:
            words[1] = words[0]

        for _ in range(20):
            with actors(mutex, "a", "b") as (a, b):
                for actor in (a, b):
                    actor.start("run", die_again_and_again)
                goal = words[0] + moments.randrange(1, 500)
                while words[0] < goal:
                    with mutex.held(30.0, repair):
                        assert words[0] == words[1]
                a.kill()
                with mutex.held(30.0, repair):
                    assert words[0] == words[1]
        words.release()


# --- condition variable -----------------------------------------------------------------------------------------------


def produce(part: Any, how_many: int) -> None:
    words = part.link.data.buffer.cast("Q")
    for _ in range(how_many):
        with part.link.mutex.held(30.0):
            words[0] += 1
            part.link.notify()
    words.release()


def consume(part: Any, how_many: int) -> int:
    words = part.link.data.buffer.cast("Q")
    for _ in range(how_many):
        with part.link.mutex.held(30.0):
            part.link.wait_for(lambda: words[0] > 0, 30.0)
            words[0] -= 1
    words.release()
    return how_many


@pytest.fixture
def condition() -> Any:
    with Condition.create() as condition, Memfd.create(8) as data:
        condition.data = data  # type: ignore[attr-defined]
        yield condition


def test_work_is_handed_over(condition: Any) -> None:
    with actors(condition, "a", "b", "c") as (a, b, c):
        consuming = [b.start("run", consume, 150), c.start("run", consume, 150)]
        b.until_asleep()
        a.call("run", produce, 300)
        assert [call.result() for call in consuming] == [150, 150]
        assert condition.data.buffer[0] == 0


def test_notify_all_wakes_all(condition: Any) -> None:
    with actors(condition, "a", "b", "c") as crew:
        consuming = [actor.start("run", consume, 1) for actor in crew]
        for actor in crew:
            actor.until_asleep()
        with condition.mutex.held(30.0):
            condition.data.buffer[0] = 3
            condition.notify_all()
        for call in consuming:
            call.result()


def test_a_notify_with_nobody_waiting_is_lost(condition: Any) -> None:
    with condition.mutex.held(30.0):
        condition.notify()
        with pytest.raises(TimedOut):
            condition.wait(0.02)
        assert condition.mutex.owner_pid == os.getpid()  # the mutex is held after a time-out too
        with pytest.raises(TimedOut):
            condition.wait_for(lambda: False, 0.02)


def test_waiting_without_the_mutex_is_refused(condition: Any) -> None:
    with pytest.raises(IpclabError):
        condition.wait(30.0)


def notify_and_die(part: Any) -> None:
    part.link.mutex.acquire(30.0)
    part.link.notify_all()
    os.kill(os.getpid(), signal.SIGKILL)


def wait_and_report(part: Any) -> int:
    part.link.mutex.acquire(30.0)
    try:
        part.link.wait(30.0)
    except OwnerDied as died:
        part.link.mutex.make_consistent()
        part.link.mutex.release()
        return died.pid
    return 0


def test_a_waiter_is_told_when_the_notifier_died_with_the_mutex(condition: Any) -> None:
    with actors(condition, "a", "b") as (a, b):
        waiting = b.start("run", wait_and_report)
        b.until_asleep()
        a.start("run", notify_and_die)
        assert waiting.result() == a.pid
        with condition.mutex.held(30.0):
            pass


def wait_and_repair(part: Any) -> int:
    died: list[int] = []
    with part.link.mutex.held(30.0):
        part.link.wait(30.0, repair=died.append)
    return died.pop()


def test_a_waiter_repairs_after_a_notifier_that_died_with_the_mutex(condition: Any) -> None:
    with actors(condition, "a", "b") as (a, b):
        waiting = b.start("run", wait_and_repair)
        b.until_asleep()
        a.start("run", notify_and_die)
        assert waiting.result() == a.pid
        with condition.mutex.held(30.0):
            pass


def wait_for_ever(part: Any) -> None:
    # Who is killed may hold the mutex: then the other waiter can be the next to get it.
    with part.link.mutex.held(30.0, repair=lambda pid: None):
        while True:
            part.link.wait(30.0, repair=lambda pid: None)


def test_killed_waiters_wedge_nobody() -> None:
    """What pthread_cond_t does not survive: see the page."""
    moments = random.Random(2)
    with Condition.create() as condition:

        def notify_in_turn() -> None:
            with condition.mutex.held(30.0, repair=lambda pid: None):
                moments.choice((condition.notify, condition.notify_all))()

        for _ in range(15):
            with actors(condition, "a", "b") as (a, b):
                for actor in (a, b):
                    actor.start("run", wait_for_ever)
                for _ in range(moments.randrange(1, 200)):
                    notify_in_turn()
                a.kill()
                for _ in range(20):
                    notify_in_turn()


def test_ctrl_c_ends_a_wait_and_the_mutex_is_held(condition: Any) -> None:
    with actors(condition, "a") as (a,):
        waiting = a.start("run", interrupted_wait)
        a.until_asleep()
        a.interrupt()
        assert waiting.result() is True


def interrupted_wait(part: Any) -> bool:
    with part.link.mutex.held(30.0):
        try:
            part.link.wait()
        except KeyboardInterrupt:
            return bool(part.link.mutex.owner_pid == os.getpid())
    return False


# --- barrier ----------------------------------------------------------------------------------------------------------


def arrive(part: Any, rounds: int = 1) -> list[int]:
    return [part.link.wait(30.0) for _ in range(rounds)]


def watch(part: Any, *pids: int) -> None:
    part.link.watch(*pids)


def test_all_go_on_when_the_last_has_come() -> None:
    with Barrier.create(3) as barrier, actors(barrier, "a", "b", "c") as (a, b, c):
        first = a.start("run", arrive)
        a.until_asleep()
        second = b.start("run", arrive)
        b.until_asleep()
        assert c.call("run", arrive) == [2]
        assert (first.result(), second.result()) == ([0], [1])


def test_round_after_round_each_place_is_taken_once() -> None:
    rounds = 200
    with Barrier.create(3) as barrier, actors(barrier, "a", "b", "c") as crew:
        calls = [actor.start("run", arrive, rounds) for actor in crew]
        for places in zip(*(call.result() for call in calls), strict=True):
            assert sorted(places) == [0, 1, 2]


def test_whose_time_is_over_withdraws() -> None:
    with Barrier.create(2) as barrier, actors(barrier, "a", "b") as (a, b):
        for _ in range(3):
            with pytest.raises(TimedOut):
                barrier.wait(0.01)
        first = a.start("run", arrive)
        a.until_asleep()
        assert b.call("run", arrive) == [1]
        assert first.result() == [0]


def test_a_watched_partys_death_breaks_it_for_all() -> None:
    with Barrier.create(4) as barrier, actors(barrier, "a", "b", "c") as (a, b, c):
        a.call("run", watch, c.pid)
        waiting = [actor.start("run", arrive) for actor in (a, b)]
        a.until_asleep()
        b.until_asleep()
        c.kill()
        for call in waiting:
            with pytest.raises(PeerGone):
                call.result()
        with pytest.raises(PeerGone):
            barrier.wait(0)
        barrier.reset(2)
        first = a.start("run", arrive)
        assert b.call("run", arrive) + first.result() in ([1, 0], [0, 1])


def test_a_party_dead_before_it_is_watched_counts_too() -> None:
    with Barrier.create(2) as barrier, actors(barrier, "a") as (a,):
        a.kill()
        barrier.watch(a.pid)
        with pytest.raises(PeerGone):
            barrier.wait(30.0)


def test_who_leaves_after_the_last_round_breaks_nothing_of_it() -> None:
    for _ in range(20):
        with Barrier.create(2) as barrier, actors(barrier, "a", "b") as (a, b):
            a.call("run", watch, b.pid)
            waiting = a.start("run", arrive)
            b.start("run", arrive_and_leave)
            assert len(waiting.result()) == 1


def arrive_and_leave(part: Any) -> None:
    part.link.wait(30.0)
    os._exit(0)


def test_the_watch_ends_with_the_barrier_in_this_process() -> None:
    barrier = Barrier.create(2)
    barrier.watch(os.getppid())
    assert "ipclab-barrier-watch" in {thread.name for thread in threading.enumerate()}
    barrier.close()
    barrier.close()
    assert "ipclab-barrier-watch" not in {thread.name for thread in threading.enumerate()}


def test_broken_by_hand() -> None:
    with Barrier.create(2) as barrier, actors(barrier, "a") as (a,):
        waiting = a.start("run", arrive)
        a.until_asleep()
        barrier.break_()
        with pytest.raises(PeerGone):
            waiting.result()


@pytest.mark.parametrize("parties", [-1, 0, MOST_PARTIES + 1])
def test_an_impossible_number_of_parties_is_refused(parties: int) -> None:
    with pytest.raises(UsageError):
        Barrier.create(parties)


def test_everything_can_lie_in_one_segment() -> None:
    with Memfd.create(4096) as segment:
        memory = segment.buffer
        with (
            RobustMutex.place(memory, 0) as mutex,
            Condition.place(memory, 512) as condition,
            Barrier.place(memory, 1024, 1) as barrier,
            FutexMutex.place(memory, 1088) as futex,
        ):
            with mutex.held(0), condition.mutex.held(0), futex.held(0):
                assert barrier.wait(0) == 0
            with RobustMutex.at(memory, 0) as same, same.held(0), pytest.raises(IpclabError):
                mutex.acquire(0.5)

"""Both drivers move every mechanism's messages, whatever the pattern, and say what they cannot."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ipclab import _core
from ipclab.bench import links, loops, meeting, native_driver, plan, python_driver, sample, traced
from ipclab.errors import PeerGone, TimedOut
from ipclab.mechanisms import CATALOGUE, load
from ipclab.records import Case

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclab.bench.sample import Taken
    from ipclab.mechanisms.base import End
    from ipclab.records import DriverName, Pattern

DATA = [name for name in CATALOGUE if load(name).LINK is not None]
TURNS = [name for name in CATALOGUE if hasattr(load(name), "PING_PONG")]
NEITHER = [name for name in CATALOGUE if name not in DATA and name not in TURNS]
DRIVERS: tuple[DriverName, ...] = ("native", "python")
MESSAGES = 200


def case_of(mechanism: str, driver: DriverName, pattern: Pattern, size_bytes: int = 64) -> Case:
    """On the first and the last CPU that are ours."""
    cpus = sorted(os.sched_getaffinity(0))
    rate = 20_000.0 if pattern == "openloop" else None
    return Case(
        mechanism=mechanism,
        driver=driver,
        pattern=pattern,
        size_bytes=size_bytes,
        cpus=(cpus[0], cpus[-1]),
        rate_per_s=rate,
    )


def take(case: Case, messages: int = MESSAGES) -> Taken:
    """One sample, or a skip with the driver's own reason."""
    driver = plan.driver(case.driver)
    if (reason := driver.cost_free_reason(case)) is not None:
        pytest.skip(reason)
    return sample.take(driver, sample.Order(case, 0, messages, 20, 60))


# --- every mechanism --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["throughput", "pingpong", "openloop"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("mechanism", DATA)
def test_data_is_moved(mechanism: str, driver: DriverName, pattern: Pattern) -> None:
    taken = take(case_of(mechanism, driver, pattern))
    assert taken.sample.failure == ""
    # A receiver's clock starts at its first message.
    assert taken.sample.messages == MESSAGES - (pattern == "throughput")
    assert taken.sample.duration_ns > 0
    assert taken.depth is not None
    histogram = taken.sample.histogram
    assert sum(histogram.values()) == MESSAGES if histogram is not None else pattern == "throughput"
    for side in taken.sample.sides:
        assert (side.system_calls is None) == bool(side.system_calls_reason)
        assert (side.system_calls is None) == (driver == "python" and mechanism != "ring")  # the ring counts its own


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("mechanism", TURNS)
def test_turns_are_taken(mechanism: str, driver: DriverName) -> None:
    taken = take(case_of(mechanism, driver, "pingpong", 0))
    assert taken.sample.failure == ""
    assert taken.sample.messages == MESSAGES
    assert sum((taken.sample.histogram or {}).values()) == MESSAGES


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("size_bytes", [1, 8, 23, 24, 4097, 65499])
@pytest.mark.parametrize("mechanism", ["pipe", "ring", "memfd", "udp"])
def test_sizes_at_the_borders(mechanism: str, size_bytes: int, driver: DriverName) -> None:
    taken = take(case_of(mechanism, driver, "throughput", size_bytes))
    assert taken.sample.failure == ""


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_message_is_a_sample(driver: DriverName) -> None:
    assert take(case_of("pipe", driver, "pingpong"), messages=1).sample.failure == ""


def test_the_native_driver_counts_the_systems_calls() -> None:
    sides = take(case_of("pipe", "native", "pingpong")).sample.sides
    assert [side.system_calls for side in sides] == [2 * MESSAGES, 2 * MESSAGES] or all(
        (side.system_calls or 0) >= 2 * MESSAGES
        for side in sides  # an interrupted call is made again
    )


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("mechanism", NEITHER)
def test_locks_are_refused(mechanism: str, driver: DriverName) -> None:
    reason = plan.driver(driver).cost_free_reason(case_of(mechanism, driver, "pingpong"))
    assert reason is not None
    assert "carries no data" in reason


@pytest.mark.parametrize("mechanism", TURNS)
def test_what_carries_no_data_is_refused_one_way(mechanism: str) -> None:
    if (missing := plan.driver("native").cost_free_reason(case_of(mechanism, "native", "pingpong"))) is not None:
        pytest.skip(missing)
    reason = plan.driver("native").cost_free_reason(case_of(mechanism, "native", "throughput"))
    assert reason is not None
    assert "ping-pong" in reason


def test_a_library_has_no_native_loop() -> None:
    reason = plan.driver("native").cost_free_reason(case_of("zmq-ipc", "native", "throughput"))
    assert reason is not None
    assert "only through pyzmq" in reason
    assert "python driver" in reason


@pytest.mark.parametrize("mechanism", ["udp", "posix-mq", "sysv-mq", "unix-datagram", "unix-seqpacket"])
def test_a_size_beyond_the_kernels_limit_is_refused(mechanism: str) -> None:
    reason = plan.driver("python").cost_free_reason(case_of(mechanism, "python", "throughput", 1 << 29))
    assert reason is not None
    assert "\n" not in reason


def test_every_mechanism_without_a_native_loop_is_known_as_one() -> None:
    # `take` would be needed to ask an end: the table is checked here, so that a driver need not.
    for mechanism in DATA:
        reason = plan.driver("native").cost_free_reason(case_of(mechanism, "native", "throughput"))
        if reason is None:
            assert mechanism not in links.NOT_NATIVE


# --- windows: what drops messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 100])
def test_a_window_is_never_overrun(window: int, count: int) -> None:
    under_way: list[bytes] = []
    answers: list[bytes] = []
    most = 0

    class Sender:
        def send(self, data: bytearray) -> None:
            nonlocal most
            under_way.append(bytes(data))
            most = max(most, len(under_way))

        def recv_into(self, buffer: bytearray) -> int:
            # The receiver works only when it must: what it has answered then is all that may be counted on.
            while not answers:
                receiver.step()
            buffer[:] = answers.pop(0)
            return len(buffer)

    class Receiver:
        def __init__(self) -> None:
            self.taken = 0

        def step(self) -> None:
            assert _core.message_check(bytearray(under_way.pop(0)), self.taken)
            self.taken += 1
            if not self.taken % max(1, window // 2):
                answers.append(b"\0" * 32)

    receiver = Receiver()
    log = loops.Log(0)
    loops.send_in_windows(cast("End", Sender()), 32, 0, count, log, window)
    assert log.messages == count
    assert most <= max(2, window)
    assert answers == [], "an answer left over would be taken for one of the next loop"


# --- the deadline, and a side that fails ------------------------------------------------------------------------------


def test_the_timer_ends_what_waits_in_posix_ipc() -> None:
    # It loses exceptions of signal handlers, but for KeyboardInterrupt.
    link = load("posix-mq").LINK
    assert link is not None
    before = signal.getsignal(signal.SIGALRM)
    with meeting.Meeting() as page, link.open(message_bytes=64, depth=1) as made, made.take("a") as end:
        with pytest.raises(python_driver.Stop), python_driver.ticking(time.monotonic_ns(), page):
            end.recv_into(bytearray(64))
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_who_meets_nobody_is_told_so_at_the_deadline() -> None:
    with meeting.Meeting() as page, pytest.raises(TimedOut):
        page.join(0, time.monotonic_ns())


def test_who_has_failed_is_not_waited_for() -> None:
    with meeting.Meeting() as page:
        page.fail()
        assert page.broken()
        with pytest.raises(PeerGone):
            page.join(0, time.monotonic_ns() + 60 * 10**9)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_the_loops_own_cost_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only these calls move: the bare call takes 1000 ns, verification 1 ns a byte."""
    now_ns = 0

    def taking(call: Callable[..., Any], cost_ns: Callable[[Any], int]) -> Callable[..., Any]:
        def timed(buffer: Any, sequence: int) -> Any:
            nonlocal now_ns
            now_ns += cost_ns(buffer)
            return call(buffer, sequence)

        return timed

    monkeypatch.setattr(_core, "message_stamp", taking(_core.message_stamp, lambda _buffer: 1000))
    monkeypatch.setattr(_core, "message_check", taking(_core.message_check, len))
    monkeypatch.setattr(loops, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(python_driver, "time", SimpleNamespace(monotonic_ns=lambda: now_ns))
    assert [python_driver.overhead_ns(size, 100) for size in (64, 4096)] == [64, 4096]


def test_system_calls_are_counted_by_tracing() -> None:
    found = traced.trace(python_driver.DRIVER, case_of("pipe", "python", "pingpong"), messages=100)
    if found.per_message is None:
        assert found.reason
        pytest.skip(found.reason)
    # Two reads and two writes; one may have been interrupted and made again.
    assert 4.0 <= found.per_message < 4.5
    assert set(found.calls) <= {"read", "readv", "write", "poll"}


def test_without_strace_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = traced.trace(native_driver.DRIVER, case_of("pipe", "native", "pingpong"))
    assert (found.per_message, found.reason) == (None, "not counted: strace is not installed")


def test_a_case_that_cannot_be_traced_says_why() -> None:
    found = traced.trace(native_driver.DRIVER, case_of("zmq-ipc", "native", "pingpong"), messages=10)
    assert found.per_message is None
    assert "pyzmq" in found.reason or "strace" in found.reason


def test_straces_table_is_read() -> None:
    table = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 44.58    0.000144          18         8           mmap\n"
        " 21.67    0.000070          23         3         2 poll\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000214                    11         2 total\n"
    )
    assert traced.parse(table) == {"mmap": 8, "poll": 3}

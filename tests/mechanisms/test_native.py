"""The native loops over every mechanism, between two processes: all patterns, planted faults, deadlines, kills.

The same cases for every mechanism with a LINK whose ends say how the core moves their messages, and ping-pong for those
with a PING_PONG. A new mechanism is here by being in the catalogue.
"""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from actors import Part, pair

from ipclab import _core
from ipclab.errors import PeerGone, TimedOut, Unavailable
from ipclab.mechanisms import CATALOGUE, load
from ipclab.mechanisms.base import Bell, PingPong

DATA = [name for name, path in CATALOGUE.items() if path.startswith(("data.", "shared."))]
#: Only their Python libraries speak to them.
LIBRARIES = {"zmq-ipc", "zmq-tcp"}
NATIVE = [name for name in DATA if name not in LIBRARIES]
BELLS = [name for name in CATALOGUE if getattr(load(name), "PING_PONG", None)]
SIZE = 64
#: "Only reached in case of a deadlock."
DEADLINE_S = 60


def working(name: str) -> Any:
    module = load(name)
    probe = module.probe()
    if not probe.works:
        pytest.skip(f"{name}: {probe.reason}")
    return module


@pytest.fixture(params=NATIVE)
def link(request: pytest.FixtureRequest) -> Iterator[Any]:
    with working(request.param).LINK.open(message_bytes=4096, depth=16) as link:
        yield link


@pytest.fixture(params=BELLS)
def turns(request: pytest.FixtureRequest) -> Iterator[PingPong]:
    with working(request.param).PING_PONG.open() as turns:
        yield turns


# --- what the actors do -----------------------------------------------------------------------------------------------


def loop(part: Part, pattern: str, *args: Any, numbers: dict[str, int] | None = None, **names: Any) -> tuple[int, ...]:
    """One loop of a carrier that lasts as long as the actor; its counts, or (-errno, messages) where it failed."""
    carrier = getattr(part, "carrier", None)
    if carrier is None:
        spec = part.end.native()
        carrier = part.carrier = _core.Carrier(*spec._replace(numbers=spec.numbers | (numbers or {})))  # type: ignore[attr-defined]
    names.setdefault("deadline_ns", time.monotonic_ns() + DEADLINE_S * 10**9)
    try:
        return tuple(getattr(carrier, pattern)(*args, **names))
    except OSError as err:
        return (-(err.errno or 0), err.counts.messages)  # type: ignore[attr-defined]


def spun(part: Part, pattern: str, *args: Any) -> tuple[int, ...]:
    return loop(part, pattern, *args, numbers={"spin_only": 1})


def in_place(part: Part, pattern: str, *args: Any) -> tuple[int, ...]:
    return loop(part, pattern, *args, numbers={"in_place": 1})


def measured(part: Part, pattern: str, *args: Any, **names: Any) -> tuple[int, int]:
    """A loop with a histogram: messages, and how many durations were recorded."""
    histogram = _core.Histogram()
    if pattern == "ping":
        counts = loop(part, pattern, *args, histogram, **names)
    else:
        counts = loop(part, pattern, *args, histogram=histogram, **names)
    return counts[0], histogram.count


def close(part: Part) -> None:
    carrier = getattr(part, "carrier", None)
    if carrier is not None:
        carrier.close()
    part.end.close()


def send_stamped(part: Part, numbers: list[int], spoil: int = -1, shorten: int = -1) -> None:
    """By Python: messages with these sequence numbers; the one at index `spoil` has a bit wrong, `shorten` is short."""
    message = bytearray(SIZE)
    _core.message_fill(message)
    for at, number in enumerate(numbers):
        _core.message_stamp(message, number)
        sent = bytearray(message)
        if at == spoil:
            sent[40] ^= 4
        part.end.send(sent[:-1] if at == shorten else sent, 30.0)


# --- the patterns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, SIZE, 4096])
def test_one_way(link: Any, size: int) -> None:
    with pair(link) as (a, b):
        sending = a.start("run", loop, "send", size, 500)
        messages, duration_ns, calls, _, _, bad = b.call("run", loop, "receive", size, 500)
        assert sending.result()[0] == messages == 500
        assert bad == -1
        assert duration_ns > 0
        assert calls >= 500 or link.name in ("ring", "posix-shm", "sysv-shm", "memfd", "mmap-file")


def test_warmed_up_and_in_both_directions(link: Any) -> None:
    """Loops follow each other over the same carriers: other sizes, other numbers, the other way."""
    with pair(link) as (a, b):
        for sender, receiver in ((a, b), (b, a), (a, b)):
            for size, first, count in ((SIZE, 0, 50), (SIZE, 50, 200), (1000, 0, 100)):
                sending = sender.start("run", loop, "send", size, count, first)
                assert receiver.call("run", loop, "receive", size, count, first)[::5] == (count, -1)
                assert sending.result()[0] == count
            playing = sender.start("run", loop, "pong", SIZE, 20)
            assert receiver.call("run", measured, "ping", SIZE, 20) == (20, 20)
            playing.result()


def test_ping_pong(link: Any) -> None:
    with pair(link) as (a, b):
        playing = b.start("run", loop, "pong", SIZE, 200)
        assert a.call("run", measured, "ping", SIZE, 200) == (200, 200)
        assert playing.result()[::5] == (200, -1)
        playing = b.start("run", loop, "pong", SIZE, 20)
        assert a.call("run", loop, "ping", SIZE, 20)[::5] == (20, -1)  # without a histogram
        playing.result()


@pytest.mark.parametrize("spin_ns", [0, 10**12])
def test_on_a_schedule(link: Any, spin_ns: int) -> None:
    start_ns = time.monotonic_ns()
    with pair(link) as (a, b):
        sending = a.start("run", loop_on_schedule, start_ns, 20_000, spin_ns)
        assert b.call("run", measured, "receive_on_schedule", SIZE, 300, start_ns, 20_000) == (300, 300)
        messages, duration_ns, *_ = sending.result()
        assert messages == 300
        assert duration_ns >= 0


def loop_on_schedule(part: Part, start_ns: int, interval_ns: int, spin_ns: int) -> tuple[int, ...]:
    return loop(part, "send_on_schedule", SIZE, 300, start_ns, interval_ns, spin_ns=spin_ns)


@pytest.mark.parametrize("name", ["ring", "memfd"])
def test_read_where_it_lies(name: str) -> None:
    with working(name).LINK.open(message_bytes=4096, depth=3) as link, pair(link) as (a, b):
        sending = a.start("run", loop, "send", 4096, 200)
        assert b.call("run", in_place, "receive", 4096, 200)[::5] == (200, -1)
        sending.result()


def test_a_ring_that_only_spins() -> None:
    with working("ring").LINK.open() as link, pair(link) as (a, b):
        playing = b.start("run", spun, "pong", SIZE, 20)
        messages, _, calls, sleeps, wakes, bad = a.call("run", spun, "ping", SIZE, 20)
        assert (messages, calls, sleeps, wakes, bad) == (20, 0, 0, 0, -1)
        assert playing.result()[:1] == (20,)


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_libraries_say_why_not(name: str) -> None:
    with working(name).LINK.open() as link, pair(link, watch=False) as (a, b):
        asked = [actor.start("run", loop, "send", SIZE, 1) for actor in (a, b)]
        for call in asked:
            with pytest.raises(Unavailable, match="only through pyzmq"):
                call.result()


def test_native_after_python(link: Any) -> None:
    """What Python has sent before is received by Python first; then the loops go on."""
    with pair(link) as (a, b):
        for number in range(3):
            sending = a.start("send", bytes([number]) * 8)
            assert b.call("recv", 8) == bytes([number]) * 8
            sending.result()
        sending = a.start("run", loop, "send", SIZE, 40)
        assert b.call("run", loop, "receive", SIZE, 40)[::5] == (40, -1)
        sending.result()


# --- planted faults: sent by Python, found by the loop ----------------------------------------------------------------

#: What is sent in place of 0 .. 5, and the number of the first message that is wrong.
FAULTS = {
    "dropped": ({"numbers": [0, 1, 3, 4, 5]}, 2),
    "reordered": ({"numbers": [0, 1, 3, 2, 4, 5]}, 2),
    "repeated": ({"numbers": [0, 1, 1, 2, 3, 4]}, 2),
    "corrupted": ({"numbers": [0, 1, 2, 3, 4, 5], "spoil": 3}, 3),
    "truncated": ({"numbers": [0, 1, 2, 3, 4, 5], "shorten": 4}, 4),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_message_is_named(link: Any, fault: str) -> None:
    if link.name == "udp":
        pytest.skip("Python's datagrams have a header that the native ones do not need")
    (plan, wrong) = FAULTS[fault]
    with pair(link) as (a, b):
        receiving = b.start("run", loop, "receive", SIZE, 6)
        a.start("run", send_planned, plan)
        messages, *_, bad = receiving.result()
        assert (messages, bad) == (wrong, wrong)


def send_planned(part: Part, plan: dict[str, Any]) -> None:
    send_stamped(part, **plan)


# --- ends ------------------------------------------------------------------------------------------------------------


def test_a_deadline_ends_each_loop(link: Any) -> None:
    with pair(link) as (a, b):
        for actor, pattern in ((a, "receive"), (b, "pong"), (a, "ping")):
            counts = actor.call("run", loop_until_soon, pattern, SIZE)
            assert counts[0] == 0
            assert counts[5] == -1


def loop_until_soon(part: Part, pattern: str, size: int) -> tuple[int, ...]:
    return loop(part, pattern, size, 10, deadline_ns=time.monotonic_ns() + 30_000_000)


def test_kill_9_of_the_sender(link: Any) -> None:
    """What it has sent is received; then comes an error, long before the deadline."""
    with pair(link) as (a, b):
        if link.name == "process-vm":  # its sender waits for each to be taken
            a.start("run", loop, "send", SIZE, 3)
            a.until_asleep()
        else:
            a.call("run", loop, "send", SIZE, 3)
        receiving = b.start("run", loop, "receive", SIZE, 100)
        a.kill()
        number, messages = receiving.result()
        assert -number in GONE
        assert messages == 3 or (link.name == "process-vm" and messages < 3)


#: How an end can learn it. EOWNERDEAD: by its watch.
GONE = {errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.EOWNERDEAD, errno.ESRCH}


def test_kill_9_of_the_receiver(link: Any) -> None:
    with pair(link) as (a, b):
        sending = a.start("run", loop, "send", 4096, 1 << 40)
        assert b.call("run", loop, "receive", 4096, 10)[0] == 10
        b.kill()
        number, messages = sending.result()
        assert -number in GONE
        assert messages >= 9


def test_kill_9_of_the_partner(link: Any) -> None:
    with pair(link) as (a, b):
        playing = a.start("run", loop, "ping", SIZE, 1 << 40)
        assert b.call("run", loop, "pong", SIZE, 10)[0] == 10
        b.kill()
        assert -playing.result()[0] in GONE


def test_ctrl_c_ends_a_loop(link: Any) -> None:
    with pair(link) as (a, b):
        receiving = b.start("run", loop, "receive", SIZE, 1)
        b.until_asleep()
        b.interrupt()
        with pytest.raises(KeyboardInterrupt):
            receiving.result()
        assert a.call("limit") == b.call("limit")  # both are well


def test_closing_leaves_nothing(link: Any) -> None:
    with pair(link) as (a, b):
        sending = a.start("run", loop, "send", SIZE, 10)
        b.call("run", loop, "receive", SIZE, 10)
        sending.result()
        for actor in (a, b):
            actor.call("run", close)
            actor.call("close_link")
            actor.leave()


# --- those without data -----------------------------------------------------------------------------------------------


def ring_and_wait(part: Any, count: int) -> None:
    for _ in range(count):
        part.end.ring()
        part.end.wait(DEADLINE_S)


def wait_and_ring(part: Any, count: int) -> None:
    for _ in range(count):
        part.end.wait(DEADLINE_S)
        part.end.ring()


def test_bells_by_python(turns: Any) -> None:
    with pair(turns) as (a, b):
        answering = b.start("run", wait_and_ring, 50)
        a.call("run", ring_and_wait, 50)
        answering.result()
        for actor in (a, b):
            actor.call("run", close)
            actor.call("close_link")
            actor.leave()


def test_bells_by_the_core(turns: Any) -> None:
    with pair(turns) as (a, b):
        playing = b.start("run", loop, "pong", SIZE, 200)
        assert a.call("run", measured, "ping", SIZE, 200) == (200, 200)
        assert playing.result()[::5] == (200, -1)
        with pytest.raises(ValueError, match="ping and pong only"):
            a.call("run", loop, "send", SIZE, 1)
        for actor in (a, b):
            actor.call("run", close)


def test_a_bell_that_nobody_rings(turns: Any) -> None:
    with pair(turns) as (a, b):
        with pytest.raises(TimedOut):
            a.call("run", wait_and_ring_soon)
        assert b.call("run", loop_until_soon, "pong", SIZE)[0] == 0


def wait_and_ring_soon(part: Any) -> None:
    bell: Bell = part.end
    bell.wait(0.01)


@pytest.mark.parametrize("native", [True, False])
def test_kill_9_of_whoever_rings(turns: Any, native: bool) -> None:
    with pair(turns) as (a, b):
        waiting = b.start("run", loop, "pong", SIZE, 1) if native else b.start("run", wait_and_ring, 1)
        b.until_asleep()
        a.kill()
        if native:
            assert -waiting.result()[0] in GONE
        else:
            with pytest.raises(PeerGone):
                waiting.result()


def test_a_partner_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipclab.mechanisms.signals._bell.MEET_S", 0.01)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with working("signal").PING_PONG.open() as turns, pytest.raises(TimedOut, match="has not been taken"):
        turns.take("a")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before

"""One behaviour suite for everything that carries data: what base.py promises, each mechanism has to keep.

Every case runs for every mechanism of the catalogue that has a LINK, between processes forked from the one that opened
the link and that keeps it open. A new mechanism is in the suite by being in the catalogue.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from actors import Actor, actors, pair
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ipclab.errors import BufferTooSmall, IpclabError, MessageTooLarge, NoRoom, PeerGone, TimedOut
from ipclab.mechanisms import CATALOGUE, load
from ipclab.processes import journal, registry, removal
from ipclab.processes.journal import Fact

NAMES = [name for name, path in CATALOGUE.items() if path.startswith(("data.", "shared."))]

#: Where the kernel itself tells an end that the other one is gone, also when it only closed and its process lives on.
KERNEL_TELLS = {"pipe", "vmsplice", "fifo", "unix-stream", "unix-seqpacket", "tcp", "fd-passing", "process-vm"}

#: The largest message that is sent in earnest: some limits are gigabytes.
LARGEST = 16 << 20
#: What is sent through a byte stream, which has no largest.
STREAM_LARGEST = 1 << 20
#: More than any stream holds: the kernel's socket buffers end at some megabytes.
FLOOD = 32 << 20


@pytest.fixture(params=NAMES)
def mechanism(request: pytest.FixtureRequest) -> Any:
    """A mechanism's module; skips where it does not work, with the reason it gives."""
    module = load(request.param)
    probe = module.probe()
    if not probe.works:
        pytest.skip(f"{request.param}: {probe.reason}")
    return module


@pytest.fixture
def link(mechanism: Any) -> Iterator[Any]:
    with mechanism.LINK.open() as link:
        yield link


@pytest.fixture
def kind(mechanism: Any, link: Any) -> SimpleNamespace:
    """What the cases have to know of it."""
    return SimpleNamespace(
        name=mechanism.MECHANISM.name,
        stream=not mechanism.MECHANISM.boundaries,
        lossy=getattr(link, "lossy", False),
        tells=mechanism.MECHANISM.name in KERNEL_TELLS,
    )


def count_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def payload(size: int, seed: int = 0) -> bytes:
    return random.Random(size * 31 + seed).randbytes(size)


def largest(kind: SimpleNamespace, actor: Actor) -> int:
    limit: int | None = actor.call("limit")[0]
    if kind.stream:
        assert limit is None
        return STREAM_LARGEST
    assert limit
    return min(limit, LARGEST)


def transfer(sender: Actor, receiver: Actor, data: bytes) -> bytes:
    """One message, sent while the receiver receives."""
    receiving = receiver.start("recv", len(data))
    sender.call("send", data)
    received: bytes = receiving.result()
    return received


def until_blocked_in_send(kind: SimpleNamespace, actor: Actor) -> Any:
    """Have it send more than anybody holds; the call is still running."""
    size = FLOOD if kind.stream else min(largest(kind, actor), 65536)
    call = actor.start("send_for_ever", bytes(size))
    actor.until_asleep()
    return call


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["a", "b"])
@pytest.mark.parametrize("which", ["empty", "one byte", "largest"])
def test_a_message_arrives_whole(link: Any, kind: SimpleNamespace, sender: str, which: str) -> None:
    with pair(link) as (a, b):
        size = {"empty": 0, "one byte": 1, "largest": largest(kind, a)}[which]
        data = payload(size)
        assert (transfer(a, b, data) if sender == "a" else transfer(b, a, data)) == data


def test_a_message_too_large_names_the_limit_and_is_not_sent(link: Any, kind: SimpleNamespace) -> None:
    if kind.stream:
        pytest.skip("a byte stream has no messages, so none is too large")
    with pair(link) as (a, b):
        limit, source = a.call("limit")
        with pytest.raises(MessageTooLarge) as caught:
            a.call("send_too_large")
        assert (caught.value.limit_bytes, caught.value.size_bytes) == (limit, limit + 1)
        assert source
        assert str(limit) in str(caught.value)
        with pytest.raises(TimedOut):
            b.call("recv", 100, 0.05)
        assert transfer(a, b, b"the next one") == b"the next one"


def test_a_size_the_kernel_has_no_message_for_is_a_wish_and_memory_a_demand(mechanism: Any) -> None:
    wanted = 1 << 40
    if mechanism.MECHANISM.family == "shared memory":
        with pytest.raises((NoRoom, MessageTooLarge)):
            mechanism.LINK.open(message_bytes=wanted, depth=2)
        return
    with mechanism.LINK.open(message_bytes=wanted, depth=2) as link, pair(link) as (a, b):
        limit, source = a.call("limit")
        assert limit is None or (0 < limit <= wanted and source)
        assert transfer(a, b, b"all the same") == b"all the same"


def test_messages_stay_in_order_both_ways_at_once(link: Any, kind: SimpleNamespace) -> None:
    with pair(link) as (a, b):
        rng = random.Random(1)
        biggest = min(largest(kind, a), 3000)
        messages = [payload(rng.choice((0, 1, rng.randrange(biggest))), seed) for seed in range(300)]
        rooms = [len(m) for m in messages] if kind.stream else [biggest] * len(messages)
        window = 4 if kind.lossy else len(messages)
        echo = b.start("echo", rooms)
        for at in range(0, len(messages), window):
            if kind.lossy or kind.name in ("sysv-mq", "process-vm"):  # no room for both directions at once
                for message, room in zip(messages[at : at + window], rooms[at : at + window], strict=True):
                    a.call("send", message)
                    assert a.call("recv", room) == message
            else:
                assert a.call("exchange", messages, rooms) == messages
        echo.result()


def test_boundaries_are_kept_or_not_as_the_record_says(link: Any, kind: SimpleNamespace) -> None:
    with pair(link) as (a, b):
        sending = a.start("send_all", [b"one", b"two"])
        first = b.call("recv", 3 if kind.stream else 6)  # a stream would fill the six with both
        second = b.call("recv", 3)
        sending.result()
        assert (first, second) == (b"one", b"two")


def test_a_buffer_too_small_loses_nothing(link: Any, kind: SimpleNamespace) -> None:
    if kind.stream:
        pytest.skip("a byte stream fills any buffer")
    with pair(link) as (a, b):
        sending = a.start("send_all", [b"0123456789", b"next"])
        for room in (9, 0):
            with pytest.raises(BufferTooSmall, match="10"):
                b.call("recv", room)
        assert b.call("recv", 10) == b"0123456789"
        assert b.call("recv", 10) == b"next"
        sending.result()


def test_a_buffer_larger_than_the_message_is_left_alone_behind_it(link: Any, kind: SimpleNamespace) -> None:
    with pair(link) as (a, b):
        sending = a.start("send", b"abc")
        assert b.call("run", receive_into_marked_buffer, 3 if kind.stream else 6) in ((3, b"abc"), (3, b"abc###"))
        sending.result()


def receive_into_marked_buffer(part: Any, room: int) -> tuple[int, bytes]:
    buffer = bytearray(b"#" * room)
    size = part.end.recv_into(buffer, 30.0)
    buffer.extend(b"!")  # fails while anybody still holds a view of it
    return size, bytes(buffer[:-1])


def test_any_buffer_can_be_sent_and_received_into(link: Any) -> None:
    with pair(link) as (a, b):
        sending = a.start("run", send_odd_buffers)
        assert b.call("run", receive_into_odd_buffer) == b"\x01\x00\x02\x00"
        assert b.call("recv", 3) == b"xyz"
        sending.result()


def send_odd_buffers(part: Any) -> None:
    from array import array

    part.end.send(array("H", [1, 2]), 30.0)
    part.end.send(memoryview(bytearray(b"wxyz"))[1:], 30.0)


def receive_into_odd_buffer(part: Any) -> bytes:
    from array import array

    buffer = array("I", [0])
    assert part.end.recv_into(buffer, 30.0) == 4
    with pytest.raises((TypeError, BufferError)):
        part.end.recv_into(b"read-only", 0.0)
    return buffer.tobytes()


def test_messages_of_every_length(mechanism: Any) -> None:
    """Lengths hypothesis comes up with, several messages under way at once; one pair serves all examples."""
    with mechanism.LINK.open() as link, pair(link) as (a, b):
        stream = not mechanism.MECHANISM.boundaries
        limit = a.call("limit")[0] or STREAM_LARGEST
        biggest = min(limit, 20_000)

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(st.integers(0, biggest) | st.sampled_from((0, 1, 4095, 4096, 4097, biggest)), max_size=4))
        def check(lengths: list[int]) -> None:
            messages = [payload(min(length, biggest), at) for at, length in enumerate(lengths)]
            receiving = b.start("recv_all", [len(m) if stream else biggest for m in messages])
            a.call("send_all", messages)
            assert receiving.result() == messages

        check()


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_s", [0, 0.05])
def test_receiving_from_an_empty_link_times_out(link: Any, timeout_s: float) -> None:
    with pair(link) as (a, b):
        for _ in range(2):
            with pytest.raises(TimedOut) as caught:
                b.call("recv", 10, timeout_s)
            assert isinstance(caught.value, TimeoutError)
        assert transfer(a, b, b"after all") == b"after all"


def test_sending_into_a_full_link_times_out(link: Any, kind: SimpleNamespace) -> None:
    if kind.lossy:
        pytest.skip("never full: what finds no room is dropped")
    with pair(link) as (a, b):
        if kind.stream:
            with pytest.raises(TimedOut, match="broken"):
                a.call("send", bytes(FLOOD), 0.2)
            with pytest.raises(IpclabError, match="broken"):
                a.call("send", b"x")
            return
        size = min(largest(kind, a), 65536)
        sent = a.call("send_until_full", payload(size), 0.2)
        assert b.call("recv_all", [size] * sent) == [payload(size)] * sent
        with pytest.raises(TimedOut):  # what had timed out was not sent
            b.call("recv", size, 0.05)
        assert transfer(a, b, b"room again") == b"room again"


def test_ctrl_c_ends_a_receive_at_once(link: Any) -> None:
    with pair(link) as (_, b):
        receiving = b.start("recv", 10)
        b.until_asleep()
        b.interrupt()
        with pytest.raises(KeyboardInterrupt):
            receiving.result()
        b.call("close")


def test_ctrl_c_ends_a_receive_without_a_watched_peer(link: Any) -> None:
    with pair(link, watch=False) as (_, b):
        receiving = b.start("recv", 10)
        b.until_asleep()
        b.interrupt()
        with pytest.raises(KeyboardInterrupt):
            receiving.result()


def test_ctrl_c_ends_a_send_into_a_full_link_and_no_message_is_cut(link: Any, kind: SimpleNamespace) -> None:
    if kind.lossy:
        pytest.skip("never full: what finds no room is dropped")
    with pair(link) as (a, b):
        sending = until_blocked_in_send(kind, a)
        a.interrupt()
        with pytest.raises(KeyboardInterrupt):
            sending.result()
        if kind.stream:
            with pytest.raises(IpclabError, match="broken"):
                a.call("send", b"x")
            return
        size = min(largest(kind, a), 65536)
        assert b.call("run", receive_what_is_there, size) <= {size}
        a.call("close")


def receive_what_is_there(part: Any, room: int) -> set[int]:
    """The lengths of all messages under way."""
    lengths = set()
    buffer = bytearray(room)
    while True:
        try:
            lengths.add(part.end.recv_into(buffer, 0.1))
        except TimedOut:
            return lengths


def test_a_handled_signal_does_not_end_a_receive(link: Any) -> None:
    """EINTR is not seen by the caller."""
    with pair(link, watch=False) as (a, b):
        b.call("run", handle_sigusr1)
        receiving = b.start("recv", 5)
        for _ in range(3):
            b.until_asleep()
            os.kill(b.pid, signal.SIGUSR1)
        b.until_asleep()
        a.call("send", b"hello")
        assert receiving.result() == b"hello"
        assert b.call("run", handled_signals) >= 1


def handle_sigusr1(part: Any) -> None:
    part.signals = []
    signal.signal(signal.SIGUSR1, lambda signo, frame: part.signals.append(signo))


def handled_signals(part: Any) -> int:
    return len(part.signals)


# --- ends that go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_killed_peer_ends_a_receive(link: Any, victim: str) -> None:
    with pair(link) as (a, b):
        dying, waiting = (a, b) if victim == "a" else (b, a)
        receiving = waiting.start("recv", 10)
        waiting.until_asleep()
        dying.kill()
        with pytest.raises(PeerGone):
            receiving.result()


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_killed_peer_ends_a_send_into_a_full_link(link: Any, kind: SimpleNamespace, victim: str) -> None:
    if kind.lossy:
        pytest.skip("never full: what finds no room is dropped")
    with pair(link) as (a, b):
        dying, waiting = (a, b) if victim == "a" else (b, a)
        sending = until_blocked_in_send(kind, waiting)
        dying.kill()
        with pytest.raises(PeerGone):
            sending.result()


def test_the_kernel_tells_of_a_killed_peer(link: Any, kind: SimpleNamespace) -> None:
    """Without `watch`, although the process that opened the link lives and holds it."""
    if not kind.tells:
        pytest.skip("the kernel tells nobody: see `watch`")
    with pair(link, watch=False) as (a, b):
        receiving = b.start("recv", 10)
        b.until_asleep()
        a.kill()
        with pytest.raises(PeerGone):
            receiving.result()
        with pytest.raises(PeerGone):
            b.call("send_for_ever", b"x" * 1000)


@pytest.mark.parametrize("how", ["kill", "leave"])
def test_what_a_peer_had_sent_arrives_before_its_end(link: Any, kind: SimpleNamespace, how: str) -> None:
    if kind.name == "process-vm":
        pytest.skip("a send is a meeting: nothing is ever under way")
    with pair(link) as (a, b):
        a.call("send_all", [b"first", b"second"])
        if how == "leave":
            a.call("close")
            a.leave()
        elif kind.name.startswith("zmq"):
            pytest.skip("ZeroMQ sends from a thread of the process: a kill loses what it had not sent yet")
        a.kill()
        assert b.call("recv_all", [5, 6]) == [b"first", b"second"]
        with pytest.raises(PeerGone):
            b.call("recv", 6)


def test_an_orderly_close_is_told(link: Any, kind: SimpleNamespace) -> None:
    """Although the process that closed lives on."""
    if not kind.tells:
        pytest.skip("the kernel tells nobody: see `watch`")
    with pair(link, watch=False) as (a, b):
        receiving = b.start("recv", 10)
        b.until_asleep()
        a.call("close")
        with pytest.raises(PeerGone):
            receiving.result()


def test_closing_twice_is_allowed_and_closed_means_closed(link: Any) -> None:
    with pair(link) as (a, _):
        a.call("close")
        a.call("close")
        with pytest.raises(IpclabError):
            a.call("send", b"x", 1.0)
        with pytest.raises(IpclabError):
            a.call("recv", 1, 1.0)


def test_an_end_gives_every_descriptor_back(link: Any) -> None:
    with actors(link, "a", "b") as (a, b):
        before = a.call("count_fds")
        for call in [actor.start("take", actor.side) for actor in (a, b)]:
            call.result()
        a.call("watch", b.pid)
        a.call("watch", b.pid)
        assert transfer(a, b, b"x") == b"x"
        a.call("close")
        a.call("close_link")
        assert a.call("count_fds") <= before


def test_poll_tells_when_a_message_is_there(link: Any, kind: SimpleNamespace) -> None:
    with pair(link) as (a, b):
        if b.call("readable", 0) is None:
            pytest.skip("has no descriptor to wait on")
        if kind.name.startswith("zmq"):
            pytest.skip("ZeroMQ's descriptor is edge-triggered: see its text")
        assert not b.call("readable", 0)
        sending = a.start("send", b"here")
        assert b.call("readable", 30.0)
        assert b.call("recv", 4) == b"here"
        sending.result()
        assert not b.call("readable", 0)


# --- nothing is left --------------------------------------------------------------------------------------------------


def journalled() -> list[Fact]:
    """The named objects this process has made and not removed, as its journal has them."""
    return list(registry._mine.facts) if registry._mine is not None else []


def still_there(facts: list[Fact]) -> list[Fact]:
    """Which of them the kernel still knows. (Only ours are asked for: others may be at work on this machine.)"""
    folder = journal.folder_path()
    return [f for f in facts if ((folder / f.name).exists() if f.kind == "path" else removal.exists(*f))]


def test_closing_the_link_removes_every_name(mechanism: Any) -> None:
    fds = count_fds()
    with mechanism.LINK.open() as link, pair(link) as (a, b):
        made = journalled()
        assert still_there(made) == made
        assert transfer(a, b, b"x") == b"x"
    assert not still_there(made)
    assert not journalled()
    link.close()
    assert count_fds() == fds


def test_named_objects_are_journalled(mechanism: Any) -> None:
    """All that outlive a process go through the registry; the others have no name at all."""
    with mechanism.LINK.open():
        assert bool(journalled()) == (mechanism.MECHANISM.lifetime != "process")


def test_a_link_nobody_took_is_closed_without_a_trace(mechanism: Any) -> None:
    fds = count_fds()
    for _ in range(3):
        link = mechanism.LINK.open()
        made = journalled()
        link.close()
        assert not still_there(made)
    assert not journalled()
    assert count_fds() == fds


def test_a_side_that_is_never_taken_keeps_nobody_from_closing(mechanism: Any) -> None:
    with mechanism.LINK.open() as link, actors(link, "a") as (a,):
        made = journalled()
        a.start("take", "a")  # a connecting kind waits in it
    assert not still_there(made)
    assert not journalled()


def test_what_a_killed_opener_leaves_is_cleaned(mechanism: Any) -> None:
    with mechanism.LINK.open() as own, actors(own, "a") as (opener,):
        made = opener.call("run", open_another, mechanism.MECHANISM.name)
        assert still_there(made) == made
        opener.kill()
    cleaned = {left.name for left in registry.clean()}
    assert len(cleaned) >= len(made)
    assert not still_there(made)


def open_another(part: Any, name: str) -> list[Fact]:
    link = load(name).LINK
    assert link
    part.another = link.open()
    return journalled()


def test_the_opener_may_be_one_of_the_two(link: Any) -> None:
    with actors(link, "b") as (b,):
        taking = b.start("take", "b")
        with link.take("a") as end:
            taking.result()
            end.watch(b.pid)
            b.call("watch", os.getpid())
            echo = b.start("echo", [4])
            end.send(b"ping", 30.0)
            buffer = bytearray(4)
            assert end.recv_into(buffer, 30.0) == 4
            assert buffer == b"ping"
            echo.result()
            b.kill()
            with pytest.raises(PeerGone):
                end.recv_into(buffer, 30.0)


def test_probe_and_limits_leave_nothing(mechanism: Any) -> None:
    fds = count_fds()
    assert mechanism.probe().works
    limits = mechanism.limits()
    assert all(limit.source and limit.unit and limit.name for limit in limits)
    assert not journalled()
    assert count_fds() == fds

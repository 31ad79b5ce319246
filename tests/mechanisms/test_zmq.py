"""What is particular to ZeroMQ: ends that are seen, strangers, threads, its descriptor. The rest is in the suite."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from actors import DEADLINE_S, actors, pair

from ipclab.errors import PeerGone, TimedOut, UsageError
from ipclab.mechanisms.data import _loopback, _zmq, zmq_ipc, zmq_tcp

zmq = pytest.importorskip("zmq")

BOTH = [zmq_ipc, zmq_tcp]


@pytest.fixture(params=BOTH, ids=lambda module: module.MECHANISM.name)
def link(request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param.LINK.open(message_bytes=1000, depth=4) as link:
        yield link


def receive(end: Any, room: int = 1000, timeout_s: float = DEADLINE_S) -> bytes:
    buffer = bytearray(room)
    return bytes(buffer[: end.recv_into(buffer, timeout_s)])


def until(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.005)


# --- ends that go, without `watch` ------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["a", "b"])
@pytest.mark.parametrize("how", ["kill", "close"])
def test_a_receiver_is_told(link: Any, victim: str, how: str) -> None:
    with pair(link, watch=False) as (a, b):
        going, waiting = (a, b) if victim == "a" else (b, a)
        going.call("send", b"hello")
        assert waiting.call("recv", 100) == b"hello"  # so they have met
        receiving = waiting.start("recv", 100)
        waiting.until_asleep()
        going.kill() if how == "kill" else going.call("close")
        for _ in range(2):
            with pytest.raises(PeerGone):
                receiving.result()
            with pytest.raises(PeerGone):
                waiting.call("send", b"too late")
            receiving = waiting.start("recv", 100)
        with pytest.raises(PeerGone):
            receiving.result()


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_sender_at_the_high_water_mark_is_told(link: Any, victim: str) -> None:
    with pair(link, watch=False) as (a, b):
        going, waiting = (a, b) if victim == "a" else (b, a)
        going.call("send", b"hello")
        # So they have met: whoever waits for a connection sleeps too, and only `watch` tells it that none will come.
        assert waiting.call("recv", 100) == b"hello"
        sending = waiting.start("send_for_ever", bytes(1000))
        waiting.until_asleep()
        going.kill()
        with pytest.raises(PeerGone):
            sending.result()


@pytest.mark.parametrize("size", [200, 1000])
@pytest.mark.parametrize("sender", ["a", "b"])
def test_an_orderly_close_delivers_everything_first(link: Any, sender: str, size: int) -> None:
    """Far more is under way than the marks hold: libzmq's lingering loses some of it, see _zmq_linger.py."""
    with pair(link, watch=False) as (a, b):
        if sender == "b":
            a, b = b, a
        b.call("send", b"hello")  # a server lets nobody in before it is used
        assert a.call("recv", 100) == b"hello"
        count = 0
        while count < 8:  # both marks; libzmq's threads may take longer than that to fill the other side's
            count += a.call("send_until_full", bytes(size), 0.2)
        closing = a.start("close")
        assert b.call("recv_all", [1000] * count) == [bytes(size)] * count
        with pytest.raises(PeerGone):
            b.call("recv", 1000)
        closing.result()


def test_close_does_not_wait_for_ever_for_a_peer_that_does_not_receive(
    link: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_zmq, "LINGER_MS", 100)
    with pair(link, watch=False) as (a, _b):
        a.call("send_until_full", bytes(1000), 0.2)
        a.call("close")


def test_close_does_not_wait_for_a_dead_peer(link: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_zmq, "LINGER_MS", 3_600_000)
    with pair(link, watch=False) as (a, b):
        a.call("send_until_full", bytes(1000), 0.2)
        closing = a.start("close")
        a.until_asleep()
        b.kill()
        closing.result()


def test_a_peer_that_dies_before_it_takes_its_side_is_noticed_by_watching(link: Any) -> None:
    with actors(link, "a", "b") as (a, b):
        b.call("take", "b")
        b.call("watch", a.pid)
        receiving = b.start("recv", 10)
        b.until_asleep()
        a.kill()
        with pytest.raises(PeerGone):
            receiving.result()


def test_a_peer_that_was_dead_when_watched_is_gone(link: Any) -> None:
    with pair(link, watch=False) as (a, b):
        a.call("send", b"last words")
        a.call("close")
        a.leave()
        b.call("watch", a.pid)
        assert b.call("recv", 100) == b"last words"
        with pytest.raises(PeerGone):
            b.call("recv", 100)


# --- threads, descriptors, contexts -----------------------------------------------------------------------------------


def test_threads_and_descriptors_are_gone_after_close(link: Any) -> None:
    def held() -> tuple[set[str], int]:
        return {path.name for path in Path("/proc/self/task").iterdir()}, len(list(Path("/proc/self/fd").iterdir()))

    tasks, fds = held()  # one that was joined before may still be on its way out of the kernel
    with link.take("a") as a, link.take("b") as b:
        ours = held()[0] - tasks
        assert len(ours) == 4  # an I/O thread and a reaper each
        a.send(b"x", DEADLINE_S)
        assert receive(b) == b"x"
    until(lambda: not held()[0] & ours, "a thread of a closed end is still there")
    assert held()[1] <= fds


def test_opening_makes_no_context() -> None:
    """A Context has threads, and a process with threads must not fork."""
    script = (
        "import sys, threading, os\n"
        "from ipclab.mechanisms import load\n"
        "for name in ('zmq-ipc', 'zmq-tcp'):\n"
        "    module = load(name)\n"
        "    assert module.probe().works\n"
        "    with module.LINK.open() as link: pass\n"
        "assert 'zmq' not in sys.modules\n"
        "assert len(os.listdir('/proc/self/task')) == 1\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_side_is_taken_once(link: Any) -> None:
    for side in ("a", "b"):
        with link.take(side):
            with pytest.raises(UsageError, match="already"):
                link.take(side)


def test_the_path_is_for_its_owner_alone() -> None:
    with zmq_ipc.LINK.open() as link:
        assert link.path
        assert stat.S_IMODE(link.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(link.path.parent.stat().st_mode) == 0o700
        assert len(os.fsencode(link.path)) <= 107


# --- its descriptor ---------------------------------------------------------------------------------------------------


def receive_all(end: Any) -> list[bytes]:
    """What is there now: until the socket has been found empty."""
    received = []
    while True:
        try:
            received.append(receive(end, 1000, 0))
        except TimedOut:
            return received


def test_the_descriptor_is_edge_triggered_as_its_text_says(link: Any) -> None:
    with link.take("a") as a, link.take("b") as b:
        poller = select.poll()
        poller.register(a.fileno(), select.POLLIN)
        for message in (b"first", b"second"):
            b.send(message)
            received: list[bytes] = []
            while not (received := receive_all(a)):
                assert poller.poll(DEADLINE_S * 1000)
            assert received == [message]


def test_the_descriptor_of_a_server_waits_for_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_tcp, "CONNECT_S", 0.1)
    with zmq_tcp.LINK.open() as link, link.take("a") as a:
        with pytest.raises(TimedOut):
            a.fileno()
        with link.take("b") as b:
            monkeypatch.setattr(zmq_tcp, "CONNECT_S", DEADLINE_S)
            assert a.fileno() >= 0
            b.send(b"x")
            assert receive(a) == b"x"


# --- strangers on tcp -------------------------------------------------------------------------------------------------


@contextmanager
def stranger(endpoint: str, word: bytes | None) -> Iterator[Any]:
    """Somebody on this machine who has found the port; returns when libzmq has connected it."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        if word is not None:
            sock.setsockopt(zmq.PLAIN_USERNAME, b"ipclab")
            sock.setsockopt(zmq.PLAIN_PASSWORD, word)
        monitor = sock.get_monitor_socket(zmq.EVENT_CONNECTED)
        sock.connect(endpoint)
        sock.send(b"forged")
        assert monitor.poll(DEADLINE_S * 1000)
        sock.disable_monitor()
        monitor.close(0)
        yield sock


@pytest.mark.parametrize("word", [None, b"guessed"])
def test_a_stranger_is_not_let_in_before_us(word: bytes | None) -> None:
    with zmq_tcp.LINK.open() as link, link.take("a") as a:
        with stranger(link.endpoint, word) as sock:
            with pytest.raises(TimedOut):
                receive(a, 100, 0.2)
            with link.take("b") as b:
                b.send(b"true", DEADLINE_S)
                assert receive(a) == b"true"
                a.send(b"secret", DEADLINE_S)
                assert receive(b) == b"secret"
                assert not sock.poll(0)


def test_nobody_is_let_in_after_us_not_even_with_the_word() -> None:
    with zmq_tcp.LINK.open() as link, link.take("a") as a, link.take("b") as b:
        b.send(b"true", DEADLINE_S)
        assert receive(a) == b"true"
        with stranger(link.endpoint, link._word) as sock:
            with pytest.raises(TimedOut):
                receive(a, 100, 0.2)
            b.close()
            with pytest.raises(PeerGone):
                receive(a)
            assert not sock.poll(0)


def test_a_silent_connection_delays_only_the_news_of_the_end() -> None:
    with zmq_tcp.LINK.open() as link, pair(link, watch=False) as (a, b):
        host, port = link.endpoint.removeprefix("tcp://").rsplit(":", 1)
        with socket.create_connection((host.strip("[]"), int(port)), timeout=DEADLINE_S) as silent:
            assert silent.recv(1)  # libzmq has greeted it
            b.call("send", b"true")
            assert a.call("recv", 100) == b"true"
            b.call("close")
            with pytest.raises(TimedOut):
                a.call("recv", 100, 0.2)
            receiving = a.start("recv", 100)
        with pytest.raises(PeerGone):
            receiving.result()


def test_watching_does_not_care_about_a_silent_connection() -> None:
    with zmq_tcp.LINK.open() as link, pair(link) as (a, b):
        host, port = link.endpoint.removeprefix("tcp://").rsplit(":", 1)
        with socket.create_connection((host.strip("[]"), int(port)), timeout=DEADLINE_S) as silent:
            assert silent.recv(1)
            b.call("send", b"true")
            assert a.call("recv", 100) == b"true"
            b.kill()
            with pytest.raises(PeerGone):
                a.call("recv", 100)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_ipv6_serves_where_there_is_no_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError as err:
        pytest.skip(f"::1: {err}")
    monkeypatch.setattr(_loopback, "address", lambda f: ("203.0.113.7" if f == socket.AF_INET else "::1", 0))
    with zmq_tcp.LINK.open() as link, link.take("a") as a, link.take("b") as b:
        assert link.endpoint.startswith("tcp://[::1]:")
        b.send(b"over six", DEADLINE_S)
        assert receive(a) == b"over six"


# --- this installation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", BOTH)
def test_limits_name_the_library(module: Any) -> None:
    found = {limit.name: limit for limit in module.limits()}
    assert found["messages queued to send, by default"].value == 1000
    assert zmq.zmq_version() in found["messages queued to send, by default"].source


@pytest.mark.parametrize("module", BOTH)
def test_without_pyzmq_the_probe_says_how_to_get_it(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_zmq, "find_spec", lambda name: None)
    probe = module.probe()
    assert not probe.works
    assert "pip install pyzmq" in probe.remedy

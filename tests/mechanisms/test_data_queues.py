"""POSIX and SysV message queues beyond the common suite."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from actors import actors, pair

from ipclab.errors import IpclabError, NameInUse, NoRoom, PeerGone, TimedOut, Unavailable, UsageError
from ipclab.mechanisms.data import _mq_sizes, posix_mq, sysv_mq
from ipclab.mechanisms.data.posix_mq import PosixMqLink
from ipclab.mechanisms.data.sysv_mq import SysvMqLink
from ipclab.processes import registry, removal

# --- POSIX ------------------------------------------------------------------------------------------------------------


def send_urgent(part: Any, data: bytes, priority: int) -> None:
    part.end.send(data, 30.0, priority=priority)


def receive_urgent(part: Any, room: int) -> tuple[bytes, int]:
    buffer = bytearray(room)
    size, priority = part.end.recv_with_priority(buffer, 30.0)
    return bytes(buffer[:size]), priority


def test_a_higher_priority_overtakes_and_equal_ones_stay_in_order() -> None:
    with PosixMqLink.open() as link, pair(link) as (a, b):
        for data, priority in ((b"first", 0), (b"second", 0), (b"urgent", 9), (b"most urgent", 32767)):
            a.call("run", send_urgent, data, priority)
        assert b.call("run", waiting) == 4
        received = [b.call("run", receive_urgent, 100) for _ in range(4)]
        assert received == [(b"most urgent", 32767), (b"urgent", 9), (b"first", 0), (b"second", 0)]


def waiting(part: Any) -> int:
    return int(part.end.waiting)


@pytest.mark.parametrize("priority", [-1, 32768])
def test_a_priority_out_of_range_is_a_mistake_of_the_caller(priority: int) -> None:
    with PosixMqLink.open() as link, link.take("a") as a:
        with pytest.raises(UsageError, match="32767"):
            a.send(b"x", priority=priority)


def test_the_kernel_notifies_by_signal_once_and_only_of_an_empty_queue() -> None:
    with PosixMqLink.open() as link, pair(link) as (a, b):
        b.call("run", ask_for_signal)
        a.call("send", b"one")
        assert b.call("run", take_signal)
        a.call("send", b"two")  # the request has fired, and the queue is not empty
        assert not b.call("run", take_signal)
        b.call("run", ask_for_signal)
        a.call("send", b"three")  # asked again, but the queue is not empty
        assert not b.call("run", take_signal)
        assert b.call("recv_all", [5, 5, 5]) == [b"one", b"two", b"three"]
        a.call("send", b"four")
        assert b.call("run", take_signal)


def ask_for_signal(part: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    part.end.notify_by_signal(signal.SIGUSR1)


def take_signal(part: Any) -> bool:
    return signal.sigtimedwait({signal.SIGUSR1}, 0.0) is not None  # sent within mq_send: there, or not at all


def test_the_kernel_notifies_by_a_thread() -> None:
    with PosixMqLink.open() as link, pair(link) as (a, b):
        b.call("run", ask_for_thread)
        a.call("send", b"hello")
        assert b.call("run", wait_for_thread) == "argument"


def ask_for_thread(part: Any) -> None:
    part.called = threading.Event()

    def call(argument: object) -> None:
        part.argument = argument
        part.called.set()

    part.end.notify_by_thread(call, "argument")


def wait_for_thread(part: Any) -> object:
    assert part.called.wait(30.0)
    return part.argument


def test_one_process_may_ask_to_be_notified_and_may_take_it_back() -> None:
    with PosixMqLink.open() as link, actors(link, "a", "b") as (a, b), link.take("b") as other:
        a.call("take", "a")
        b.call("take", "b")
        b.call("run", cancel)
        b.call("run", ask_for_signal)
        with pytest.raises(IpclabError, match="only one may"):
            other.notify_by_signal(signal.SIGUSR1)
        b.call("run", cancel)
        other.notify_by_signal(signal.SIGUSR1)
        other.notify_cancel()
        a.call("send", b"x")
        assert not b.call("run", take_signal)


def cancel(part: Any) -> None:
    part.end.notify_cancel()


@pytest.fixture
def msgqueue_limit() -> Iterator[Any]:
    """RLIMIT_MSGQUEUE, put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, before)


def test_a_queue_takes_what_the_limits_leave(msgqueue_limit: Any) -> None:
    msgqueue_limit(20_000)
    with PosixMqLink.open(message_bytes=4096, depth=10) as link, link.take("a") as end:
        assert end.limit_bytes == 4096
        assert 1 <= link.depth < 10


def test_no_message_queue_left_is_one_clear_line(msgqueue_limit: Any) -> None:
    msgqueue_limit(0)
    with pytest.raises(NoRoom, match="no message queue left") as caught:
        PosixMqLink.open()
    assert "ulimit -q" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_in_use_is_said_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with PosixMqLink.open() as link:
        taken = link.names["a"]
        monkeypatch.setattr(registry, "new_name", lambda kind, label: taken)
        with pytest.raises(NameInUse):
            PosixMqLink.open()
        monkeypatch.undo()
        assert removal.exists("posix-mq", taken)
        with link.take("a") as a, link.take("b") as b:  # the first link has lost nothing
            a.send(b"x", 1.0)
            assert b.recv_into(bytearray(1), 1.0) == 1


def test_sizes_are_tried_from_the_largest_down() -> None:
    tried = list(_mq_sizes.sizes_to_try(1 << 30, 1000, 2))
    assert tried[0][1] <= _mq_sizes.HARD_MESSAGE_BYTES
    assert tried[-1][0] == 1
    assert len(set(tried)) == len(tried)
    assert all(count >= 1 and size >= 1 for count, size in tried)


def test_posix_limits_are_read_from_this_machine() -> None:
    by_source = {limit.source: limit.value for limit in posix_mq.limits()}
    with open("/proc/sys/fs/mqueue/msgsize_max") as file:
        assert by_source["/proc/sys/fs/mqueue/msgsize_max"] == int(file.read())


# --- SysV -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sysv_link() -> Iterator[SysvMqLink]:
    pytest.importorskip("sysv_ipc")
    with SysvMqLink.open() as link:
        yield link


def send_type(part: Any, data: bytes, message_type: int) -> None:
    part.end.send_type(data, message_type, 30.0)


def receive_type(part: Any, wanted: int) -> tuple[bytes, int]:
    buffer = bytearray(100)
    size, got = part.end.recv_type_into(buffer, wanted, 0.0)
    return bytes(buffer[:size]), got


def test_a_receiver_chooses_by_type(sysv_link: SysvMqLink) -> None:
    with pair(sysv_link) as (a, b):
        for data, message_type in ((b"seven", 7), (b"five", 5), (b"nine", 9), (b"five again", 5)):
            a.call("run", send_type, data, message_type)
        assert b.call("run", receive_type, 9) == (b"nine", 9)
        assert b.call("run", receive_type, -6) == (b"five", 5)  # the lowest up to 6
        assert b.call("run", receive_type, 0) == (b"seven", 7)  # the oldest of all
        with pytest.raises(TimedOut):
            b.call("run", receive_type, 7)
        assert b.call("run", receive_type, 5) == (b"five again", 5)
        with pytest.raises(UsageError):
            a.call("run", send_type, b"", 0)


@pytest.mark.parametrize("watch", [True, False])
@pytest.mark.parametrize("doing", ["recv", "send_for_ever"])
def test_removing_the_queue_wakes_everybody(sysv_link: SysvMqLink, watch: bool, doing: str) -> None:
    with pair(sysv_link, watch=watch) as (_, b):
        call = b.start(doing, 10 if doing == "recv" else bytes(4096))
        b.until_asleep()
        sysv_link.close()
        with pytest.raises(PeerGone, match="removed"):
            call.result()
        with pytest.raises(PeerGone, match="removed"):
            b.call("send", b"x")


def test_a_direction_that_is_full_stops_the_other_one(sysv_link: SysvMqLink) -> None:
    """The trap the module's text warns of."""
    with pair(sysv_link) as (a, b):
        size = a.call("limit")[0]
        sent = a.call("send_until_full", bytes(size), 0.0)
        with pytest.raises(TimedOut):
            b.call("send", bytes(size), 0.05)
        assert len(b.call("recv_all", [size] * sent)) == sent
        b.call("send", bytes(size), 0.0)


def test_a_deadline_ends_a_wait_between_two_naps(sysv_link: SysvMqLink) -> None:
    with sysv_link.take("a") as end:
        for _ in range(20):
            with pytest.raises(TimedOut):
                end.recv_into(bytearray(1), 0.003)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sysv_ipc", None)
    probe = sysv_mq.probe()
    assert not probe.works
    assert "sysv_ipc" in probe.reason
    assert "ipclab[sysv]" in probe.remedy
    with pytest.raises(Unavailable, match=r"pip install 'ipclab\[sysv\]'"):
        SysvMqLink.open()
    assert sysv_mq.limits()


def test_a_key_in_use_is_said_and_the_other_queue_is_left_alone(
    sysv_link: SysvMqLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "new_key", lambda kind, label: sysv_link.key)
    with pytest.raises(NameInUse, match="in use"):
        SysvMqLink.open()
    monkeypatch.undo()
    with sysv_link.take("a") as a, sysv_link.take("b") as b:
        a.send(b"x", 1.0)
        assert b.recv_into(bytearray(1), 1.0) == 1


def test_both_kinds_are_taken_once_each_side() -> None:
    pytest.importorskip("sysv_ipc")
    for kind in (PosixMqLink, SysvMqLink):
        with kind.open() as link:
            link.take("a").close()
            with pytest.raises(UsageError, match="taken already"):
                link.take("a")
        with pytest.raises(UsageError):
            link.take("b")


def test_a_child_that_closes_the_link_removes_nothing() -> None:
    pytest.importorskip("sysv_ipc")
    for kind in (PosixMqLink, SysvMqLink):
        with kind.open() as link, actors(link, "a", "b") as (a, b):
            a.call("close_link")
            pid = os.fork()
            if pid == 0:
                link.close()
                os._exit(0)
            os.waitpid(pid, 0)
            with link.take("a") as end:
                b.call("take", "b")
                end.send(b"x", 1.0)
                assert b.call("recv", 1, 30.0) == b"x"

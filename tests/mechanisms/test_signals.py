"""Signals between real processes: what coalesces, what queues, who is told of what, and that masks are put back."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from actors import DEADLINE_S, Actor, actors

from ipclab.errors import IpclabError, NoRoom, PeerGone, TimedOut, Unavailable, UsageError
from ipclab.mechanisms.signals import _line, pidfd, realtime, signalfd, standard
from ipclab.processes import procfs

USR1, USR2 = int(signal.SIGUSR1), int(signal.SIGUSR2)
RT = int(signal.SIGRTMIN)
MODULES = [standard, realtime, signalfd, pidfd]
RECEIVERS: dict[str, Any] = {
    "signal": standard.SignalReceiver,
    "rt-signal": realtime.RealtimeReceiver,
    "signalfd": signalfd.SignalFd,
}


@pytest.fixture
def crew() -> Iterator[tuple[Actor, Actor]]:
    """Two processes: the first receives, the second sends."""
    with actors(None, "a", "b") as (receiver, sender):
        yield receiver, sender


@pytest.fixture(params=list(RECEIVERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- what the processes do --------------------------------------------------------------------------------------------


def listen(part: Any, kind: str, signals: list[int], watched: int | None = None) -> None:
    part.receiver = RECEIVERS[kind](signals)
    if watched is not None:
        part.receiver.watch(watched)


def wait(part: Any, timeout_s: float | None = DEADLINE_S) -> tuple[int, ...]:
    return tuple(part.receiver.wait(timeout_s))


def wait_for_all(part: Any) -> list[tuple[int, ...]]:
    """What is pending, until nothing is."""
    found = []
    while True:
        try:
            found.append(wait(part, 0))
        except TimedOut:
            return found


def pending(part: Any) -> set[int]:
    return set(part.receiver.pending())


def send_standard(part: Any, pid: int, signals: list[int]) -> None:
    sender = standard.SignalSender(pid)
    for signo in signals:
        sender.send(signo)


def send_realtime(part: Any, pid: int, values: list[tuple[int, int]]) -> None:
    sender = realtime.RealtimeSender(pid)
    for signo, value in values:
        sender.send(value, signo)


def blocked() -> set[int]:
    return {int(signo) for signo in signal.pthread_sigmask(signal.SIG_BLOCK, [])}


# --- standard ones coalesce, real-time ones queue ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["signal", "signalfd"])
def test_five_standard_signals_are_one(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, sender = crew
    receiver.call("run", listen, kind, [USR1, USR2])
    sender.call("run", send_standard, receiver.pid, [USR1] * 5)
    assert receiver.call("run", pending) == {USR1}
    assert receiver.call("run", wait_for_all) == [(USR1, standard.SI_USER, sender.pid, os.getuid(), None)]
    assert receiver.call("run", pending) == set()


@pytest.mark.parametrize("kind", ["rt-signal", "signalfd"])
def test_five_realtime_signals_queue_with_their_payload(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, sender = crew
    receiver.call("run", listen, kind, [RT])
    values = [7, -1, 0, 2**31 - 1, -(2**31)]
    sender.call("run", send_realtime, receiver.pid, [(RT, value) for value in values])
    arrived = receiver.call("run", wait_for_all)
    assert arrived == [(RT, realtime.SI_QUEUE, sender.pid, os.getuid(), value) for value in values]


@pytest.mark.parametrize("kind", ["rt-signal", "signalfd"])
def test_the_lowest_number_comes_first_and_in_order_within(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, sender = crew
    receiver.call("run", listen, kind, [RT, RT + 1, RT + 2])
    sent = [(RT + 2, 1), (RT, 2), (RT + 1, 3), (RT, 4), (RT + 2, 5), (RT + 1, 6)]
    sender.call("run", send_realtime, receiver.pid, sent)
    arrived = [(signo, value) for signo, _, _, _, value in receiver.call("run", wait_for_all)]
    assert arrived == sorted(sent, key=lambda pair: pair[0])


def test_a_realtime_signal_without_a_payload_has_none(crew: tuple[Actor, Actor]) -> None:
    receiver, sender = crew
    receiver.call("run", listen, "rt-signal", [RT])
    sender.call("run", send_standard, receiver.pid, [RT, RT])
    assert [(code, value) for _, code, _, _, value in receiver.call("run", wait_for_all)] == [(0, None)] * 2


def test_a_sleeping_receiver_is_woken(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, sender = crew
    receiver.call("run", listen, kind, [USR1])
    waiting = receiver.start("run", wait, None)
    receiver.until_asleep()
    sender.call("run", send_standard, receiver.pid, [USR1])
    assert waiting.result()[:3] == (USR1, 0, sender.pid)


def test_ping_pong(crew: tuple[Actor, Actor], kind: str) -> None:
    """What a bench does: each waits for the other's signal and answers."""
    receiver, sender = crew
    for actor in crew:
        actor.call("run", listen, kind, [RT])
    rounds = 50
    echoing = receiver.start("run", echo, sender.pid, rounds)
    values = [None] * rounds if kind == "signal" else list(range(rounds))  # sigtimedwait in Python drops the word
    assert sender.call("run", play, receiver.pid, rounds) == values
    echoing.result()


def echo(part: Any, pid: int, rounds: int) -> None:
    other = realtime.RealtimeSender(pid)
    for _ in range(rounds):
        other.send(part.receiver.wait(DEADLINE_S).value or 0)


def play(part: Any, pid: int, rounds: int) -> list[int]:
    other = realtime.RealtimeSender(pid)
    got = []
    for number in range(rounds):
        other.send(number)
        got.append(part.receiver.wait(DEADLINE_S).value)
    return got


def test_a_handler_runs_once_for_what_coalesced(crew: tuple[Actor, Actor]) -> None:
    receiver, sender = crew
    receiver.call("run", count_deliveries)
    for _ in range(2):
        receiver.call("run", block_usr1)
        sender.call("run", send_standard, receiver.pid, [USR1] * 5)
        receiver.call("run", unblock_usr1)
    assert receiver.call("run", stop_counting) == ({USR1: 2}, "SIGUSR1: 2")


def count_deliveries(part: Any) -> None:
    part.counter = standard.HandlerCounter([USR1])


def block_usr1(part: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [USR1])


def unblock_usr1(part: Any) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [USR1])


def stop_counting(part: Any) -> tuple[dict[int, int], str]:
    part.counter.close()
    part.counter.close()
    assert signal.getsignal(USR1) == signal.SIG_DFL
    return dict(part.counter.counts), str(part.counter)


# --- time and death ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_s", [0, 0.05])
def test_waiting_has_a_deadline(kind: str, timeout_s: float) -> None:
    with RECEIVERS[kind]([USR1]) as receiver, pytest.raises(TimedOut):
        receiver.wait(timeout_s)


def test_a_watched_sender_that_is_killed_ends_the_wait(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, sender = crew
    receiver.call("run", listen, kind, [USR1], sender.pid)
    waiting = receiver.start("run", wait, None)
    sender.kill()
    with pytest.raises(PeerGone):
        waiting.result()


def test_what_a_dead_sender_had_sent_comes_first(crew: tuple[Actor, Actor]) -> None:
    receiver, sender = crew
    receiver.call("run", listen, "rt-signal", [RT], sender.pid)
    sender.call("run", send_realtime, receiver.pid, [(RT, 1), (RT, 2)])
    sender.kill()
    assert [receiver.call("run", wait)[-1] for _ in range(2)] == [1, 2]
    with pytest.raises(PeerGone):
        receiver.call("run", wait)


def test_a_receiver_killed_while_it_waits_is_gone_for_its_sender(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, _ = crew
    receiver.call("run", listen, kind, [USR1])
    receiver.start("run", wait, None)
    receiver.until_asleep()
    with pidfd.PidfdSender(receiver.pid) as by_fd:
        assert not by_fd.ended()
        with pytest.raises(TimedOut):
            by_fd.wait_ended(0.02)
        receiver.kill()  # and collects it
        by_fd.wait_ended(DEADLINE_S)
        for send in (by_fd.send, standard.SignalSender(receiver.pid).send, realtime.RealtimeSender(receiver.pid).send):
            with pytest.raises(PeerGone, match="ESRCH"):
                send()


def test_ctrl_c_ends_a_wait(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, _ = crew
    receiver.call("run", listen, kind, [USR1])
    waiting = receiver.start("run", wait, None)
    receiver.until_asleep()
    receiver.interrupt()
    with pytest.raises(KeyboardInterrupt):
        waiting.result()


def test_another_signals_handler_does_not_end_a_wait(crew: tuple[Actor, Actor], kind: str) -> None:
    receiver, sender = crew
    receiver.call("run", listen, kind, [USR1])
    receiver.call("run", handle_usr2)
    waiting = receiver.start("run", wait, None)
    for _ in range(3):
        receiver.until_asleep()
        sender.call("run", send_standard, receiver.pid, [USR2])
    receiver.until_asleep()
    sender.call("run", send_standard, receiver.pid, [USR1])
    assert waiting.result()[0] == USR1


def handle_usr2(part: Any) -> None:
    signal.signal(USR2, lambda signo, frame: None)


# --- masks ------------------------------------------------------------------------------------------------------------


def test_closing_puts_the_mask_back_and_delivers_nothing(crew: tuple[Actor, Actor], kind: str) -> None:
    """In a process with one thread: in ours pytest's would take the signal, and its default action is the end."""
    crew[0].call("run", close_with_signals_pending, kind)
    assert crew[0].call("run", pending_anyhow) == set()


def close_with_signals_pending(part: Any, kind: str) -> None:
    before = blocked()
    receiver = RECEIVERS[kind]([USR1, RT])
    assert blocked() == before | {USR1, RT}
    for signo in (USR1, RT, RT):
        os.kill(os.getpid(), signo)
    assert receiver.pending() == {USR1, RT}
    for _ in range(2):
        receiver.close()
    assert blocked() == before
    with pytest.raises(IpclabError, match="closed"):
        receiver.wait(0)


def pending_anyhow(part: Any) -> set[int]:
    return {int(signo) for signo in signal.sigpending()}


def test_what_was_blocked_before_stays_blocked(kind: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [USR2])
    try:
        with RECEIVERS[kind]([USR1, USR2]):
            pass
        assert USR2 in blocked()
        assert USR1 not in blocked()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_receivers_may_be_closed_in_any_order() -> None:
    before = blocked()
    first, second = standard.SignalReceiver([USR1]), signalfd.SignalFd([USR2])
    first.close()
    assert blocked() == before | {USR2}
    second.close()
    assert blocked() == before


@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGSTOP], [0], [65], []])
def test_what_cannot_be_received_is_refused(kind: str, signals: list[int]) -> None:
    before = blocked()
    with pytest.raises(UsageError):
        RECEIVERS[kind](signals)
    assert blocked() == before


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_full_queue_names_its_limit(crew: tuple[Actor, Actor]) -> None:
    receiver, _ = crew
    receiver.call("run", listen, "rt-signal", [RT])
    queued, told = receiver.call("run", fill_own_queue, 5)
    assert queued <= 5  # others of this user may have signals queued too
    assert "RLIMIT_SIGPENDING" in told
    assert "EAGAIN" in told
    values = [value for *_, value in receiver.call("run", wait_for_all)]
    assert values == list(range(queued))


def fill_own_queue(part: Any, limit: int) -> tuple[int, str]:
    _, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (limit, hard))
    sender = realtime.RealtimeSender(os.getpid())
    for value in range(limit + 1):
        try:
            sender.send(value)
        except NoRoom as err:
            with pidfd.PidfdSender(os.getpid()) as by_fd, pytest.raises(NoRoom):
                by_fd.send(RT, 0)
            return value, str(err)
    raise AssertionError("there is no limit")


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user to be refused as")
def test_another_users_process_says_not_permitted(crew: tuple[Actor, Actor]) -> None:
    _, sender = crew
    if not sender.call("run", become_nobody):
        pytest.skip("root without the right to change its user (CAP_SETUID)")
    assert sender.call("run", refusals, os.getpid()) == ["Unavailable"] * 3


def become_nobody(part: Any) -> bool:
    try:
        os.setresuid(65534, 65534, 65534)
    except PermissionError:
        return False
    return True


def refusals(part: Any, pid: int) -> list[str]:
    found = []
    with pidfd.PidfdSender(pid) as by_fd:
        for send in (by_fd.send, standard.SignalSender(pid).send, realtime.RealtimeSender(pid).send):
            with pytest.raises(Unavailable, match="CAP_KILL") as caught:
                send()
            found.append(type(caught.value).__name__)
    return found


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_a_payload_too_large_is_refused(value: int) -> None:
    with pytest.raises(UsageError, match="2147483647"):
        realtime.RealtimeSender(os.getpid()).send(value)
    with pidfd.PidfdSender(os.getpid()) as by_fd, pytest.raises(UsageError):
        by_fd.send(RT, value)


def test_an_impossible_signal_is_refused() -> None:
    me = os.getpid()
    with pidfd.PidfdSender(me) as by_fd:
        for send in (standard.SignalSender(me).send, by_fd.send):
            with pytest.raises(UsageError, match="no signal 99"):
                send(99)
        with pytest.raises(UsageError, match="no signal 99"):
            realtime.RealtimeSender(me).send(1, 99)


# --- signalfd ---------------------------------------------------------------------------------------------------------


def test_one_read_takes_several_and_poll_tells_when(crew: tuple[Actor, Actor]) -> None:
    receiver, sender = crew
    receiver.call("run", listen, "signalfd", [USR1, RT])
    assert receiver.call("run", poll_and_read, 0) == (False, [])
    sender.call("run", send_realtime, receiver.pid, [(RT, 1), (USR1, 2), (RT, 3)])
    readable, signals = receiver.call("run", poll_and_read, DEADLINE_S)
    assert readable
    assert [(signo, value) for signo, _, _, _, value in signals] == [(USR1, 2), (RT, 1), (RT, 3)]
    assert receiver.call("run", poll_and_read, 0) == (False, [])


def poll_and_read(part: Any, timeout_s: float) -> tuple[bool, list[tuple[int, ...]]]:
    poller = select.poll()
    poller.register(part.receiver.fileno(), select.POLLIN)
    return bool(poller.poll(timeout_s * 1000)), [tuple(each) for each in part.receiver.read_nowait()]


def test_no_descriptor_left_restores_the_mask(crew: tuple[Actor, Actor]) -> None:
    receiver, _ = crew
    assert receiver.call("run", signalfd_without_descriptors) == set()


def signalfd_without_descriptors(part: Any) -> set[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        for make in (lambda: signalfd.SignalFd([USR1]), lambda: pidfd.PidfdSender(os.getpid())):
            with pytest.raises(NoRoom, match="ulimit -n"):
                make()
        for module in (signalfd, pidfd):
            assert "ulimit -n" in module.probe().remedy
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return blocked()


# --- pidfd ------------------------------------------------------------------------------------------------------------


def test_a_pidfd_sends_with_and_without_a_payload(crew: tuple[Actor, Actor]) -> None:
    receiver, _ = crew
    receiver.call("run", listen, "rt-signal", [USR1, RT])
    with pidfd.PidfdSender(receiver.pid) as sender:
        sender.send(RT, 5)
        sender.send(RT, -6)
        sender.send(USR1)
    arrived = receiver.call("run", wait_for_all)
    assert [(signo, code, pid, value) for signo, code, pid, _, value in arrived] == [
        (USR1, 0, os.getpid(), None),
        (RT, -1, os.getpid(), 5),
        (RT, -1, os.getpid(), -6),
    ]


def test_a_pidfd_of_a_zombie_tells_the_end_although_sending_works() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        with pidfd.PidfdSender(pid) as sender:
            sender.wait_ended(DEADLINE_S)
            assert procfs.state(pid) == "Z"
            assert sender.ended()
            sender.send(USR1)
    finally:
        os.waitpid(pid, 0)
    with pytest.raises(PeerGone, match="pidfd_open"):
        pidfd.PidfdSender(pid)


def test_a_pidfd_never_hits_the_next_process_of_that_pid() -> None:
    """Its process is gone; whoever has the number now is not signalled. (We do not wait until somebody has.)"""
    pid = os.fork()
    if pid == 0:
        time.sleep(DEADLINE_S)
        os._exit(0)
    sender = pidfd.PidfdSender(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pytest.raises(PeerGone, match="ESRCH"):
        sender.send(signal.SIGKILL)
    for _ in range(2):
        sender.close()
    with pytest.raises(IpclabError, match="closed"):
        sender.send(USR1)


def test_a_pidfd_needs_a_process() -> None:
    with pytest.raises(PeerGone):
        pidfd.PidfdSender(2**22 + 1)  # beyond any pid_max
    with pytest.raises(IpclabError):
        pidfd.PidfdSender(-1)


# --- this machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.MECHANISM.name)
def test_the_probe_works_and_touches_nothing(module: Any) -> None:
    fds, before = len(list(Path("/proc/self/fd").iterdir())), blocked()
    assert module.probe().works
    assert module.LINK is None
    assert all(limit.name and limit.source and limit.unit for limit in module.limits())
    assert len(list(Path("/proc/self/fd").iterdir())) == fds
    assert blocked() == before


def test_limits_are_read_live(crew: tuple[Actor, Actor]) -> None:
    found = {limit.name: limit.value for module in MODULES for limit in module.limits()}
    assert found["signals queued for one user"] == resource.getrlimit(resource.RLIMIT_SIGPENDING)[0]
    assert found["first number"] == signal.SIGRTMIN
    assert found["pids before they are used again"] == int(Path("/proc/sys/kernel/pid_max").read_text())
    assert crew[0].call("run", queue_twenty) >= 20


def queue_twenty(part: Any) -> int | None:
    with realtime.RealtimeReceiver([RT]) as receiver:
        for value in range(20):
            realtime.RealtimeSender(os.getpid()).send(value)
        queued = {limit.name: limit.value for limit in realtime.limits()}["queued now"]
        assert [receiver.wait(0).value for _ in range(20)] == list(range(20))
    return queued


def test_signals_are_called_by_their_names() -> None:
    names = {number: _line.signal_name(number) for number in (USR1, RT, RT + 3, 32, 99)}
    assert names == {USR1: "SIGUSR1", RT: "SIGRTMIN", RT + 3: "SIGRTMIN+3", 32: "signal 32", 99: "signal 99"}
    assert _line.Arrival(RT + 1, -1, 1, 0, 3).name == "SIGRTMIN+1"

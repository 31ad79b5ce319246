"""process-vm beyond the common suite: the meeting, the offer that is withdrawn, and who may not read."""

from __future__ import annotations

import os
from typing import Any

import pytest
from actors import pair

from ipclab.errors import BufferTooSmall, IpclabError, PeerGone, TimedOut, Unavailable
from ipclab.mechanisms.base import Deadline
from ipclab.mechanisms.data import process_vm
from ipclab.mechanisms.data.process_vm import ProcessVmLink


def test_a_send_returns_when_the_receiver_has_the_copy() -> None:
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        sending = a.start("send", b"hello")
        a.until_asleep()
        assert b.call("recv", 5) == b"hello"
        sending.result()


def test_a_send_whose_time_is_over_has_withdrawn_its_offer() -> None:
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        for _ in range(3):
            with pytest.raises(TimedOut):
                a.call("send", b"too late", 0.02)
            with pytest.raises(TimedOut):
                b.call("recv", 10, 0)
        sending = a.start("send", b"in time")
        assert b.call("recv", 10) == b"in time"
        sending.result()


def test_a_message_that_did_not_fit_can_still_be_withdrawn() -> None:
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        sending = a.start("send", b"0123456789")
        with pytest.raises(BufferTooSmall, match="10"):
            b.call("recv", 9, 30.0)
        a.until_asleep()
        a.interrupt()
        with pytest.raises(KeyboardInterrupt):
            sending.result()
        with pytest.raises(TimedOut):
            b.call("recv", 10, 0)


def test_ctrl_c_while_nobody_receives_withdraws_the_offer() -> None:
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        sending = a.start("send", b"never mind")
        a.until_asleep()
        a.interrupt()
        with pytest.raises(KeyboardInterrupt):
            sending.result()
        with pytest.raises(TimedOut):
            b.call("recv", 10, 0)
        sending = a.start("send", b"but this")
        assert b.call("recv", 10) == b"but this"
        sending.result()


def test_a_receiver_that_has_the_offer_is_waited_for() -> None:
    """The offer is out of the pipe, so it cannot be withdrawn: the answer decides, however late."""
    (in_hand, tell), (copying, go) = os.pipe(), os.pipe()
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        b.call("run", prepare_slow_copy, tell, copying)
        sending = a.start("run", send_until_in_hand, b"slowly", in_hand, go)
        assert b.call("recv", 6) == b"slowly"
        sending.result()  # not TimedOut: it was delivered
    for fd in (in_hand, tell, copying, go):
        os.close(fd)


def prepare_slow_copy(part: Any, tell: int, copying: int) -> None:
    """It tells when it has the offer in hand, and copies when it is told to."""
    copy = part.end._copy

    def slow(offer: Any, view: memoryview) -> int:
        os.write(tell, b"!")
        os.read(copying, 1)
        return int(copy(offer, view))

    part.end._copy = slow


def send_until_in_hand(part: Any, data: bytes, in_hand: int, go: int) -> None:
    """The time is over as soon as the receiver has the offer; it copies once that has been noticed."""

    class Patience(Deadline):
        def left_s(self) -> float | None:
            os.read(in_hand, 1)
            return 0.0

        def check(self, what: str) -> None:
            os.write(go, b"!")
            raise TimedOut(what)

    def patience(timeout_s: float | None) -> Deadline:
        process_vm.Deadline = Deadline  # type: ignore[attr-defined]  # the others are what they are
        return Patience(timeout_s)

    process_vm.Deadline = patience  # type: ignore[assignment,attr-defined]
    part.end.send(data)


def test_a_sender_killed_while_its_offer_waits_has_sent_nothing() -> None:
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        a.start("send", b"last words")
        a.until_asleep()
        a.kill()
        for _ in range(2):
            with pytest.raises(PeerGone):
                b.call("recv", 10)


def test_a_receiver_killed_with_the_offer_in_hand_is_told() -> None:
    (in_hand, tell), (copying, go) = os.pipe(), os.pipe()
    with ProcessVmLink.open() as link, pair(link, watch=False) as (a, b):
        b.call("run", prepare_slow_copy, tell, copying)
        sending = a.start("send", b"x")
        b.start("recv", 1)
        os.read(in_hand, 1)
        b.kill()
        with pytest.raises(PeerGone):
            sending.result()
    for fd in (in_hand, tell, copying, go):
        os.close(fd)


def test_whoever_may_not_read_is_told_why_and_so_is_the_sender() -> None:
    if os.geteuid() != 0:
        pytest.skip("changing the user needs root")
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        b.call("run", become_nobody)
        sending = a.start("send", b"secret", 30.0)
        with pytest.raises(Unavailable, match="CAP_SYS_PTRACE"):
            b.call("recv", 10, 30.0)
        with pytest.raises(Unavailable, match="the receiver could not read"):
            sending.result()


def become_nobody(part: Any) -> None:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def test_addresses_out_of_the_sender_are_an_error_for_both() -> None:
    with ProcessVmLink.open() as link, pair(link) as (a, b):
        sending = a.start("run", offer_nonsense)
        with pytest.raises(IpclabError, match="EFAULT"):
            b.call("recv", 100, 30.0)
        assert sending.result() != 0


def offer_nonsense(part: Any) -> int:
    part.end._put(part.end._offers_out, process_vm._OFFER.pack(os.getpid(), 4096, 100), [])
    return int(part.end._answer(Deadline(30.0)))


def test_yama_decides_what_the_probe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ((0, False, True), (1, False, True), (2, True, True), (2, False, False), (3, True, False))
    for scope, may_ptrace, works in table:
        monkeypatch.setattr(process_vm, "sysctl", lambda path, scope=scope: scope)
        monkeypatch.setattr(process_vm, "_may_ptrace", lambda may_ptrace=may_ptrace: may_ptrace)
        probe = process_vm.probe()
        assert probe.works == works
        assert works or "ptrace_scope" in probe.reason

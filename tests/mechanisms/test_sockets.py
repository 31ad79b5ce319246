"""What is particular to Unix sockets, TCP and UDP; what they share with every link is in test_data_suite.py."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from actors import actors, pair

from ipclab.errors import IpclabError, MessageTooLarge, NameInUse, NoRoom, PeerGone, TimedOut, UsageError
from ipclab.mechanisms.base import Link, Side
from ipclab.mechanisms.data import _loopback, _unix, tcp, udp, unix_datagram, unix_seqpacket, unix_stream

ALL = [tcp, udp, unix_datagram, unix_seqpacket, unix_stream]
NAMED = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]


@pytest.fixture(params=["path", "abstract"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "path":
        return unix_stream.path_name(tmp_path / "s")
    return unix_stream.abstract_name(f"ipclab-test-{os.getpid()}")


def both(link: Link) -> tuple[Any, Any]:
    """Both ends in this process: enough where nobody dies."""
    return link.take("a"), link.take("b")


def receive(end: Any, room: int = 100, timeout_s: float = 30.0) -> bytes:
    buffer = bytearray(room)
    return bytes(buffer[: end.recv_into(buffer, timeout_s)])


# --- Unix: names and credentials --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NAMED)
def test_strangers_meet_by_a_name_and_know_each_other(name: str, kind: int) -> None:
    with (
        unix_stream.listen(name, kind) as listener,
        unix_stream.connect(name, kind) as client,
        listener.accept()[0] as server,
    ):
        client.send(b"hello")
        assert server.recv(100) == b"hello"
        me = unix_stream.Credentials(os.getpid(), os.geteuid(), os.getegid())
        assert unix_stream.peer_credentials(server) == unix_stream.peer_credentials(client) == me


def test_a_path_is_for_its_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with unix_stream.listen(unix_stream.path_name(tmp_path / "s"), socket.SOCK_STREAM):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(umask)


def test_a_path_outlives_its_socket(tmp_path: Path) -> None:
    path = unix_stream.path_name(tmp_path / "s")
    unix_stream.listen(path, socket.SOCK_STREAM).close()
    with pytest.raises(IpclabError, match="nobody listens"):
        unix_stream.connect(path, socket.SOCK_STREAM)
    with pytest.raises(NameInUse, match="EADDRINUSE"):
        unix_stream.listen(path, socket.SOCK_STREAM)


def test_an_abstract_name_is_gone_with_its_socket() -> None:
    name = unix_stream.abstract_name(f"ipclab-test-{os.getpid()}")
    for _ in range(2):
        unix_stream.listen(name, socket.SOCK_STREAM).close()
    with pytest.raises(IpclabError, match="@ipclab-test"):
        unix_stream.connect(name, socket.SOCK_STREAM)


def test_a_path_too_long_names_the_limit() -> None:
    assert unix_stream.path_name(Path("/" + "x" * 106))
    with pytest.raises(UsageError, match="107"):
        unix_stream.path_name(Path("/" + "x" * 107))


def test_a_datagram_tells_who_sent_it() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(unix_stream.abstract_name(f"ipclab-test-{os.getpid()}"))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with actors(None, "a") as (sender,):
            sender.call("run", send_datagram_to, receiver.getsockname())
            data, who = unix_datagram.recv_with_credentials(receiver, 100)
            assert (data, who and who.pid, who and who.uid) == (b"from a", sender.pid, os.getuid())


def send_datagram_to(part: Any, name: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"from a", name)


# --- Unix: seqpacket --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "kill"])
@pytest.mark.parametrize("empty", [0, 1, 3])
def test_empty_messages_are_told_from_the_end(empty: int, end: str) -> None:
    with unix_seqpacket.LINK.open() as link, pair(link, watch=False) as (a, b):
        a.call("send_all", [b"full", *[b""] * empty])
        if end == "close":
            a.call("close")
        else:
            a.kill()
        assert b.call("recv_all", [10] * (empty + 1)) == [b"full", *[b""] * empty]
        for _ in range(2):
            with pytest.raises(PeerGone):
                b.call("recv", 10)


def test_messages_come_before_a_reset_that_overtakes_them() -> None:
    """The one who closes has not read everything: the kernel says ECONNRESET first, with messages still there."""
    with unix_seqpacket.LINK.open() as link:
        a, b = both(link)
        with a, b:
            b.send(b"never read")
            a.send(b"first")
            a.send(b"second")
            a.close()
            with pytest.raises(PeerGone):
                b.send(b"too late")
            assert [receive(b), receive(b)] == [b"first", b"second"]
            with pytest.raises(PeerGone):
                receive(b)


# --- Unix: messages and their size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [unix_datagram, unix_seqpacket])
@pytest.mark.parametrize("message_bytes", [1, 65536, 1 << 20, 1 << 22, 1 << 30])
def test_the_limit_is_what_really_passes(module: Any, message_bytes: int) -> None:
    with module.LINK.open(message_bytes=message_bytes, depth=2) as link:
        a, b = both(link)
        with a, b:
            assert a.limit_bytes >= min(message_bytes, 65536)
            a.send(bytes(a.limit_bytes), 30.0)
            assert b.recv_into(bytearray(a.limit_bytes), 30.0) == a.limit_bytes
            with pytest.raises(MessageTooLarge, match="SO_SNDBUF"):
                a.send(bytes(a.limit_bytes + 1), 30.0)


def test_a_link_has_room_for_as_many_messages_as_asked() -> None:
    for module in (unix_datagram, unix_seqpacket):
        with module.LINK.open(message_bytes=30_000, depth=20) as link:
            a, b = both(link)
            with a, b:
                for _ in range(20):
                    a.send(bytes(30_000), 0)


# --- Unix: datagram ---------------------------------------------------------------------------------------------------


def test_a_datagram_receiver_is_not_told_but_a_sender_is() -> None:
    with unix_datagram.LINK.open() as link, pair(link, watch=False) as (a, b):
        a.call("send", b"last words")
        a.kill()
        assert b.call("recv", 100) == b"last words"
        with pytest.raises(TimedOut):
            b.call("recv", 100, 0.05)
        with pytest.raises(PeerGone) as caught:
            b.call("send", b"anybody there?")
        assert caught.value.errno == errno.ECONNREFUSED
        with pytest.raises(PeerGone):  # known by now
            b.call("recv", 100)


def test_a_datagram_sender_that_sleeps_is_woken_by_the_receivers_death() -> None:
    with unix_datagram.LINK.open() as link, pair(link, watch=False) as (a, b):
        sending = a.start("send_for_ever", bytes(4096))
        a.until_asleep()
        b.kill()
        with pytest.raises(PeerGone):
            sending.result()


# --- streams: half-close ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [unix_stream, tcp])
def test_a_half_closed_stream_still_receives(module: Any) -> None:
    with module.LINK.open() as link:
        a, b = both(link)
        with a, b:
            a.send(b"question")
            a.finish()
            with pytest.raises(IpclabError, match="finish"):
                a.send(b"more")
            assert receive(b, 8) == b"question"
            with pytest.raises(PeerGone):
                receive(b, 1)
            b.send(b"answer")
            assert receive(a, 6) == b"answer"


# --- TCP --------------------------------------------------------------------------------------------------------------


def test_only_the_connection_we_made_is_accepted() -> None:
    with _loopback.bound_socket(socket.SOCK_STREAM, "tcp") as listener:
        listener.listen(8)
        listener.settimeout(30.0)
        with socket.create_connection(listener.getsockname()[:2]) as stranger, socket.socket() as ours:
            ours.connect(listener.getsockname())
            with _loopback._accept_from(listener, ours.getsockname()) as accepted:
                assert accepted.getpeername() == ours.getsockname() != stranger.getsockname()
            stranger.settimeout(30.0)
            with suppress(ConnectionResetError):
                assert stranger.recv(1) == b""  # closed on it


def test_nobody_can_connect_once_the_link_is_made() -> None:
    with tcp.LINK.open() as link, link.take("a") as a, link.take("b"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(a._sock.getsockname()[:2], timeout=10.0)
        assert a._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert a._sock.getsockname()[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize("size", [1, 100_000])
def test_an_orderly_close_loses_nothing_although_something_was_not_read(size: int) -> None:
    with tcp.LINK.open() as link, pair(link, watch=False) as (a, b):
        b.call("send", b"never read")
        a.call("send", bytes(size))
        a.call("close")
        assert b.call("recv", size) == bytes(size)
        with pytest.raises(PeerGone):
            b.call("recv", 1)


def test_a_killed_end_with_unread_data_resets_the_connection() -> None:
    with tcp.LINK.open() as link, pair(link, watch=False) as (a, b):
        b.call("send", b"never read")
        receiving = b.start("recv", 1)
        b.until_asleep()
        a.kill()
        with pytest.raises(PeerGone) as caught:
            receiving.result()
        assert caught.value.errno == errno.ECONNRESET


# --- UDP --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def udp_ends() -> Iterator[tuple[Any, Any]]:
    with udp.LINK.open(message_bytes=1000, depth=4) as link:
        a, b = both(link)
        with a, b:
            yield a, b


@contextmanager
def delivered() -> Iterator[None]:
    """Every datagram sent in the block has come to its socket, or been dropped, when it ends.

    A busy kernel delivers later, but what was sent on one CPU in order: so one more, which is waited for, is the last.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
        left, right = udp.udp_pair("test")
        with left, right:
            left.send(b"!")
            right.settimeout(30.0)
            assert right.recv(1) == b"!"
    finally:
        os.sched_setaffinity(0, before)


def test_what_the_kernel_dropped_is_counted(udp_ends: tuple[Any, Any]) -> None:
    a, b = udp_ends
    sent = 5000
    with delivered():
        for number in range(sent):
            a.send(number.to_bytes(4, "big") + bytes(996))
    received, lost = [], 0
    for _ in range(2 * sent):
        try:
            received.append(int.from_bytes(receive(b, 1000, 0.0)[:4], "big"))
        except TimedOut:
            break
    assert received == list(range(len(received)))  # the buffer keeps the first ones
    a.send(b"\xff" * 4)
    with pytest.raises(udp.DatagramsLost) as caught:
        receive(b)
    lost = caught.value.lost
    assert len(received) + lost == sent
    assert receive(b) == b"\xff" * 4
    assert pickle.loads(pickle.dumps(caught.value)).lost == lost


def test_the_goodbye_tells_what_is_missing_at_the_end(udp_ends: tuple[Any, Any]) -> None:
    a, b = udp_ends
    a.send(b"one")
    assert receive(b) == b"one"
    a._sent += 2  # as if two had been dropped
    a.close()
    with pytest.raises(udp.DatagramsLost) as caught:
        receive(b)
    assert caught.value.lost == 2
    for _ in range(2):
        with pytest.raises(PeerGone):
            receive(b)
    with pytest.raises(PeerGone):
        b.send(b"x")


def test_an_overtaken_datagram_is_lost_once_and_not_delivered_late(udp_ends: tuple[Any, Any]) -> None:
    a, b = udp_ends
    for number in (1, 0, 2):
        a._sent = number
        a.send(b"number %d" % number)
    with pytest.raises(udp.DatagramsLost):
        receive(b)
    assert [receive(b), receive(b)] == [b"number 1", b"number 2"]


def test_a_stranger_cannot_send_to_either_end(udp_ends: tuple[Any, Any]) -> None:
    a, b = udp_ends
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(udp.HEADER.pack(0) + b"forged", b._sock.getsockname())
    with pytest.raises(TimedOut):
        receive(b, 100, 0.05)
    a.send(b"true")
    assert receive(b) == b"true"


def test_a_udp_sender_is_told_late() -> None:
    with udp.LINK.open() as link, pair(link, watch=False) as (a, b):
        a.kill()
        b.call("send", b"into the void")
        b.call("run", until_answered_by_icmp)
        for _ in range(2):
            with pytest.raises(PeerGone):
                b.call("send", b"x")
        with pytest.raises(PeerGone):
            b.call("recv", 10)


def until_answered_by_icmp(part: Any) -> None:
    poller = select.poll()
    poller.register(part.end.fileno(), 0)
    assert poller.poll(30_000) == [(part.end.fileno(), select.POLLERR)]


# --- this machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ALL)
def test_limits_are_read_live(module: Any) -> None:
    for limit in module.limits():
        if limit.source.startswith(("/proc", "/sys")) and limit.value is not None:
            assert str(limit.value) in Path(limit.source).read_text().split()


@pytest.mark.parametrize("module", ALL)
def test_no_descriptor_left_is_one_clear_line(module: Any) -> None:
    with actors(None, "a") as (actor,):
        actor.call("run", open_without_descriptors, module.MECHANISM.name)


def open_without_descriptors(part: Any, name: str) -> None:
    """With room for none, one, two ... more descriptors than are open, until there are enough."""
    from ipclab.mechanisms import load

    link = load(name).LINK
    assert link is not None
    while (fd := os.open("/dev/null", os.O_RDONLY)) < max(open_fds()):
        pass  # no gaps: the limit is on the number, not on how many
    before = open_fds()
    assert max(before) == fd
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(20):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1 + room, hard))
        told = ""
        try:
            link.open().close()
        except NoRoom as err:
            told = str(err)
        assert open_fds() == before
        if not told:
            assert room >= 2
            return
        assert "ulimit -n" in told
    raise AssertionError("twenty descriptors are not enough")


def open_fds() -> set[int]:
    """Looked at one by one: a list of them would need a descriptor."""
    found = set()
    for fd in range(256):
        with suppress(OSError):
            os.fstat(fd)
            found.add(fd)
    return found


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
@pytest.mark.parametrize("module", [tcp, udp])
def test_ipv6_serves_where_there_is_no_ipv4(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError as err:
        pytest.skip(f"::1: {err}")
    # An address that no interface has is refused just as 127.0.0.1 is where IPv4 is missing.
    monkeypatch.setattr(_loopback, "address", lambda f: ("203.0.113.7" if f == socket.AF_INET else "::1", 0))
    assert module.probe().works
    with module.LINK.open() as link:
        a, b = both(link)
        with a, b:
            a.send(b"over six")
            assert receive(b, 8) == b"over six"
            if module is udp:
                a.send(bytes(a.limit_bytes), 30.0)
                assert b.recv_into(bytearray(a.limit_bytes), 30.0) == a.limit_bytes == 65519


def test_without_a_loopback_interface_it_is_not_here() -> None:
    """In a network namespace of its own, where `lo` exists but is down."""
    script = (
        "from ipclab.mechanisms import load\n"
        "from ipclab.errors import Unavailable\n"
        "for name in ('tcp', 'udp', 'zmq-tcp'):\n"
        "    probe = load(name).probe()\n"
        "    assert not probe.works and 'lo up' in probe.remedy, (name, probe)\n"
        "    try: load(name).LINK.open()\n"
        "    except Unavailable as err: print(err)\n"
    )
    try:
        subprocess.run(["unshare", "-rn", "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as err:
        pytest.skip(f"no network namespace of our own: {err}")
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("module", ALL)
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_side_is_taken_once(module: Any, side: Side) -> None:
    with module.LINK.open() as link, link.take(side):
        with pytest.raises(UsageError, match="already"):
            link.take(side)


def test_the_largest_message_shrinks_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOBUFS above a megabyte, imitated: the limit is then what passes, and the kernel itself refuses more."""
    passes = _unix._passes
    monkeypatch.setattr(_unix, "_passes", lambda a, b, size: size < 1 << 20 and passes(a, b, size))
    with unix_seqpacket.LINK.open(message_bytes=300_000, depth=8) as link:
        a, b = both(link)
        with a, b:
            assert 300_000 <= a.limit_bytes < 1 << 20
            with pytest.raises(MessageTooLarge) as caught:
                a.send(bytes(a.limit_bytes + 1), 30.0)
            assert caught.value.errno == errno.EMSGSIZE

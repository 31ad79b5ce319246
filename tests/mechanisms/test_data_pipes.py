"""Pipe, vmsplice and FIFO beyond the common suite, and the loop under every byte stream."""

from __future__ import annotations

import os
import random
import stat
from typing import Any

import pytest
from actors import actors, pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipclab.errors import IpclabError, NameInUse, PeerGone, TimedOut, UsageError
from ipclab.mechanisms.base import Deadline
from ipclab.mechanisms.data import _pipes
from ipclab.mechanisms.data._cloakroom import Cloakroom
from ipclab.mechanisms.data._streams import byte_view, wait_ready
from ipclab.mechanisms.data.fifo import FifoLink
from ipclab.mechanisms.data.pipe import PipeLink
from ipclab.mechanisms.data.vmsplice import Staging, VmspliceLink
from ipclab.processes import registry

PAGE = os.sysconf("SC_PAGESIZE")


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_a_stream_that_ends_in_the_middle_of_a_message_says_so_and_is_broken() -> None:
    with PipeLink.open() as link, pair(link) as (a, b):
        receiving = b.start("recv", 10)
        a.call("send", b"four")
        a.kill()
        with pytest.raises(PeerGone, match="4 of 10 bytes were received"):
            receiving.result()
        with pytest.raises(IpclabError, match="broken"):
            b.call("recv", 1)


def test_a_receive_that_times_out_half_way_is_broken_but_the_other_direction_lives() -> None:
    with PipeLink.open() as link, pair(link) as (a, b):
        a.call("send", b"four")
        with pytest.raises(TimedOut, match="4 of 10 bytes"):
            b.call("recv", 10, 0.05)
        with pytest.raises(IpclabError, match="the stream is broken: 4 of 10"):
            b.call("recv", 6, 0.05)
        b.call("send", b"back")
        assert a.call("recv", 4) == b"back"


def test_ctrl_c_half_way_breaks_the_stream_before_the_first_byte_it_does_not() -> None:
    with PipeLink.open() as link, pair(link) as (a, b):
        for sent, expected in ((b"", None), (b"four", IpclabError)):
            a.call("send", sent)
            receiving = b.start("recv", 10)
            b.until_asleep()
            b.interrupt()
            with pytest.raises(KeyboardInterrupt):
                receiving.result()
            if expected is None:
                a.call("send", b"0123456789")
                assert b.call("recv", 10) == b"0123456789"
            else:
                with pytest.raises(expected, match="broken"):
                    b.call("recv", 10)


@pytest.mark.parametrize("kind", [PipeLink, VmspliceLink])
def test_ctrl_c_in_the_middle_of_one_long_write_is_not_forgotten(kind: Any) -> None:
    """The interrupted write(2) returns what it has written, and nobody but the loop sees that."""
    with kind.open() as link, pair(link, watch=False) as (a, _):
        sending = a.start("send", bytes(8 << 20))
        a.until_asleep()
        a.interrupt()
        with pytest.raises(KeyboardInterrupt):
            sending.result()
        with pytest.raises(IpclabError, match="broken"):
            a.call("send", b"x", 0)


def test_a_watched_peer_is_missed_although_a_third_process_holds_its_end() -> None:
    """What `watch` is for on a pipe: end-of-file cannot come as long as anybody holds the write end."""
    with PipeLink.open() as link, actors(link, "b") as (b,):
        with link.take("a"):  # this process is a...
            b.call("take", "b")
            pid = os.fork()
            if pid == 0:  # ... and a child that inherited a's descriptors is whom b watches
                os.read(_pipe_for_ever, 1)
                os._exit(0)
            try:
                b.call("watch", pid)
                receiving = b.start("recv", 1)
                b.until_asleep()
            finally:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            with pytest.raises(PeerGone, match="has ended"):
                receiving.result()


@pytest.fixture(autouse=True)
def pipe_for_ever() -> Any:
    """Something to block on."""
    global _pipe_for_ever
    _pipe_for_ever, write_fd = os.pipe()
    yield
    os.close(_pipe_for_ever)
    os.close(write_fd)


_pipe_for_ever = -1


def test_waiting_tells_ready_from_gone_from_late() -> None:
    read_fd, write_fd = os.pipe()
    try:
        with pytest.raises(TimedOut, match="something"):
            wait_ready(read_fd, 1, Deadline(0), None, "something")
        os.write(write_fd, b"x")
        assert wait_ready(read_fd, 1, Deadline(0), None, "something")
        assert wait_ready(read_fd, 1, Deadline(10**9), None, "longer than poll(2) can wait at once")
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_byte_view_flattens_and_refuses_what_cannot_be_written() -> None:
    from array import array

    with byte_view(array("I", [1, 2])) as view:
        assert (view.nbytes, view.format, view.ndim) == (8, "B", 1)
    with byte_view(memoryview(b"").cast("B")) as view:
        assert len(view) == 0
    with pytest.raises(TypeError, match="writable"):
        byte_view(b"x", writable=True)
    with pytest.raises(TypeError):
        byte_view(memoryview(b"abcd")[::2])


# --- the cloakroom ----------------------------------------------------------------------------------------------------


def test_a_side_is_taken_once() -> None:
    with PipeLink.open() as link:
        link.take("a").close()
        with pytest.raises(UsageError, match="'a' has been taken"):
            link.take("a")
        link.take("b").close()
    with pytest.raises(IpclabError, match="closed"):
        link.take("b")


def test_descriptors_are_not_inherited_by_programs() -> None:
    with PipeLink.open() as link, link.take("a") as a:
        assert not os.get_inheritable(a.fileno())
        assert not os.get_inheritable(a._write_fd())


def test_descriptors_left_are_closed_here() -> None:
    cloakroom = Cloakroom("test")
    read_fd, write_fd = os.pipe()
    cloakroom.leave("a", [read_fd])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(read_fd)
    (fetched,) = cloakroom.fetch("a")
    os.write(write_fd, b"through")
    assert os.read(fetched, 10) == b"through"
    os.close(fetched)
    cloakroom.leave("b", [os.dup(write_fd)])
    cloakroom.close()  # closes what nobody fetched, too: conftest looks
    os.close(write_fd)


# --- pipe -------------------------------------------------------------------------------------------------------------


def test_a_pipe_has_room_for_all_messages_or_what_the_kernel_gives() -> None:
    with PipeLink.open(message_bytes=65536, depth=8) as link:
        assert 65536 <= link.capacity_bytes <= 8 * 65536
        with link.take("a") as end:
            assert end.capacity_bytes == link.capacity_bytes


def test_a_pipe_can_be_made_small() -> None:
    with PipeLink.open(capacity_bytes=1) as link, link.take("a") as end:
        assert end.capacity_bytes == PAGE
        for _ in range(PAGE // 64):
            end.send(bytes(64), 0)
        with pytest.raises(TimedOut):
            end.send(bytes(64), 0)


def test_asking_for_too_much_gets_the_most() -> None:
    read_fd, write_fd = os.pipe()
    try:
        most = _pipes.resize(write_fd, 1 << 40)
        assert most >= 65536
        assert _pipes.capacity(write_fd) == most
        assert _pipes.enlarge(write_fd, 1) == most
        os.write(write_fd, bytes(PAGE + 1))
        assert _pipes.resize(write_fd, PAGE) == most  # EBUSY: more than that is in it
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_limits_are_read_from_this_machine() -> None:
    limits = {limit.name: limit for limit in _pipes.pipe_limits()}
    assert limits["largest atomic write"].value == 4096
    assert limits["capacity of a new pipe"].value in (2 * PAGE, 16 * PAGE)
    with open("/proc/sys/fs/pipe-max-size") as file:
        assert limits["largest capacity without CAP_SYS_RESOURCE"].value == int(file.read())


# --- vmsplice ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(1, 6 * PAGE), st.integers(1, 4)), max_size=30), st.integers(1, 4))
def test_staged_pages_are_never_written_while_they_are_in_the_pipe(rounds: list[tuple[int, int]], slots: int) -> None:
    """A model of the pipe: it holds references to at most `slots` pages, and each still has what was put in."""
    staging = Staging(slots)
    in_pipe: list[tuple[memoryview, bytes]] = []
    rng = random.Random(1)
    for size, taken in rounds:
        message = rng.randbytes(size)
        done = 0
        while done < len(message):
            staged = staging.stage(memoryview(message)[done:], done)
            assert bytes(staged) == message[done : done + len(staged)]
            del in_pipe[: len(in_pipe) - (slots - 1)]  # the reader has made room for one page at least
            pages = [staged[at : at + PAGE] for at in range(0, len(staged), PAGE)][: slots - len(in_pipe)]
            in_pipe += [(page, bytes(page)) for page in pages]
            done += sum(len(page) for page in pages)
            assert all(bytes(page) == content for page, content in in_pipe)
        staging.finish(done)
        del in_pipe[:taken]
    in_pipe.clear()
    staged = pages = memoryview(b"")  # type: ignore[assignment]
    staging.close()


def test_messages_spliced_far_ahead_of_a_slow_reader_arrive_unchanged() -> None:
    with VmspliceLink.open(message_bytes=PAGE, depth=4) as link, pair(link) as (a, b):
        rng = random.Random(2)
        messages = [rng.randbytes(rng.choice((1, 100, PAGE, PAGE + 1, 50_000))) for _ in range(60)]
        sending = a.start("send_all", messages)
        a.until_asleep()
        for message in messages:
            assert b.call("recv", len(message)) == message
        sending.result()


def test_sending_in_place_returns_when_the_reader_has_taken_the_pages() -> None:
    with VmspliceLink.open() as link, pair(link) as (a, b):
        data = random.Random(3).randbytes(300_000)
        sending = a.start("run", send_in_place, data, None)
        a.until_asleep()
        assert b.call("recv", 200_000) == data[:200_000]
        a.until_asleep()
        assert b.call("recv", 100_000) == data[200_000:]
        sending.result()


def send_in_place(part: Any, data: bytes, timeout_s: float | None) -> None:
    part.end.send_in_place(data, timeout_s)


def test_sending_in_place_that_ends_early_breaks_the_stream() -> None:
    with VmspliceLink.open() as link, pair(link) as (a, b):
        with pytest.raises(TimedOut, match="taken the pages"):
            a.call("run", send_in_place, b"x" * 100, 0.05)
        with pytest.raises(IpclabError, match="broken"):
            a.call("send", b"y")
        sending = b.start("run", send_in_place, b"z" * 100, None)
        b.until_asleep()
        a.kill()
        with pytest.raises(PeerGone):
            sending.result()


# --- fifo -------------------------------------------------------------------------------------------------------------


def test_a_fifo_is_a_file_of_its_owner_alone() -> None:
    with FifoLink.open() as link:
        for path in link.paths.values():
            mode = path.stat().st_mode
            assert stat.S_ISFIFO(mode)
            assert stat.S_IMODE(mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nobody_on_the_other_side_of_a_fifo_is_noticed() -> None:
    with FifoLink.open() as link:
        link.meet_s = 0.05
        for _ in range(2):
            with pytest.raises(TimedOut, match="until the other side"):
                link.take("a")


def test_the_sides_of_a_fifo_meet_in_any_order_and_part_before_the_first_message() -> None:
    for first, second in (("a", "b"), ("b", "a")):
        with FifoLink.open() as link, actors(link, "a", "b") as crew:
            early, late = crew if first == "a" else reversed(crew)
            taking = early.start("take", first)
            early.until_asleep()
            late.call("take", second)
            taking.result()
            late.kill()
            with pytest.raises(PeerGone):
                early.call("recv", 1)
            with pytest.raises(PeerGone):
                early.call("send", b"x")


def test_ctrl_c_while_nobody_comes_to_a_fifo() -> None:
    with FifoLink.open() as link, actors(link, "a") as (a,):
        before = a.call("count_fds")
        taking = a.start("take", "a")
        a.until_asleep()
        a.interrupt()
        with pytest.raises(KeyboardInterrupt):
            taking.result()
        assert a.call("count_fds") == before


def test_a_fifo_that_is_closed_cannot_be_taken() -> None:
    with FifoLink.open() as link:
        pass
    with pytest.raises(IpclabError, match="closed"):
        link.take("a")


def test_a_fifo_whose_path_is_taken_leaves_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with FifoLink.open() as link:
        path = link.paths["a"]
        monkeypatch.setattr(registry, "new_path", lambda label: path)
        with pytest.raises(NameInUse):
            FifoLink.open()
        monkeypatch.undo()
        assert path.exists()
        registry.clean()  # nothing to do: the owner lives
        assert path.exists()

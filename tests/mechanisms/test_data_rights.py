"""Passing descriptors: nothing is lost in silence, nothing leaks, nothing changes behind the reader's back."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from actors import pair

from ipclab.errors import BufferTooSmall, IpclabError, MessageTooLarge, NoRoom, PeerGone
from ipclab.mechanisms.base import Peer
from ipclab.mechanisms.data import fd_passing
from ipclab.mechanisms.data._cloakroom import Cloakroom
from ipclab.mechanisms.data._rights import recv_rights, send_rights
from ipclab.mechanisms.data.fd_passing import FdPassingEnd, FdPassingLink, recv_fd, send_fd


def count_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """This process may open so many more descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], before[1]))
    for fd in free:
        os.close(fd)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_descriptor_arrives_as_a_new_one_of_the_same_file(sockets: Any, tmp_path: Path) -> None:
    left, right = sockets
    with open(tmp_path / "file", "w+b") as file:
        file.write(b"content")
        file.flush()
        send_fd(left, file.fileno(), b"a note")
        fd, note = recv_fd(right)
        try:
            assert note == b"a note"
            assert fd != file.fileno()
            assert os.path.sameopenfile(fd, file.fileno())
            assert os.lseek(fd, 0, os.SEEK_CUR) == 7  # one open file description, one offset
            assert not os.get_inheritable(fd)
        finally:
            os.close(fd)


def test_flags_are_obeyed(sockets: Any) -> None:
    _, right = sockets
    with pytest.raises(BlockingIOError):
        recv_fd(right, flags=socket.MSG_DONTWAIT)


def test_a_message_without_a_descriptor_is_an_error(sockets: Any) -> None:
    left, right = sockets
    left.send(b"hello")
    with pytest.raises(IpclabError, match="5 bytes came without a descriptor"):
        recv_fd(right)


def test_more_descriptors_than_asked_for_do_not_leak(sockets: Any) -> None:
    left, right = sockets
    before = count_fds()
    send_rights(left, b"three", [0, 0, 0])
    with pytest.raises(NoRoom, match="MSG_CTRUNC"):
        recv_fd(right)
    assert count_fds() == before


def test_several_descriptors_at_once(sockets: Any) -> None:
    left, right = sockets
    send_rights(left, b"x", [0] * fd_passing.SCM_MAX_FD)
    note, fds, lost = recv_rights(right, 10, fd_passing.SCM_MAX_FD)
    for fd in fds:
        os.close(fd)
    assert (note, len(fds), lost) == (b"x", fd_passing.SCM_MAX_FD, False)
    with pytest.raises(OSError, match="Invalid argument"):
        send_rights(left, b"x", [0] * (fd_passing.SCM_MAX_FD + 1))


def test_the_end_of_the_other_side(sockets: Any) -> None:
    left, right = sockets
    left.close()
    with pytest.raises(PeerGone):
        recv_fd(right)
    with pytest.raises(PeerGone):
        send_fd(right, 0)


def test_no_descriptor_left_at_the_receiver_is_said(sockets: Any) -> None:
    left, right = sockets
    send_fd(left, 0)
    with room_for(0), pytest.raises(NoRoom, match="RLIMIT_NOFILE"):
        recv_fd(right)


def test_no_descriptor_left_for_a_message_is_said_and_nothing_was_sent() -> None:
    with FdPassingLink.open() as link, link.take("a") as a, link.take("b") as b:
        with room_for(0), pytest.raises(NoRoom):
            a.send(b"x")
        with room_for(1):
            a.send(b"y")
        assert b.recv_into(bytearray(1), 1.0) == 1


@pytest.mark.parametrize("room", range(11))
def test_a_link_that_cannot_be_opened_leaves_nothing(room: int) -> None:
    from ipclab.mechanisms.data.pipe import PipeLink
    from ipclab.mechanisms.data.process_vm import ProcessVmLink

    before = count_fds()
    for kind, needs in ((PipeLink, 6), (ProcessVmLink, 10), (FdPassingLink, 4)):
        with room_for(room):
            if room < needs:
                with pytest.raises(NoRoom, match="ulimit -n"):
                    kind.open()
            else:
                kind.open().close()
    assert count_fds() == before


def test_a_cloakroom_that_cannot_be_emptied_says_so() -> None:
    cloakroom = Cloakroom("test")
    cloakroom.leave("a", [os.dup(0), os.dup(0)])
    with room_for(1), pytest.raises(NoRoom, match="ulimit -n"):
        cloakroom.fetch("a")
    cloakroom.close()


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_a_sealed_file_that_can_be_mapped() -> None:
    with FdPassingLink.open() as link, link.take("a") as a, link.take("b") as b:
        a.send(b"read me in place")
        fd = b.recv_memfd(1.0)
        try:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
                assert view[:] == b"read me in place"
            with pytest.raises(OSError, match="not permitted"):
                os.write(fd, b"x")
            with pytest.raises(OSError, match="not permitted"):
                os.ftruncate(fd, 0)
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == fd_passing.SEALS
        finally:
            os.close(fd)


def test_a_file_that_is_not_sealed_is_refused() -> None:
    before = count_fds()
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, FdPassingEnd(right) as end:
        for name in ("/dev/null", "memfd"):
            fd = os.open(name, os.O_RDWR) if name.startswith("/") else os.memfd_create("x")
            send_fd(left, fd)
            os.close(fd)
            with pytest.raises(IpclabError, match="not sealed"):
                end.recv_into(bytearray(10), 1.0)
    assert count_fds() == before


def test_a_message_that_did_not_fit_can_be_taken_as_a_file_or_is_closed_with_the_end() -> None:
    with FdPassingLink.open() as link, link.take("a") as a, link.take("b") as b:
        for message in (b"first", b"second"):
            a.send(message)
        with pytest.raises(BufferTooSmall, match="5"):
            b.recv_into(bytearray(1))
        fd = b.recv_memfd()
        assert os.pread(fd, 10, 0) == b"first"
        os.close(fd)
        with pytest.raises(BufferTooSmall, match="6"):
            b.recv_into(bytearray(1))  # and closed with the end: conftest looks


def test_a_file_size_limit_is_a_message_limit() -> None:
    with FdPassingLink.open() as link, pair(link) as (a, b):
        a.call("run", limit_file_size, 5000)
        with pytest.raises(MessageTooLarge, match=r"5000 bytes \(RLIMIT_FSIZE"):
            a.call("send", bytes(5001))
        a.call("send", bytes(5000))
        assert b.call("recv", 5000) == bytes(5000)


def limit_file_size(part: Any, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_the_depth_bounds_what_waits() -> None:
    with FdPassingLink.open(depth=4) as link, pair(link) as (a, _):
        assert 2 <= a.call("send_until_full", b"x", 0.0) <= 16


def test_a_peer_that_cannot_be_watched_is_said_and_the_one_before_still_is() -> None:
    first = Peer(os.getpid())
    with room_for(0), pytest.raises(NoRoom, match=r"watching process \d+: .*RLIMIT_NOFILE"):
        Peer.instead_of(first, os.getppid())
    assert not first.gone()
    second = Peer.instead_of(first, os.getppid())
    assert first.gone()
    assert not second.gone()
    second.close()

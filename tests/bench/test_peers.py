"""Other libraries' channels, measured as further mechanisms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclab.bench import links, peers, plan, sample
from ipclab.bench.python_driver import DRIVER
from ipclab.errors import Unavailable
from ipclab.records import Case

if TYPE_CHECKING:
    from ipclab.records import Pattern

NAMES = tuple(peers.PEERS)
MESSAGES = 200


def case_of(peer: str, pattern: Pattern, size_bytes: int = 64) -> Case:
    """On the first and the last CPU that are ours."""
    cpus = sorted(os.sched_getaffinity(0))
    rate = 5_000.0 if pattern == "openloop" else None
    return Case(
        mechanism=peer,
        driver="python",
        pattern=pattern,
        size_bytes=size_bytes,
        cpus=(cpus[0], cpus[-1]),
        rate_per_s=rate,
    )


@pytest.mark.parametrize("size_bytes", [1, 64, 65536])
@pytest.mark.parametrize("pattern", ["throughput", "pingpong", "openloop"])
@pytest.mark.parametrize("peer", NAMES)
def test_a_peer_moves_messages(peer: str, pattern: Pattern, size_bytes: int) -> None:
    case = case_of(peer, pattern, size_bytes)
    if (reason := DRIVER.cost_free_reason(case)) is not None:
        pytest.skip(reason)
    taken = sample.take(DRIVER, sample.Order(case, 0, MESSAGES, 20, 60))
    assert taken.sample.failure == ""
    assert taken.sample.messages == MESSAGES - (pattern == "throughput")


@pytest.mark.parametrize("peer", NAMES)
def test_a_peer_has_no_native_loop(peer: str) -> None:
    reason = plan.driver("native").cost_free_reason(case_of(peer, "throughput"))
    assert reason is not None
    assert "python driver" in reason or "pip install" in reason


@pytest.mark.parametrize("peer", ["faster-fifo", "iceoryx2"])
def test_a_missing_package_is_one_line_that_names_the_extra(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda _name: None)
    with pytest.raises(Unavailable, match=r"pip install 'ipclab\[peers\]'"):
        links.find(peer)
    reason = DRIVER.cost_free_reason(case_of(peer, "throughput"))
    assert reason is not None
    assert "\n" not in reason
    assert peer in peers.missing()


def test_iceoryx2_leaves_nothing_when_its_user_is_killed() -> None:
    pytest.importorskip("iceoryx2")
    link = peers.Iceoryx2Link.open(message_bytes=64, depth=8)
    with link:
        pid = os.fork()
        if pid == 0:
            link.take("a")
            os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        assert list(Path("/dev/shm").glob("*iceoryx2*"))
    assert not [path for path in Path("/dev/shm").glob("ipclab-*iceoryx2*") if f"-{os.getpid()}-" in path.name]


def test_an_object_that_does_not_fit_a_buffer_is_refused() -> None:
    from ipclab.errors import BufferTooSmall

    with peers.SimpleQueueLink.open() as link, link.take("a") as end:
        link._queues[1].put(b"x" * 10)
        with pytest.raises(BufferTooSmall):
            end.recv_into(bytearray(9))

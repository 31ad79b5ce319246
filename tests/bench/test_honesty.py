"""A row that lies is no row: whatever a mechanism does wrong to one message makes the sample fail with its number."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import planted
import pytest

from ipclab.bench import sample, statistics
from ipclab.bench.native_driver import NativeDriver
from ipclab.bench.python_driver import PythonDriver
from ipclab.mechanisms.data.pipe import PipeLink
from ipclab.mechanisms.data.unix_seqpacket import UnixSeqpacketLink
from ipclab.records import Case

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Link
    from ipclab.records import Pattern, Sample

DRIVERS: dict[str, type[NativeDriver] | type[PythonDriver]] = {"python": PythonDriver, "native": NativeDriver}
#: In a sample here; the fault is at one of them, and every loop looks at each the same way, however many there are.
MESSAGES = 3000
WARM_UP = 20


def take(
    link: type[Link],
    driver: str,
    pattern: Pattern = "throughput",
    *,
    messages: int = MESSAGES,
    deadline_s: float = 60,
    size_bytes: int = 64,
) -> Sample:
    """One sample over a planted link, as a run would take it."""
    cpus = sorted(os.sched_getaffinity(0))
    case = Case(
        mechanism="planted",
        driver=driver,  # type: ignore[arg-type]
        pattern=pattern,
        size_bytes=size_bytes,
        cpus=(cpus[0], cpus[-1]),
    )
    order = sample.Order(case, 0, messages, WARM_UP, deadline_s)
    taken = sample.take(DRIVERS[driver](lambda _name: link), order).sample
    (row,) = statistics.rows((case,), (taken,), ())
    assert row.failure == taken.failure, "what failed is in the row"
    assert not (taken.failure and taken.kept)
    return taken


def lying(kind: type[Any], **traits: Any) -> type[Link]:
    """A planted link's class with these traits."""
    made: type[Link] = type("Lying", (kind,), traits)
    return made


@pytest.fixture
def at() -> int:
    """The message that suffers; its number is in what a failing test prints."""
    number = random.randrange(WARM_UP, WARM_UP + MESSAGES - 2)
    print(f"message {number}")
    return number


@pytest.mark.parametrize("pattern", ["throughput", "pingpong"])
@pytest.mark.parametrize(("driver", "link"), [("python", planted.FaultyLink), ("native", planted.RelayLink)])
def test_an_honest_link_passes(driver: str, link: type[Link], pattern: Pattern) -> None:
    assert take(link, driver, pattern, messages=500).failure == ""


@pytest.mark.parametrize("fault", ["drop", "reorder", "truncate", "corrupt", "repeat"])
@pytest.mark.parametrize("base", [UnixSeqpacketLink, PipeLink], ids=lambda base: base.name)
@pytest.mark.parametrize(("driver", "link"), [("python", planted.FaultyLink), ("native", planted.RelayLink)])
def test_one_message_that_suffers_is_named(
    driver: str, link: type[Link], base: type[Link], fault: str, at: int
) -> None:
    failure = take(lying(link, base=base, fault=fault, at=at), driver).failure
    wrong = at + 1 if fault == "repeat" else at  # the first copy is the right one
    assert f"message {wrong} " in failure
    assert "the receiver b" in failure


@pytest.mark.parametrize("driver", ["python", "native"])
def test_the_last_message_lost_is_missed(driver: str) -> None:
    # Few: all others have to be through before the deadline, on however busy a machine.
    last = WARM_UP + 50 - 1
    kind = planted.FaultyLink if driver == "python" else planted.RelayLink
    failure = take(lying(kind, fault="drop", at=last), driver, messages=50, deadline_s=4).failure
    assert f"message {last} did not come before the deadline" in failure


@pytest.mark.parametrize("fault", ["corrupt", "truncate"])
@pytest.mark.parametrize(("driver", "link"), [("python", planted.FaultyLink), ("native", planted.RelayLink)])
def test_a_wrong_question_is_named_in_ping_pong(driver: str, link: type[Link], fault: str, at: int) -> None:
    number = at % 500 + WARM_UP
    failure = take(lying(link, fault=fault, at=number), driver, "pingpong", messages=1000).failure
    assert f"message {number} " in failure


def test_a_payload_that_is_never_read_is_seen() -> None:
    failure = take(lying(planted.FaultyLink, end=planted.BlindEnd, side="b"), "python").failure
    assert "message 0 is not what was sent" in failure


def test_an_answer_before_the_question_arrived_is_seen() -> None:
    failure = take(lying(planted.FaultyLink, end=planted.HastyEnd), "python", "pingpong", deadline_s=4).failure
    assert "message 0 did not come before the deadline" in failure


def test_an_acknowledgement_without_delivery_is_seen() -> None:
    failure = take(lying(planted.FaultyLink, end=planted.HastyEnd), "python", deadline_s=4).failure
    assert "message 0 did not come before the deadline" in failure


def test_a_receiver_killed_at_a_message_fails_the_sample(at: int) -> None:
    failure = take(lying(planted.FaultyLink, end=planted.DyingEnd, side="b", at=at), "python").failure
    assert "the receiver b was ended by SIGKILL" in failure


@pytest.mark.parametrize("pattern", ["throughput", "pingpong"])
@pytest.mark.parametrize("driver", ["python", "native"])
def test_a_receiver_killed_in_the_loop_fails_the_sample(driver: str, pattern: Pattern) -> None:
    failure = take(planted.ShortLivedLink, driver, pattern, messages=100_000_000).failure
    assert "the receiver b was ended by SIGKILL" in failure

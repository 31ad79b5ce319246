"""Several producers and consumers of one kernel object: every message is accounted for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import planted
import pytest

from ipclab.bench import links, sample
from ipclab.bench.python_driver import PythonDriver
from ipclab.records import Case

if TYPE_CHECKING:
    from ipclab.records import DriverName, Sample

SHARED = ("pipe", "posix-mq", "sysv-mq", "unix-datagram", "unix-seqpacket", "mp-queue", "mp-simplequeue", "faster-fifo")
MESSAGES = 200


def case_of(
    mechanism: str, producers: int, consumers: int, size_bytes: int = 64, driver: DriverName = "python"
) -> Case:
    """On all CPUs that are ours, in turn."""
    cpus = sorted(os.sched_getaffinity(0))
    return Case(
        mechanism=mechanism,
        driver=driver,
        pattern="throughput",
        size_bytes=size_bytes,
        producers=producers,
        consumers=consumers,
        cpus=tuple(cpus[i % len(cpus)] for i in range(producers + consumers)),
    )


def take(case: Case, find: links.Find = links.find, deadline_s: float = 60) -> Sample:
    """One sample, or a skip with the driver's own reason."""
    driver = PythonDriver(find)
    if find is links.find and (reason := driver.cost_free_reason(case)) is not None:
        pytest.skip(reason)
    return sample.take(driver, sample.Order(case, 0, MESSAGES, 20, deadline_s)).sample


@pytest.mark.parametrize(("producers", "consumers"), [(1, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize("mechanism", SHARED)
def test_a_fan_moves_all_messages(mechanism: str, producers: int, consumers: int) -> None:
    taken = take(case_of(mechanism, producers, consumers))
    assert taken.failure == ""
    assert taken.messages == MESSAGES * producers - consumers  # each one's clock starts at its first message
    assert len(taken.sides) == producers + consumers


@pytest.mark.parametrize("fault", ["drop", "corrupt", "truncate", "repeat", "reorder"])
def test_a_message_that_suffers_is_named(fault: str) -> None:
    lying: Any = type("Lying", (planted.FaultyLink,), {"fault": fault, "at": 100})
    failure = take(case_of("planted", 2, 1), lambda _name: lying).failure
    assert "is not what was sent" in failure
    assert "the receiver b" in failure


def test_a_message_lost_between_many_is_missed() -> None:
    lying: Any = type("Lying", (planted.FaultyLink,), {"fault": "drop", "at": 100})
    failure = take(case_of("planted", 2, 2), lambda _name: lying, 4.0).failure
    assert "did not come before the deadline" in failure


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (case_of("pipe", 2, 1, driver="native"), "python driver"),
        (case_of("fifo", 2, 1), "cannot be inherited"),
        (case_of("pipe", 2, 1, size_bytes=7), "8 bytes or more"),
    ],
)
def test_what_cannot_be_a_fan_says_so(case: Case, words: str) -> None:
    assert words in (links.obstacle(links.find, case) or "")

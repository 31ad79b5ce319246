"""The events of the scheduler: each kind that is declared is written when what it names happens."""

from __future__ import annotations

import time

import pytest

from ipclab import _core
from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.records import SchedEvent
from ipclab.records.event_text import line, stolen

#: How long a run may be repeated until the kernel has let happen what it is about.
PATIENCE_S = 60.0
KINDS = {name for number in range(1, 256) if (name := _core.gmp_event_name(number)) != "unknown"}

#: What makes each happen, in one run of two Ps.
EVERYTHING = Workload(
    title="everything",
    channels={"ping": 0, "pong": 0},
    jobs=[
        Job("yielder", [Block(repeat=80, steps=["compute 20us", "yield"])], count=6),
        Job("parent", [Block(repeat=3, steps=["spawn child 20", "compute 2ms", "sleep 1ms"])]),
        Job("child", ["compute 100us"], count=0),
        Job("long", ["compute 60ms"], count=3),
        Job("locked", ["lockm", Block(repeat=10, steps=["recv ping", "send pong"])]),
        Job("partner", [Block(repeat=10, steps=["send ping", "recv pong"])]),
        Job("caller", ["block 5ms", "blocking 5ms"], count=2),
        Job("serial", ["sleep 3ms", "stopworld 1ms"]),
    ],
)


def events_of(workload: Workload, procs: int, seed: int = 0) -> list[SchedEvent]:
    with Simulation(workload, procs=procs, seed=seed, events=True) as sim:
        assert sim.wait(PATIENCE_S)
        return list(sim.result().events)


def test_every_kind_is_written_and_has_words() -> None:
    seen: dict[str, SchedEvent] = {}
    until = time.monotonic() + PATIENCE_S
    seed = 0
    while KINDS - seen.keys() and time.monotonic() < until:
        seen |= {event.kind: event for event in events_of(EVERYTHING, 2, seed)}
        seed += 1
    assert seen.keys() == KINDS
    assert all(event.kind in line(event, 0) for event in seen.values())


@pytest.mark.parametrize("step", ["blocking 1ms", "block 30ms"])
def test_a_call_that_blocks_gives_its_p_away(step: str) -> None:
    """Said beforehand: by the caller. Not said: by sysmon, who names the P alone, if it has a CPU in time."""
    work = Workload(jobs=[Job("caller", [step]), Job("other", ["compute 60ms"])])
    until = time.monotonic() + PATIENCE_S
    events: list[SchedEvent] = []
    while not any(event.kind == "syscall blocked" for event in events) and time.monotonic() < until:
        events = events_of(work, 1)
    entered = next(event for event in events if event.kind == "syscall enter")
    blocked = next(event for event in events if event.kind == "syscall blocked")
    assert blocked.arg == entered.p
    assert blocked.goid == (entered.goid if entered.arg else 0)
    assert blocked.time_ns > entered.time_ns
    retaken = [event for event in events if event.kind == "retake"]
    assert bool(retaken) is not bool(entered.arg)


def test_a_runnext_is_stolen_in_the_last_pass_alone() -> None:
    """The child is in runnext until somebody takes it for the first time. Later, preempted, it may come into a queue by
    way of the global one, with its parent; from there it is stolen in any pass."""
    one = Workload(jobs=[Job("parent", ["spawn child", "compute 50ms"]), Job("child", ["compute 1ms"], count=0)])
    until = time.monotonic() + PATIENCE_S
    first: SchedEvent | None = None
    while (first is None or first.kind != "steal") and time.monotonic() < until:
        events = events_of(one, 2)
        child = next(event.goid for event in events if event.kind == "create" and event.arg != 1)
        first = next(event for event in events if event.goid == child and event.kind in ("steal", "start"))
    assert first is not None
    assert first.kind == "steal"
    assert (stolen(first).attempt, stolen(first).taken) == (4, 1)

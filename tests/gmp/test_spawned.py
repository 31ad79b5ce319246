"""Which job each G is of, and that nothing uncertain is said."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import pytest

from ipclab import gmp
from ipclab.gmp import Block, Job, Workload
from ipclab.gmp.compile import Program, compile_workload
from ipclab.gmp.spawned import jobs_of
from ipclab.records import SchedEvent, SimResult
from ipclab.views.gmp_export import sim_chrome

LONG_S = 120.0
#: main makes two jobs in turn; one of them makes others, in loops with and without a spawn in them, and ends early.
FAMILY = Workload(
    waitgroups=["all"],
    jobs=[
        Job("mother", [Block(repeat=2, steps=["spawn son", "yield", Block(repeat=3, steps=["spawn daughter 2"])]),
                       Block(repeat=1 << 31, steps=["exit", "spawn daughter 0"])], count=3, every="1ms"),
        Job("uncle", ["compute 1us..9us", "yield"], count=4, every="1ms"),
        Job("son", ["yield"], count=0),
        Job("daughter", ["spawn son 2"], count=0),
    ],
)  # fmt: skip


def create(goid: int, maker: int) -> SchedEvent:
    return SchedEvent(time_ns=goid, kind="create", m=1, p=0, goid=goid, arg=maker)


def programs(*jobs: Job) -> list[Program]:
    return compile_workload(Workload(list(jobs)), 0).programs


@pytest.mark.parametrize("model", ["m:n", "n:1", "1:1"])
def test_the_jobs_found_are_those_that_were_counted(model: str) -> None:
    result = gmp.run(FAMILY, model=model, events=True, timeout_s=LONG_S)  # type: ignore[arg-type]
    found = Counter(result.job_of.values())
    assert found == {"main": 1, "mother": 3, "uncle": 4, "daughter": 3 * 2 * 3 * 2, "son": 3 * 2 + 2 * 3 * 2 * 3 * 2}
    assert found == {"main": 1} | {job.name: job.spawned for job in result.jobs}
    assert result.job_of.keys() == {event.goid for event in result.events if event.goid}
    assert result.steps_of["uncle"] == ("compute 1us..9us", "yield")


def test_a_deadlock_names_the_same_jobs() -> None:
    result = gmp.run("philosophers", events=True, timeout_s=LONG_S)
    assert {one.goid: one.job for one in result.waiting} == {
        goid: job for goid, job in result.job_of.items() if job != "main"
    }


def test_of_a_maker_whose_creations_may_be_missing_only_the_certain_is_said() -> None:
    two = programs(Job("a", ["yield"], count=2), Job("b", ["yield"], count=2))
    some = [create(2, 1), create(4, 1)]
    assert jobs_of(two, some, whole=True) == {1: "main", 2: "a", 4: "a"}  # it was ended before it made the others
    assert jobs_of(two, some, whole=False) == {1: "main"}
    every = [create(goid, 1) for goid in (2, 3, 4, 5)]
    assert jobs_of(two, every, whole=False) == {1: "main", 2: "a", 3: "a", 4: "b", 5: "b"}
    one = programs(Job("a", ["spawn b 9"], count=3), Job("b", ["compute 1ms..2ms"], count=0))
    assert jobs_of(one, [create(3, 1), create(9, 3)], whole=False) == {1: "main", 3: "a", 9: "b"}


def test_what_is_missing_at_the_top_leaves_those_below_unnamed() -> None:
    one = programs(Job("a", ["spawn b 2"], count=1), Job("b", ["yield"], count=1))
    assert jobs_of(one, [create(5, 2), create(6, 2)], whole=False) == {1: "main"}


def test_a_slice_is_named_as_far_as_its_job_is_known() -> None:
    work = Workload(
        channels={"c": 0}, jobs=[Job("a", ["send c", "sleep 1ms"]), Job("b", ["recv c", "sleep 1ms", "sleep 2ms"])]
    )
    result = gmp.run(work, procs=1, events=True, timeout_s=LONG_S)

    def told(of: SimResult) -> dict[str, set[str | None]]:
        slices = [one for one in json.loads(b"".join(sim_chrome(of)))["traceEvents"] if one.get("cat") == "G"]
        ends = [(one["name"], one["args"]) for one in slices if one["pid"] == 1 and one["args"]["ends"] != "end"]
        return {name: {args.get("step") for other, args in ends if other == name} for name, _args in ends}

    named, unnamed = told(result), told(msgspec.structs.replace(result, job_of={}, steps_of={}))
    assert named["a G2"] <= {"send c", "sleep 1ms"}
    assert named["b G3"] <= {"recv c", None}  # which of its two sleeps, the events do not say
    assert unnamed == {"G2": {None}, "G3": {None}}


def test_events_that_somebody_took_while_it_ran_are_missed() -> None:
    work = Workload([Job("a", ["compute 1us"], count=2), Job("b", ["compute 1us"], count=2, at="300ms")])
    with gmp.Simulation(work, events=True) as sim:
        taken = 0
        while taken < 2:
            taken += sum(event.kind == "create" for event in sim.read_events())
        assert sim.wait(LONG_S)
        assert sim.result().job_of == {1: "main"}

"""Workloads on the scheduler: they run on real processes, the counts add up, and nothing is left by any end."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from ipclab import gmp
from ipclab.errors import IpclabError, UsageError
from ipclab.gmp import Block, Job, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import procfs
from ipclab.records.event_text import line
from ipclab.records.gmp import ModelName
from ipclab.views.gmp import sim_report
from ipclab.views.gmp_explain import explained
from ipclab.views.medium import Medium

#: A deadlock detector, not a measure.
LONG_S = 60.0


def lives(pid: int) -> bool:
    """A zombie that only a foreign init can collect counts as gone."""
    return procfs.state(pid) not in (None, "Z", "X")


def long_work() -> Workload:
    """Gs that are still at it when a test has looked."""
    return Workload([Job("long", ["compute 2ms", "sleep 1ms"], count=4, repeat=100_000)])


PIPELINE = Workload(
    title="pipeline",
    channels={"work": 2, "results": 0},
    mutexes=["disk"],
    semaphores={"slots": 2},
    waitgroups=["all"],
    jobs=[
        Job("source", [Block(repeat=30, steps=["send work 3"]), "close work"]),
        Job(
            "worker",
            [
                "add all",
                Block(repeat=10, steps=["recv work", "lock disk", "compute 50us", "unlock disk", "send results 5"]),
                "acquire slots", "block 1ms", "release slots", "done all", "wait all",
            ],
            count=3,
        ),
        Job("sink", ["recv results"], repeat=30),
    ],
)  # fmt: skip


@pytest.mark.parametrize("model", ["m:n", "n:1", "1:1"])
def test_a_workload_runs_to_its_end_in_every_model(model: ModelName) -> None:
    result = gmp.run(PIPELINE, model=model, timeout_s=LONG_S)
    assert (result.outcome, result.message, result.model) == ("done", "", model)
    jobs = {job.name: job for job in result.jobs}
    assert {name: (job.spawned, job.done, job.lost) for name, job in jobs.items()} == {
        "source": (1, 1, 0),
        "worker": (3, 3, 0),
        "sink": (1, 1, 0),
    }
    assert jobs["worker"].received == 30 * 3
    assert jobs["sink"].received == 30 * 5
    assert result.procs == {"m:n": gmp.cpus(), "n:1": 1, "1:1": 256}[model]
    assert result.totals.deaths == 0
    assert result.totals.cpu_user_ns + result.totals.cpu_system_ns > 0  # the two are told apart by ticks


def test_one_m_is_made_for_n_to_1_and_one_for_each_g_for_1_to_1() -> None:
    work = Workload([Job("a", ["compute 100us", "block 1ms"], count=20)])
    assert gmp.run(work, model="n:1", timeout_s=LONG_S).totals.ms_made == 2  # with sysmon
    assert gmp.run(work, model="1:1", timeout_s=LONG_S).totals.ms_made >= 22  # main has one, too


def test_the_record_of_an_m_that_ended_is_the_next_ones_and_no_two_ms_have_the_same_id() -> None:
    work = Workload([Job("a", ["compute 10us"], count=60, every="1ms")])
    with gmp.Simulation(work, model="1:1", maxm=40, events=True, event_slots=4096) as sim:
        assert sim.wait(LONG_S)
        records = len(sim.snapshot().ms)
        result = sim.result()
    births = [event.m for event in result.events if event.kind == "M start"]
    assert result.outcome == "done"
    assert result.totals.ms_made > 60 > 40 >= records
    assert len(births) == len(set(births)) == result.totals.ms_made


def test_every_g_begins_and_ends_exactly_once_in_the_events() -> None:
    work = Workload([Job("a", ["compute 20us..200us", "yield"], count=40, repeat=3), Job("b", ["spawn c 2"], count=5),
                     Job("c", ["sleep 1ms"], count=0)])  # fmt: skip
    result = gmp.run(work, procs=2, seed=3, events=True, timeout_s=LONG_S)
    assert result.totals.events_lost == 0
    ended = Counter(event.goid for event in result.events if event.kind == "end")
    made = Counter(event.goid for event in result.events if event.kind == "create")
    assert sum(ended.values()) == 1 + 40 + 5 + 10  # main was made before there was an M
    assert set(ended.values()) == {1}
    assert ended - made == Counter([goid for goid in ended if goid not in made])
    assert len(ended) == len(made) + 1
    times = [event.time_ns for event in result.events]
    assert times == sorted(times)


def test_the_same_seed_draws_the_same_times() -> None:
    from ipclab.gmp.compile import compile_workload

    work = Workload([Job("a", ["compute 1ms..9ms"], count=10, every="1ms..2ms")])
    assert compile_workload(work, 7) == compile_workload(work, 7)
    assert compile_workload(work, 7) != compile_workload(work, 8)
    assert len({program.steps[0] for program in compile_workload(work, 7).programs[1:]}) > 5


def test_no_event_is_missed_when_ms_come_and_go() -> None:
    work = Workload([Job("a", ["sleep 500us", "yield"], count=30, every="1ms")])
    result = gmp.run(work, model="1:1", events=True, timeout_s=LONG_S)
    assert result.totals.events_lost == 0
    kinds = Counter(event.kind for event in result.events)
    assert kinds["end"] == kinds["create"] + 1 == 31
    assert 31 <= kinds["M start"] <= result.totals.ms_made  # one may have been made and not have begun


def test_a_preemption_is_a_g_that_gave_way_however_often_it_was_asked() -> None:
    # 40 Ms share the CPUs: most of those that sysmon asks to give way are not on one, and are asked again and again.
    result = gmp.run(Workload([Job("a", ["compute 12ms"], count=40)]), model="1:1", events=True, timeout_s=LONG_S)
    assert result.totals.events_lost == 0
    assert result.totals.preemptions == sum(event.kind == "preempt" for event in result.events) > 0
    assert result.totals.preemptions < result.totals.context_switches


def test_whoever_hands_a_mutex_over_and_makes_way_was_not_preempted() -> None:
    work = Workload([Job("a", ["lock m", "compute 200us", "unlock m"], count=8, repeat=20)], mutexes=["m"])
    result = gmp.run(work, procs=2, events=True, timeout_s=LONG_S)
    assert result.totals.events_lost == 0
    kinds = Counter(event.arg for event in result.events if event.kind == "preempt")
    assert kinds[1] > 0
    assert result.totals.preemptions == kinds[0]
    (made_way, *_) = (event for event in result.events if event.kind == "preempt" and event.arg)
    assert line(made_way, 0).endswith("preempt: by itself, for the one it has handed a semaphore")
    rounds = explained(result.events, result.started_ns, made_way.m, 10_000, Medium(columns=1000))
    assert f"G{made_way.goid} makes way for the one it has handed a semaphore after " in rounds


def test_events_are_told_while_it_runs() -> None:
    told: list[str] = []
    work = Workload([Job("a", ["blocking 2ms"], count=20), Job("b", ["compute 100us"], count=20)])
    result = gmp.run(work, procs=2, on_event=lambda event: told.append(event.kind), timeout_s=LONG_S)
    assert result.events == ()
    assert told.count("end") == 41
    assert "handoff" in told


def test_each_process_says_who_it_is() -> None:
    work = Workload(jobs=[Job("caller", ["blocking 60s"]), Job("other", ["sleep 60s"])])
    with gmp.Simulation(work, procs=1) as sim:
        until = time.monotonic() + LONG_S
        while len(sim.ms()) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        wanted = {pid: f"gmp-M{m}" for m, pid in sim.ms().items()} | {sim.template_pid: "gmp-template"}
        sysmon = sim.sysmon_pid()
        assert sysmon is not None
        wanted[sysmon] = "gmp-sysmon"
        while (names := {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in wanted}) != wanted:
            assert time.monotonic() < until, names
            time.sleep(0.01)  # a process has its name a moment after its pid


def test_a_deadlock_is_an_outcome_with_everybody_in_it() -> None:
    work = Workload(
        channels={"never": 0, "held": 0},
        mutexes=["m"],
        jobs=[
            Job("reader", ["recv never"], count=2),
            Job("holder", ["lock m", "close held", "recv never"]),
            Job("asker", ["recv held", "sleep 50ms", "spawn last", "lock m"]),
            Job("last", ["recv never"], count=0),
        ],
    )
    result = gmp.run(work, procs=1, timeout_s=LONG_S)  # one P: the readers wait before the asker sleeps, however late
    assert result.outcome == "deadlock"
    assert not result.ok
    found = Counter((g.job, g.step, g.reason) for g in result.waiting)
    assert found == {
        ("reader", "recv never", "chan receive"): 2,
        ("holder", "recv never", "chan receive"): 1,
        ("asker", "lock m", "sync.Mutex.Lock"): 1,
        ("last", "recv never", "chan receive"): 1,
    }
    by_job = {g.job: g for g in result.waiting}
    assert by_job["reader"].waited_ns is not None
    assert by_job["reader"].waited_ns >= 49_000_000  # it slept before the others came; the ticks are measured, too
    last, asker = by_job["last"], by_job["asker"]
    assert (last.parent, last.parent_job, last.parent_step) == (asker.goid, "asker", "spawn last")
    assert (asker.parent, asker.parent_job) == (1, "main")
    assert "all goroutines are asleep - deadlock!" in result.message


def test_of_a_g_that_waits_in_a_select_the_whole_select_is_said() -> None:
    cases = ["send c 1", "recv c", "recv d"]
    work = Workload(channels={"c": 0, "d": 0}, jobs=[Job("a", ["yield", Block(select=cases), "yield"])])
    (waiting,) = gmp.run(work, timeout_s=LONG_S).waiting
    assert (waiting.reason, waiting.step) == ("select", "select send c 1 | recv c | recv d")


def test_who_made_a_g_is_known_in_programs_of_any_length_and_number() -> None:
    born = Job("born", ["recv c"], count=0)
    long: list[str | Block] = [*["unlockm"] * 140_000, "spawn born"]
    many = [Job(f"j{i}", ["exit"], count=0) for i in range(70_000)]
    for jobs in ([Job("maker", long), born], [*many, Job("maker", ["spawn born"]), born]):
        (waiting,) = gmp.run(Workload(channels={"c": 0}, jobs=jobs), timeout_s=LONG_S).waiting
        assert (waiting.parent_job, waiting.parent_step) == ("maker", "spawn born")


def test_of_very_many_who_are_left_some_are_shown_and_all_are_counted() -> None:
    result = gmp.run(Workload(channels={"c": 0}, jobs=[Job("a", ["recv c"], count=10_050)]), timeout_s=LONG_S)
    assert (len(result.waiting), result.waiting_total) == (10_000, 10_050)
    text = sim_report(result, Medium())
    assert "10050 Gs left, each with" in text
    assert "... and 10030 more: --json has the first 10000\n" in text


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["unlock m"], "unlock of unlocked mutex"),
        (["close c", "send c"], "send on closed channel"),
        (["close c", "close c"], "close of closed channel"),
        (["done w"], "negative WaitGroup counter"),
    ],
)
def test_breaking_a_rule_of_go_ends_the_run(steps: list[str], words: str) -> None:
    work = Workload([Job("a", list(steps))], channels={"c": 0}, mutexes=["m"], waitgroups=["w"])
    result = gmp.run(work, timeout_s=LONG_S)
    assert (result.outcome, words in result.message) == ("misuse", True)
    assert [(job.spawned, job.done, job.turnaround_ns) for job in result.jobs] == [(1, 0, None)]


def test_it_can_be_looked_at_resized_and_killed_while_it_runs() -> None:
    with gmp.Simulation(long_work(), procs=2, events=True) as sim:
        until = time.monotonic() + LONG_S
        while len(ms := sim.ms()) < 3 and time.monotonic() < until:
            assert not sim.wait(0.02)
        assert sim.sysmon_pid() in ms.values()
        assert all(lives(pid) for pid in [*ms.values(), sim.template_pid])
        sim.set_procs(3)
        assert sim.schedtrace().startswith("SCHED ")
        assert "gomaxprocs=3" in sim.schedtrace()
        victim = next(pid for pid in ms.values() if pid != sim.sysmon_pid())
        os.kill(victim, signal.SIGKILL)
        until = time.monotonic() + LONG_S
        while sim._sched.sched_fields()["repairs"] == 0 and time.monotonic() < until:
            sim.wait(0.02)
        assert victim not in sim.ms().values()
        result = sim.result()
    assert result.totals.deaths == 1
    assert result.procs == 3
    assert result.outcome == "stopped"
    assert not any(lives(pid) for pid in [*ms.values()])


def test_a_dead_m_takes_its_g_with_it_and_no_other() -> None:
    work = Workload([Job("a", ["block 700ms"], count=4), Job("b", ["sleep 10ms"], count=20)])
    with gmp.Simulation(work, procs=2, events=True) as sim:
        running: set[int] = set()
        until = time.monotonic() + LONG_S
        while not running and time.monotonic() < until:  # an M that is in the middle of a system call
            running = {event.m for event in sim.read_events() if event.kind == "syscall enter"}
        victim = min(running)
        os.kill(sim.ms()[victim], signal.SIGKILL)
        assert sim.wait(LONG_S)
        result = sim.result()
    assert result.outcome == "done"
    assert result.totals.deaths == 1
    assert result.lost <= 1  # none, if the M had just parked
    assert {job.name: job.done + job.lost for job in result.jobs if job.name != "main"} == {"a": 4, "b": 20}
    assert len(result.lost_goids) == result.lost


def test_the_lost_are_all_counted_though_the_last_64_are_named() -> None:
    work = Workload([Job("a", ["block 10s"], count=70)])
    with gmp.Simulation(work, model="1:1", events=True) as sim:
        blocked: dict[int, int] = {}
        until = time.monotonic() + LONG_S
        while len(blocked) < 70 and time.monotonic() < until:
            blocked |= {event.goid: event.m for event in sim.read_events() if event.kind == "syscall enter"}
        ms = sim.ms()
        for m in blocked.values():
            os.kill(ms[m], signal.SIGKILL)
        assert sim.wait(LONG_S)
        result = sim.result()
    assert (result.outcome, result.lost, len(result.lost_goids)) == ("done", 70, 64)
    assert "and 6 before them" in sim_report(result, Medium())


def used(sim: gmp.Simulation) -> float:
    """CPU seconds of its Ms."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in sim.ms().values()]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def queued_ns(pids: Iterable[int]) -> int:
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids)


def test_what_ms_wait_in_the_kernels_queue_is_their_total_and_is_no_waiting_of_gs() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        with gmp.Simulation(Workload([Job("a", ["compute 150ms"], count=3)]), procs=3) as sim:
            assert sim.wait(LONG_S)
            before = queued_ns(sim.ms().values())
            result = sim.result()
    finally:
        os.sched_setaffinity(0, mine)
    (job,) = result.jobs
    assert job.turnaround_ns is not None
    assert job.waiting_ns is not None
    assert result.totals.run_delay_ns is not None
    assert result.totals.run_delay_ns >= before > 150_000_000  # three share one CPU
    assert job.waiting_ns < job.turnaround_ns / 2  # each has a P
    assert "in its queue for one" in sim_report(result, Medium())


def test_what_is_not_known_of_every_m_is_not_said() -> None:
    with gmp.Simulation(long_work(), procs=2) as sim:
        sim.wait(0.1)
        os.kill(sim.template_pid, signal.SIGKILL)
        with pytest.raises(IpclabError, match="template process"):
            sim.wait(LONG_S)
        result = sim.result()
    assert result.totals.run_delay_ns is None
    assert "in its queue" not in sim_report(result, Medium())


def test_a_stopped_template_ends_its_ms_and_tells_what_they_used() -> None:
    with gmp.Simulation(Workload([Job("a", ["compute 10s"])]), procs=1) as sim:
        until = time.monotonic() + LONG_S
        while time.monotonic() < until and used(sim) < 0.1:
            time.sleep(0.01)
        ms = sim.ms()
        os.kill(sim.template_pid, signal.SIGSTOP)
        result = sim.result()
    assert result.outcome == "stopped"
    assert result.totals.cpu_user_ns + result.totals.cpu_system_ns > 50_000_000  # of a killed template: of no M
    assert not any(lives(pid) for pid in ms.values())


def test_the_template_dies_and_that_is_an_error() -> None:
    from ipclab.errors import IpclabError

    with gmp.Simulation(long_work(), procs=2) as sim:
        sim.wait(0.1)
        ms = sim.ms()
        os.kill(sim.template_pid, signal.SIGKILL)
        until = time.monotonic() + LONG_S
        while any(lives(pid) for pid in (sim.template_pid, *ms.values())) and time.monotonic() < until:
            time.sleep(0.001)  # else the Ms may do as they are asked first
        with pytest.raises(IpclabError, match="template process of the scheduler died"):
            sim.set_procs(1)
        with pytest.raises(IpclabError, match="template process of the scheduler died"):
            sim.wait(LONG_S)
    until = time.monotonic() + LONG_S
    while any(lives(pid) for pid in ms.values()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(lives(pid) for pid in ms.values())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"procs": 257}, "257 Ps: a segment holds 1 to 256"),
        ({"procs": 0}, "0 Ps"),
        ({"procs": 2, "model": "n:1"}, "n:1 has one P"),
        ({"model": "2:2"}, "no model is called '2:2'"),
        ({"seed": -1}, "seed -1 is out of range"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        gmp.run("mixed", **more)  # type: ignore[arg-type]


def test_more_gs_than_the_segment_holds_end_the_run() -> None:
    work = Workload([Job("a", ["sleep 10s"], count=500)])
    result = gmp.run(work, maxg=100, timeout_s=LONG_S)
    assert result.outcome == "limit"
    assert result.message


def test_no_room_for_another_m_ends_the_run_with_its_events() -> None:
    work = Workload([Job("a", ["blocking 10s"], count=6)])
    result = gmp.run(work, procs=2, events=True, maxm=4, timeout_s=LONG_S)
    assert result.outcome == "limit"
    assert result.message.startswith("no room for another M")
    assert {event.m for event in result.events} <= {0, 1, 2}


def test_whoever_watches_a_run_that_is_cut_short_is_told_why() -> None:
    work = Workload([Job("a", ["blocking 10s"], count=6)])
    for wait in (Watch.to_the_end, lambda watch: watch.until(lambda: False)):
        with gmp.Simulation(work, procs=2, events=True, maxm=4) as sim:
            watch = Watch(sim)
            with pytest.raises(IpclabError, match="the run was cut short: no room for another M"):
                wait(watch)


def test_a_snapshot_of_an_ended_run_has_every_waiting_g_where_it_waits() -> None:
    work = Workload(
        channels={"never": 3, "full": 1, "held": 0},
        mutexes=["m"],
        jobs=[
            Job("reader", ["recv never"], count=2),
            Job("writer", ["send full", "send full"]),
            Job("holder", ["lock m", "close held", "recv never"], at="5ms"),
            Job("asker", ["recv held", "lock m"], at="20ms"),
        ],
    )
    with gmp.Simulation(work, procs=2) as sim:
        assert sim.wait(LONG_S)
        seen = sim.snapshot()
        few = sim.snapshot(most=2)
    waiting = {g.goid: g.waitreason for g in seen.gs if g.status == "_Gwaiting"}
    assert seen.consistent
    assert all((g.waited_ns is not None) is (g.status == "_Gwaiting") for g in seen.gs)
    assert {g.parent for g in seen.gs if g.status == "_Gwaiting"} == {1}
    assert {g.made_at[0] for g in seen.gs if g.status == "_Gwaiting"} == {0}
    assert "deadlock" in seen.ended
    assert (seen.sched["gomaxprocs"], len(seen.ps), len(seen.gs)) == (2, 2, 6)
    never, full, held = seen.channels
    assert (never.capacity, never.buffered, never.closed, len(never.recvq), never.sendq) == (3, 0, False, 3, ())
    assert (full.capacity, full.buffered, len(full.sendq)) == (1, 1, 1)
    assert (held.closed, held.recvq) == (True, ())
    (mutex,) = seen.semaphores
    assert (mutex.kind, mutex.value, len(mutex.q)) == ("mutex", 1, 1)
    assert mutex.holder in never.recvq
    assert {*never.recvq, *full.sendq, *mutex.q} == waiting.keys()
    assert Counter(waiting.values()) == {"chan receive": 3, "chan send": 1, "sync.Mutex.Lock": 1}
    assert sorted(seen.pidle) == [0, 1]
    assert (len(few.gs), few.gs_left_out) == (2, 4)

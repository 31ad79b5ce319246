"""The tracker, on whatever sources this machine has; `poll` alone is the base, psutil the witness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import cast

import psutil
import pytest
from followed import DEADLINE_S, SLEEP, SPIN, actor, recorded, why_not

from ipclab import states
from ipclab.errors import IpclabError, UsageError
from ipclab.processes import procfs
from ipclab.records import Interval, Recording
from ipclab.states import tracing

LEADERS = ("poll", "switch", "trace")
needs_trace = pytest.mark.skipif(bool(why_not("trace")), reason=why_not("trace"))


@pytest.fixture(params=LEADERS)
def source(request: pytest.FixtureRequest) -> states.SourceChoice:
    """Each source that is here."""
    reason = "" if request.param == "poll" else why_not(request.param)
    if reason:
        pytest.skip(reason)
    return cast(states.SourceChoice, request.param)


def until(tracker: states.Tracker, state: str, tid: int) -> None:
    """Wait until the record says that the thread is in this state now."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        now = tracker.recent(0.5).get(tid, [])
        if now and now[-1].state == state:
            return
        time.sleep(0.005)
    raise AssertionError(f"{tid} was never in {state}: {tracker.recent(1.0)}")


def check_row(intervals: Iterable[Interval]) -> None:
    """No overlap and no hole."""
    rows: dict[int, list[Interval]] = {}
    for one in intervals:
        rows.setdefault(one.tid, []).append(one)
    for row in rows.values():
        for before, after in pairwise(row):
            assert before.end_ns == after.start_ns, (before, after)
        assert all(one.end_ns > one.start_ns for one in row)


def run(command: list[str], source: states.SourceChoice = "poll") -> tuple[Recording, list[Interval]]:
    with states.Tracker(command=command, source=source) as tracker:
        head = tracker.run(DEADLINE_S)
        return head, list(tracker.intervals())


# --- what it sees ----------------------------------------------------------------------------------------------------


def test_a_life_of_states(source: states.SourceChoice) -> None:
    with actor(SLEEP) as process, states.Tracker([process.pid], source=source) as tracker:
        until(tracker, "S", process.pid)
        assert psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING
        process.send_signal(signal.SIGSTOP)
        until(tracker, "T", process.pid)
        assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
        process.send_signal(signal.SIGCONT)
        until(tracker, "S", process.pid)
        process.kill()
        until(tracker, "Z", process.pid)
        tracker.stop()
        head, intervals = tracker.recording(), list(tracker.intervals())
    check_row(intervals)
    # Nor D: a lock of the kernel's may be in its way at any time.
    order = [one.state for one in intervals if one.state not in "RD"]
    assert [state for index, state in enumerate(order) if index == 0 or order[index - 1] != state] == [
        "S",
        "T",
        "S",
        "Z",
    ]
    (thread,) = head.threads
    assert (thread.pid, thread.tid, thread.ppid) == (process.pid, process.pid, os.getpid())
    assert sum(thread.time_ns.values()) == thread.last_ns - thread.first_ns
    assert head.completeness.disagreement == ""


def test_a_runner_is_running(source: states.SourceChoice) -> None:
    with actor(SPIN) as process, states.Tracker([process.pid], source=source) as tracker:
        begun = psutil.Process(process.pid).cpu_times()
        head = recorded(tracker, lambda head: any(one.time_ns.get("running") for one in head.threads))
        ended = psutil.Process(process.pid).cpu_times()
    (thread,) = head.threads
    used_ns = (ended.user + ended.system - begun.user - begun.system) * 1e9
    assert set(thread.time_ns) <= {"running", "runnable", "R", "S", "D"}
    # psutil counts in ticks of 10 ms, and begins before and ends after the record. R may be either.
    assert thread.time_ns["running"] <= used_ns + 50e6
    assert thread.time_ns["running"] > 0


def test_what_a_sleeper_sleeps_in(source: states.SourceChoice) -> None:
    with actor("os.read(0, 1)") as process, states.Tracker([process.pid], source=source) as tracker:
        end = time.monotonic() + DEADLINE_S
        while not [one for one in tracker.recent(1).get(process.pid, []) if one.wchan] and time.monotonic() < end:
            time.sleep(0.01)
        tracker.stop()
        *_, asleep = [one for one in tracker.intervals() if one.wchan]
    assert asleep.state == "S"
    assert asleep.syscall == "read"
    assert "pipe" in (asleep.wchan or "")


def test_threads_and_children_are_followed(source: states.SourceChoice) -> None:
    script = (
        "import threading, os, time\n"
        "thread = threading.Thread(target=time.sleep, args=(0.1,)); thread.start()\n"
        "pid = os.fork()\n"
        "if pid == 0: time.sleep(0.1); os._exit(7)\n"
        "os.waitpid(pid, 0); thread.join()\n"
    )
    head, intervals = run([sys.executable, "-c", script], source)
    check_row(intervals)
    assert head.exit_code == 0
    (main,) = [one for one in head.threads if one.pid == one.tid and one.ppid == os.getpid()]
    assert [one for one in head.threads if one.pid == main.pid and one.tid != main.tid], "its thread"
    (child,) = [one for one in head.threads if one.ppid == main.pid]
    assert child.gone
    assert child.exit_code in (7, None)  # None: without process events only a parent is told


def test_a_child_older_than_the_record_begins_with_it(source: states.SourceChoice) -> None:
    """What it did before is not the record's: the kernel has counted it all the same."""
    child = "if os.fork(): time.sleep(100)\nfor _ in range(300): time.sleep(0.0001)\nprint('busy was I', flush=True)\n"
    with actor(child + "while True: time.sleep(0.02)") as process:
        assert process.stdout
        assert process.stdout.readline() == b"busy was I\n"
        (pid,) = procfs.children(process.pid)
        try:
            with states.Tracker([process.pid], source=source) as tracker:
                until(tracker, "S", pid)
                time.sleep(0.2)
                tracker.stop()
                head, intervals = tracker.recording(), list(tracker.intervals())
        finally:
            os.kill(pid, signal.SIGKILL)
    (seen,) = [one for one in head.threads if one.tid == pid]
    assert seen.switches_counted is not None
    assert seen.switches_counted < 300
    assert not head.completeness.disagreement
    first = next(one for one in intervals if one.tid == pid)
    assert first.source == "poll"
    assert first.state in "SR"
    if source == "trace":
        assert {one.source for one in intervals if one.tid == pid} >= {"trace"}


def test_children_are_left_alone_when_not_followed(source: states.SourceChoice) -> None:
    command = [sys.executable, "-c", "import os, time\npid = os.fork()\ntime.sleep(0.1)\npid and os.wait()"]
    with states.Tracker(command=command, source=source, follow=False) as tracker:
        head = tracker.run(DEADLINE_S)
    assert len({one.pid for one in head.threads}) == 1


def test_one_that_dies_at_once_is_in_the_record(source: states.SourceChoice) -> None:
    head, intervals = run(["true"], source)
    (thread,) = head.threads
    assert thread.gone
    assert thread.exit_code == 0
    assert intervals


def test_a_storm_loses_nobody(source: states.SourceChoice) -> None:
    script = "import os\nfor _ in range(300):\n    pid = os.fork()\n    os.waitpid(pid, 0) if pid else os._exit(0)"
    head, _intervals = run([sys.executable, "-c", script], source)
    heard = source != "poll" or not why_not("events")
    if heard and not head.completeness.events_lost:
        assert len(head.threads) == 301
    assert head.completeness.disagreement == ""


def test_looks_between_runs_find_the_runs() -> None:
    # Wake-ups, each shorter than the 20 ms between two looks: bare states would show a sleeper.
    script = "while True: time.sleep(0.01)"
    with actor(script) as process, states.Tracker([process.pid], source="poll", rate_hz=50) as tracker:
        until(tracker, "S", process.pid)
        (thread,) = recorded(tracker, lambda head: head.threads[0].switches_seen > 10).threads
    assert thread.switches_seen > 10
    assert thread.time_ns["running"] > 0
    assert thread.switches_counted is not None
    assert thread.switches_seen <= thread.switches_counted


def test_events_and_counters_agree(source: states.SourceChoice) -> None:
    with actor("while True: time.sleep(0.0005)") as process, states.Tracker([process.pid], source=source) as tracker:
        said = recorded(tracker, lambda head: head.threads[0].switches_seen > 60).completeness
    assert said.disagreement == ""
    assert said.switches_counted > 50
    if source != "poll":
        assert said.switches_seen >= said.switches_counted - 2  # two may fall into a reading of the counter


# --- choosing --------------------------------------------------------------------------------------------------------


def test_auto_takes_the_best_and_says_why_not_the_better() -> None:
    with actor(SLEEP) as process, states.Tracker([process.pid]) as tracker:
        sources = tracker.recording().sources
    standing = {str(one.source): one for one in sources}
    leads = next(name for name in ("trace", "switch", "poll") if standing[name].used)
    assert leads != "poll" or why_not("switch")
    for name in ("trace", "switch"):
        if name == leads:
            break
        assert standing[name].reason


@needs_trace
def test_a_kernel_that_hides_switches_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    read, sleepers = tracing._read, []

    class Sleeper(tracing._Sleeper):
        def __init__(self) -> None:
            super().__init__()
            sleepers.append(self)

    def hide(folder: int, path: str) -> str:
        lines = read(folder, path).split("\n")
        return "\n".join(line for line in lines if path != "trace" or f"next_pid={sleepers[-1].tid} " not in line)

    monkeypatch.setattr(tracing, "_Sleeper", Sleeper)
    monkeypatch.setattr(tracing, "_read", hide)
    with actor(SLEEP) as process:
        with states.Tracker([process.pid]) as tracker:
            leader, *_ = tracker.recording().sources
        assert not leader.used
        assert "this kernel told of" in leader.reason
        with states.Tracker([process.pid], source="trace") as tracker:
            head = tracker.recording()
        assert head.sources[0].used
        assert any("this kernel told of" in note for note in head.notes)


@needs_trace
def test_the_self_test_leaves_an_empty_trace() -> None:
    trace = tracing.Trace()
    try:
        trace.lacking()
        for name in ("trace", "set_event_pid"):
            text = tracing._read(trace._sched, name)
            assert [line for line in text.splitlines() if not line.startswith("#")] == [], name
        assert tracing._read(trace._sched, "tracing_on") == "0\n"
    finally:
        for fd in trace.fds:
            os.close(fd)
        trace.close()


@needs_trace
def test_a_source_that_breaks_is_replaced_while_it_runs() -> None:
    with actor("while True: time.sleep(0.001)") as process:
        with states.Tracker([process.pid], source="trace") as tracker:
            layers = tracker._layers
            assert layers
            folder = os.open("/", os.O_RDONLY)
            # Reading it says EISDIR from now on. One only: the tracker may close the others at any moment after it.
            os.dup2(folder, layers._trace_fds[0])
            os.close(folder)
            end = time.monotonic() + DEADLINE_S
            while not tracker.recording().sources[0].broke_ns and time.monotonic() < end:
                time.sleep(0.01)
            until(tracker, "S", process.pid)
            tracker.stop()
            head, intervals = tracker.recording(), list(tracker.intervals())
    check_row(intervals)
    assert not head.sources[0].used
    assert head.sources[0].broke_ns
    assert [one for one in intervals if one.source == "poll"]
    assert any("poll leads since" in note for note in head.notes)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_cannot_be(rate: float) -> None:
    with pytest.raises(UsageError, match="rate"):
        states.Tracker([os.getpid()], rate_hz=rate)


def test_a_rate_nobody_reaches_is_flat_out() -> None:
    with actor(SLEEP) as process, states.Tracker([process.pid], source="poll", rate_hz=1e9) as tracker:
        head = recorded(tracker, lambda head: (head.reached_hz or 0) > 100)
    assert any("flat out" in note for note in head.notes)
    assert head.reached_hz
    assert head.reached_hz > 100


def test_a_pid_that_does_not_exist() -> None:
    with pytest.raises(IpclabError, match="there is no process 4194303"):
        states.Tracker([4194303])
    with pytest.raises(UsageError, match="no pid"):
        states.Tracker([0])
    with pytest.raises(UsageError, match="nothing to track"):
        states.Tracker([])


def test_a_process_that_ends_before_the_record_begins() -> None:
    with actor(SLEEP) as process:
        tracker = states.Tracker([process.pid], source="poll")
        process.kill()
        process.wait()
        with tracker:
            head = tracker.run(5.0)
    assert any(f"process {process.pid} ended before" in note for note in head.notes)


def test_a_pid_that_belongs_to_another_now() -> None:
    with actor(SLEEP) as process:
        tracker = states.Tracker([process.pid], source="poll")
        tracker._starts[process.pid] += 1  # as if the one that was meant had begun at another time
        with tracker:
            head = tracker.recording()
    assert head.threads == ()
    assert any(f"process {process.pid} ended before" in note for note in head.notes)


def test_the_tracker_itself() -> None:
    with states.Tracker([os.getpid()], source="poll") as tracker:
        head = tracker.run(0.2)
    assert len(head.threads) >= 3
    assert {one.pid for one in head.threads} == {os.getpid()}


def test_a_kernel_thread() -> None:
    idle = [pid for pid in psutil.pids() if states.read(pid).state == "I"]
    if not idle:
        pytest.skip("this /proc shows no kernel thread")
    with states.Tracker(idle[:1], source="poll") as tracker:
        head = tracker.run(0.1)
    assert set(head.threads[0].time_ns) <= {"I", "R", "running", "runnable", "S"}


def test_more_processes_than_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipclab.states.tracker._FDS_SPARED", 1 << 30)
    with actor(SLEEP) as process, states.Tracker([process.pid], source="poll", rate_hz=100) as tracker:
        until(tracker, "S", process.pid)
        head = tracker.recording()
    assert any("too few descriptors" in note for note in head.notes)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="not found"):
        states.Tracker(command=["no-such-program-here"], source="poll").start()
    with pytest.raises(UsageError, match="may not be executed"):
        states.Tracker(command=["/etc/passwd"], source="poll").start()


def test_a_command_the_kernel_cannot_run(tmp_path: Path) -> None:
    program = tmp_path / "garbage"
    program.write_bytes(b"\x00\x01\x02")
    program.chmod(0o755)
    with pytest.raises(UsageError, match="cannot run"):
        states.Tracker(command=[str(program)], source="poll").start()


def test_a_command_gets_the_signals_meant_for_it() -> None:
    script = (
        "import sys, signal\nfrom ipclab import states\n"
        "class Term(KeyboardInterrupt): signo = signal.SIGTERM\n"
        "def on(signo, frame): raise Term\n"
        "signal.signal(signal.SIGTERM, on)\n"
        "command = ['sh', '-c', 'trap \"exit 9\" TERM; echo begun; while :; do sleep 0.05; done']\n"
        "tracker = states.Tracker(command=command, source='poll')\n"
        "head = tracker.run()\n"  # it starts the command itself: from then on signals are the command's
        "tracker.close()\n"
        "sys.exit(head.exit_code)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as tracker:
        assert tracker.stdout
        assert tracker.stdout.readline() == b"begun\n"
        tracker.terminate()
        assert tracker.wait(DEADLINE_S) == 9


def test_exit_codes_and_signals_are_passed() -> None:
    assert run(["sh", "-c", "exit 3"])[0].exit_code == 3
    assert run(["sh", "-c", "kill -TERM $$"])[0].exit_code == 128 + signal.SIGTERM


def test_the_limit_of_files_is_put_back_and_the_command_has_its_own() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        code = "import resource, sys; sys.exit(resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 256)"
        assert run([sys.executable, "-c", code])[0].exit_code == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leader", LEADERS)
def test_a_killed_tracker_leaves_its_command_unharmed(leader: str, tmp_path: Path) -> None:
    if leader != "poll" and why_not(leader):
        pytest.skip(why_not(leader))
    done = tmp_path / "done"
    command = f"import time; print('begun', flush=True); time.sleep(0.5); open({str(done)!r}, 'w').close()"
    script = (
        "import sys\nfrom ipclab import states\n"
        f"with states.Tracker(command=[sys.executable, '-c', {command!r}], source={leader!r}) as t: t.run()"
    )
    tracker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert tracker.stdout
    with tracker.stdout:
        assert tracker.stdout.readline() == b"begun\n"
        tracker.kill()
        tracker.wait()
        assert tracker.stdout.read() == b""  # the command has the other end: end of file is its end
    assert done.exists()
    left = states_left()
    if leader == "trace":
        from ipclab.processes import registry

        assert len([one for one in registry.clean() if one.kind == "trace-instance"]) == 2
    assert leader == "trace" or not left
    assert not states_left()


def states_left() -> list[str]:
    """Instances of trackers that are dead."""
    from ipclab.processes import registry

    return [one.name for one in registry.leftovers() if one.kind == "trace-instance"]

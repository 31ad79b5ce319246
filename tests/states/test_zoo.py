"""The zoo: each state is held, read back, left; nothing stays, also after kill -9; bad requests are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from surroundings import Surroundings

from ipclab import _core
from ipclab.errors import IpclabError, UsageError
from ipclab.processes import procfs
from ipclab.states import zoo

STATES = ("R running", "R runnable", "S", "D", "T", "t", "Z")
READS = 300
ZOO_TARGETS = Path(__file__).resolve().parents[2] / "scripts" / "zoo_targets.py"


@pytest.mark.parametrize("title", STATES)
def test_a_state_is_held_and_ends_with_the_block(title: str) -> None:
    with zoo.hold(title) as held:
        assert (held.title, held.state) == (title, title[0])
        entry = zoo.watch(held, reads=READS)
        assert entry.seen is not None
        assert entry.hits >= 0.99 * READS
    assert procfs.state(held.pid) == "X"


def ran_ns(pid: int) -> int:
    ran = zoo._ran(pid)
    assert ran is not None
    return ran[0]


def test_r_is_told_apart_by_schedstat() -> None:
    # Nobody else's load may decide: a runnable one does not run while its hog does.
    with zoo.hold("R runnable") as held:
        entry = zoo.watch(held, reads=READS)
    assert entry.ran_share is not None
    assert entry.ran_share < 0.5
    with zoo.hold("R") as held:
        assert held.title == "R running"
        before, until = ran_ns(held.pid), time.monotonic() + 60
        while ran_ns(held.pid) == before and time.monotonic() < until:
            time.sleep(0.01)
        assert ran_ns(held.pid) > before


def test_x_is_met_and_its_process_gone() -> None:
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("on one CPU nobody can look while a parent waits")
    with zoo.hold("X") as held:
        assert procfs.state(held.pid) == "X"
        assert f"{held.pid} (zoo-X) X " in held.stat_line
        entry = zoo.watch(held)
    assert entry.seen is not None
    assert (entry.seen.state, entry.seen.name, entry.seen.pid) == ("X", "zoo-X", held.pid)
    assert entry.tries == held.tries >= 1


def test_an_idle_kernel_thread_is_only_watched() -> None:
    entry = zoo.visit("I", reads=READS)
    if entry.seen is None:
        assert "kernel thread" in entry.reason
        return
    assert entry.hits >= 0.99 * READS
    assert procfs.state(entry.seen.pid) == "I"
    assert entry.seen.syscall is None, "a kernel thread is in no system call"


def test_all_of_them_at_once() -> None:
    held = [zoo.hold(title) for title in STATES]
    inside = [block.__enter__() for block in held]
    try:
        assert [procfs.state(one.pid) for one in inside] == [title[0] for title in STATES]
    finally:
        for block in reversed(held):
            block.__exit__(None, None, None)


def test_an_error_inside_the_block_ends_it_too() -> None:
    with pytest.raises(ZeroDivisionError), zoo.hold("D") as held:
        raise ZeroDivisionError
    assert procfs.state(held.pid) == "X"


def test_the_deadline_ends_every_state() -> None:
    with zoo.hold("D", deadline_s=5) as one, zoo.hold("Z", deadline_s=5) as other:
        until = time.monotonic() + 60
        while procfs.state(one.pid) not in "ZX" and time.monotonic() < until:
            time.sleep(0.005)
        assert procfs.state(one.pid) in "ZX"
        assert procfs.state(other.pid) in "ZX"


def test_it_holds_from_any_thread() -> None:
    seen: list[str] = []

    def hold() -> None:
        with zoo.hold("t") as held:
            seen.append(procfs.state(held.pid))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join(60)
    assert seen == ["t"]


@pytest.mark.parametrize("wrong", ["", "Q", "running", "d"])
def test_an_unknown_state_is_named(wrong: str) -> None:
    with pytest.raises(UsageError, match="the zoo has no state"), zoo.hold(wrong):
        pass


def test_a_tracee_that_may_not_be_traced_has_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_core, "trace_stop", refuse)
    entry = zoo.visit("t")
    assert entry.seen is None
    assert "ptrace_scope" in entry.reason


def test_a_role_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, timeout_ns: int) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(_core, "sleep_in_d", refuse)
    with pytest.raises(IpclabError, match="vfork"), zoo.hold("D"):
        pass


def _kin(pid: int) -> set[int]:
    """All its children, and theirs."""
    young = set(procfs.children(pid))
    return young.union(*(_kin(child) for child in young))


@pytest.mark.parametrize("title", STATES)
def test_a_killed_holder_leaves_nothing(title: str) -> None:
    program = f"""
import sys, signal
from ipclab.states import zoo
with zoo.hold({title!r}) as held:
    print(held.pid, flush=True)
    signal.pause()
"""
    _core.set_child_subreaper(True)
    try:
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            pid = int(holder.stdout.readline())
            kin = _kin(holder.pid)
            assert pid in kin
            holder.kill()
        until = time.monotonic() + 60
        while (left := [one for one in kin if procfs.state(one) not in "ZX"]) and time.monotonic() < until:
            time.sleep(0.005)
        assert left == []
    finally:
        while procfs.children(os.getpid()):
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        _core.set_child_subreaper(False)


def ipclab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ipclab", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_shows_every_state() -> None:
    done = ipclab("zoo", "--reads", "100", "--json")
    assert done.stderr == ""
    entries = {entry["title"]: entry for entry in json.loads(done.stdout)["entries"]}
    assert tuple(entries) == zoo.titles()
    for title in STATES:
        assert entries[title]["hits"] >= 99, entries[title]
        assert entries[title]["seen"]["state"] == title[0]
    table = ipclab("zoo", "--reads", "10").stdout
    assert table.isascii()
    for title in zoo.titles():
        assert f"\n{title} " in "\n" + table


def test_the_command_holds_one_state_until_it_is_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ipclab", "zoo", "--hold", "D", "--json", "--reads", "10"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as process:
        assert process.stdout is not None
        text = b""
        while not text.endswith(b"\n}\n"):
            text += process.stdout.readline()
        pid = json.loads(text)["entries"][0]["seen"]["pid"]
        assert procfs.state(pid) == "D"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert procfs.state(pid) == "X"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hold", "Q"], "no state 'Q'"),
        (["--hold", "0"], "no time"),
        (["--hold", "-3"], "no time"),
        (["--hold", "nan"], "no time"),
        (["--reads", "0"], "--reads"),
    ],
)
def test_bad_requests_are_one_line(arguments: list[str], words: str) -> None:
    done = ipclab("zoo", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "place",
    [
        Surroundings(name="nobody", nobody=True),
        Surroundings(name="one CPU", one_cpu=True),
        Surroundings(name="container", own_pids=True, without=("sys_ptrace",), cpu_quota=0.5),
    ],
    ids=lambda place: place.name,
)
def test_all_of_it_elsewhere(place: Surroundings) -> None:
    if why := place.obstacle():
        pytest.skip(why)
    done = place.run(sys.executable, str(ZOO_TARGETS), "--reads", "200", "--runs", "3")
    assert done.returncode == 0, done.text
    assert done.left == ()

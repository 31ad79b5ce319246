"""The readers of /proc, held against other sources."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from ipclab.processes import Launcher, procfs


def test_this_process() -> None:
    me = os.getpid()
    assert procfs.state(me) == "R"
    assert procfs.parent(me) == os.getppid()
    assert procfs.group(me) == os.getpgrp()
    assert procfs.pid_alive(me, procfs.start_time(me))
    assert not procfs.pid_alive(me, procfs.start_time(me) + 1)
    assert procfs.status(me)["Pid"] == str(me)
    assert set(procfs.pids()) >= {1, me}


def test_nobody() -> None:
    nobody = 1 << 22  # above the largest pid_max
    assert procfs.state(nobody) == "X"
    assert procfs.parent(nobody) is None
    assert procfs.wchan(nobody) is None
    assert procfs.syscall(nobody) is None
    assert procfs.status(nobody) == {}
    assert procfs.children(nobody) == []
    assert not procfs.pid_alive(nobody, 0)
    with pytest.raises(ProcessLookupError):
        procfs.start_time(nobody)


@pytest.mark.parametrize("name", ["a b", "a) R 1", ")))", "(S)"])
def test_a_name_with_brackets_and_blanks(name: str) -> None:
    def rename() -> None:
        Path("/proc/self/comm").write_text(name)
        signal.pause()

    with Launcher(sink=lambda line: None) as launcher:
        role = launcher.spawn("role", rename)
        launcher.release()
        assert role.wait_state("S", syscall="pause")
        assert procfs.parent(role.pid) == os.getpid()
        assert procfs.start_time(role.pid) == role.start_time
        created = psutil.Process(role.pid).create_time() - psutil.boot_time()
        assert abs(created - role.start_time / os.sysconf("SC_CLK_TCK")) < 1.1


def test_blocked_processes_by_system_call() -> None:
    reader, _writer = os.pipe()
    calls = {"read": lambda: os.read(reader, 1), "pause": signal.pause, "wait4": wait_for_a_child}
    with Launcher(sink=lambda line: None) as launcher:
        roles = {name: launcher.spawn(name, target) for name, target in calls.items()}
        launcher.release()
        for name, role in roles.items():
            assert role.wait_state("S", syscall=name)
            seen = procfs.syscall(role.pid)
            assert seen is None or procfs.same_call(seen, name)
        child = procfs.children(roles["wait4"].pid)
        assert [procfs.parent(pid) for pid in child] == [roles["wait4"].pid]
        roles["read"].signal(signal.SIGSTOP)
        assert roles["read"].wait_state("T")
        assert not roles["pause"].wait_state("T", timeout_s=0.01)
    os.close(reader)
    os.close(_writer)


def wait_for_a_child() -> None:
    if os.fork() == 0:
        signal.pause()
    os.wait()


def test_calls_the_c_library_exchanges() -> None:
    assert procfs.same_call("ppoll", "poll")
    assert procfs.same_call("clock_nanosleep", "nanosleep")
    assert procfs.same_call("restart_syscall", "poll")
    assert not procfs.same_call("read", "write")


def test_children_of_every_thread_and_without_the_kernels_help(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []
    release = threading.Event()
    told = threading.Event()

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
        told.set()
        release.wait()

    thread = threading.Thread(target=fork)
    thread.start()
    told.wait()
    with_help = procfs.children(os.getpid())
    without_help = [pid for pid in procfs.pids() if procfs.parent(pid) == os.getpid()]
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)
    release.set()
    thread.join()
    assert sorted(with_help) == sorted(without_help)
    assert pids[0] in with_help

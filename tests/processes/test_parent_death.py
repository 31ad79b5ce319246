"""The launcher is killed -9: then nothing of it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ipclab.processes import Launcher, procfs

#: The project promises a second, of a machine that has a CPU for them. This tells those that go from those that stay.
GONE_S = 30.0

PROGRAM = """
import os, signal, sys, threading
from ipclab.processes import Launcher

def stay():
    os.write(out, b"%d\\n" % os.getpid())
    while True:
        signal.pause()

def family():
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stay()
    stay()

def survivor():
    # what a set-uid exec does to the death signal
    from ipclab import _core
    _core.set_pdeathsig(0)
    stay()

out = os.dup(1)
with Launcher(deadline_s=100) as launcher:
    for target in (stay, family, survivor):
        launcher.spawn(target.__name__, target)
    if sys.argv[1] == "released":
        launcher.release()
    if sys.argv[1] == "thread":
        thread = threading.Thread(target=launcher.spawn, args=("by a thread", stay))
        thread.start()
        thread.join()
        launcher.release()
    if sys.argv[1] == "waiting":
        launcher.wait()
    pids = [launcher._guardian.pid, *[process.pid for process in launcher.processes]]
    os.write(out, b"launcher %s\\n" % " ".join(map(str, pids)).encode())  # one write: others write here too
    signal.pause()
"""


@contextmanager
def adopting() -> Iterator[None]:
    """Orphans come to this process for the length of the block: a foreign init may not collect them."""
    from ipclab import _core

    _core.set_child_subreaper(True)
    try:
        yield
    finally:
        deadline = time.monotonic() + GONE_S
        while procfs.children(os.getpid()) and time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.005)
            except ChildProcessError:
                break
        _core.set_child_subreaper(False)


def running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if procfs.state(pid) not in "ZX"]


def kill_and_see(how: str, expected: int, kill: Callable[[int, int], None]) -> None:
    with adopting():
        launcher = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, how], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert launcher.stdout is not None
        words: list[str] = []
        while len(words) < expected:
            line = launcher.stdout.readline()
            assert line, "the launcher ended by itself"
            words += [word for word in line.split() if word.isdecimal()]
        pids = [int(word) for word in words]
        assert running(pids) == pids
        kill(launcher.pid, pids[0])
        until = time.monotonic() + GONE_S
        while running(pids) and time.monotonic() < until:
            time.sleep(0.002)
        left = running(pids)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        launcher.stdout.close()
        launcher.wait()
        assert not left


def kill(pid: int, *_: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_group(pid: int, *_: int) -> None:
    os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [kill, kill_group])
def test_released(end: Callable[[int, int], None]) -> None:
    # Four processes tell their pids, the launcher tells the guardian's and the roles'.
    kill_and_see("released", 8, end)


def test_at_the_barrier() -> None:
    kill_and_see("held", 4, kill)


def test_forked_by_a_thread_that_has_ended() -> None:
    kill_and_see("thread", 10, kill)


def test_while_waiting() -> None:
    kill_and_see("waiting", 4, kill)


def test_without_its_guardian_the_death_signal_is_left() -> None:
    def kill_both(pid: int, guardian: int) -> None:
        kill(guardian)
        kill(pid)

    # Nobody but the launcher tells pids here, the guardian's first.
    kill_and_see("plain", 4, kill_both)


def test_a_launcher_does_not_miss_its_guardian() -> None:
    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        launcher.spawn("first", lambda: None)
        assert launcher._guardian is not None
        os.kill(launcher._guardian.pid, signal.SIGKILL)
        launcher.spawn("second", lambda: None)
        assert [ending.exit_code for ending in launcher.wait()] == [0, 0]

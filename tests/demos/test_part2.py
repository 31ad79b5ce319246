"""The demos of signals, sockets and synchronisation: each runs, for nobody too, leaves nothing, and is able to fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import Surroundings

DEMOS = Path(__file__).resolve().parents[2] / "demos"

#: Every demo with a change that makes something in it untrue: what it claims is then not what it observes.
SABOTAGE = {
    "signals": "demo.send = lambda pid: demo.os.kill(pid, demo.RT)",  # no SIGUSR1, and a real-time one without payload
    "sigchld": "demo.Brood.zombies = lambda self: 0",
    "unix-socket": "demo.EXPECTED['stream'] = demo.WORDS",
    "tcp": "demo.TIME_WAIT = '01'",
    "udp": "demo.FLOOD = 5",  # all of it fits
    "zeromq": "demo.EARLY = 0",  # nothing to miss
    "semaphore": "demo.consume = lambda number, buffer: all(True for _ in iter(buffer.take, None))",
    "robust-mutex": "demo.half_done = lambda page, notes, robust: (notes.send(''), demo.signal.pause())",
    "eventfd": "demo.adder = lambda fd, values: demo.os.eventfd_write(fd, 1)",
    "file-lock": "demo.KINDS['OFD'] = demo.KINDS['record']",  # which a close() drops
    "fd-passing": "demo.FIRST = 3; demo.os.lseek = lambda *_: 0",
    "process-vm": "demo.own = lambda notes: (notes.send(8), demo.signal.pause())",
    "signalfd": "demo.send = lambda pid: [demo._core.sigqueue(pid, demo.RT, value) for value in (1, 2)]",
    "pidfd-signal": "demo.readable = lambda pidfd, timeout_ms=0: False",
    "condvar": "demo.Condition.notify_all = demo.Condition.notify",
    "barrier": "demo.SHORT_NS = 0; demo.too_few = lambda page, timeout_ns: 0",
    "futex": "demo.wait_while_zero = lambda page, notes: notes.send(0)",
}
NAMES = sorted(SABOTAGE)
NOBODY = Surroundings(name="nobody", nobody=True)


def path(name: str) -> str:
    return str(DEMOS / f"{name.replace('-', '_')}.py")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_ends_with_its_verdict(name: str) -> None:
    done = run(path(name))
    if done.returncode == 77:
        pytest.skip(last_line(done.stdout))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "FAILED" not in done.stdout
    assert done.stdout.count("\nok: ") >= 3
    assert last_line(done.stdout).startswith(f"{name}: ")
    assert done.stdout.isascii()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_nobody_and_leaves_nothing(name: str) -> None:
    if why := NOBODY.obstacle():
        pytest.skip(why)
    done = NOBODY.run(sys.executable, path(name))
    assert done.returncode in (0, 77), done.text
    assert done.left == (), f"left behind: {done.left}"


@pytest.mark.parametrize("name", NAMES)
def test_what_it_claims_is_what_it_observes(name: str) -> None:
    lines = ["import sys", f"sys.path[0] = {str(DEMOS)!r}", f"import {name.replace('-', '_')} as demo"]
    done = run("-c", "\n".join([*lines, SABOTAGE[name], "sys.exit(demo.main())"]))
    if done.returncode == 77:
        pytest.skip(last_line(done.stdout))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "\nFAILED: " in done.stdout
    assert last_line(done.stdout).startswith(f"{name}: FAILED: ")

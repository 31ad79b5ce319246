"""Every demo: it runs and ends with its verdict, for nobody too, leaves nothing, and is able to fail."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from surroundings import Surroundings

DEMOS = Path(__file__).resolve().parents[2] / "demos"

#: Every demo with a change that makes something in it untrue: what it claims is then not what it observes.
SABOTAGE = {
    "blocked-io": "demo.is_pending = lambda process: False",
    "boundaries": "demo.write_all = lambda channels: [c.write(b''.join(demo.WRITES)) for c in channels]",
    "execution-units": "demo.change = lambda box, kind: box.update(fd=0)",  # changes no variable, opens no file
    "execution-units-cost": "demo.switch_threads = lambda: None",
    "execution-units-crash": "demo.read_at_address_0 = lambda: None",
    "execution-units-race": "demo.Barrier = lambda *_, **__: type('Open', (), {'wait': lambda *_: None})()",
    "fastest": "demo._core.message_stamp = lambda message, sequence: None",
    "fifo": "demo.write_greeting = lambda path: path.write_bytes(b'bye')",
    "go-ipc": "demo.serve = lambda listener: listener.accept()[0].send(b'no')",
    "memfd": "demo.os.ftruncate = lambda fd, size: None",  # as if nothing were sealed
    "pipe": "demo.signal.SIG_IGN = demo.signal.SIG_DFL",  # nobody ignores SIGPIPE
    "posix-mq": "demo.SENT.reverse()",
    "posix-shm": (
        "shared = demo.mmap.mmap; demo.PATIENCE_NS = 10**8; "
        "demo.mmap.mmap = lambda fd, size: shared(fd, size, flags=demo.mmap.MAP_PRIVATE)"
    ),
    "ring": "demo.put_all = lambda ring: [ring.put(b'') for _ in range(demo.MESSAGES)] and None",
    "sysv-mq": "demo.MIXED.reverse()",
    "sysv-shm": "demo.write_text = lambda key, text: None",
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
    "process-states": "demo.PATIENCE_S = 1; demo._core.trace_stop = lambda pid: None",
    "process-vm": "demo.own = lambda notes: (notes.send(8), demo.signal.pause())",
    "signalfd": "demo.send = lambda pid: [demo._core.sigqueue(pid, demo.RT, value) for value in (1, 2)]",
    "pidfd-signal": "demo.readable = lambda pidfd, timeout_ms=0: False",
    "zombie": "demo.resident_kib = lambda pid: 1",
    "condvar": "demo.Condition.notify_all = demo.Condition.notify",
    "barrier": "demo.SHORT_NS = 0; demo.too_few = lambda page, timeout_ns: 0",
    "futex": "demo.wait_while_zero = lambda page, notes: notes.send(0)",
    "gmp-bind": "demo.WORK.jobs[0].steps[4] = 'sleep 1s'",  # keeps no M in the kernel
    "gmp-deadlock": "demo.DEADLOCK.jobs[1].steps.pop()",  # the writer waits for nobody
    "gmp-free-lists": "demo.FEW = 100",  # more than one P keeps
    "gmp-handoff": "demo.BLOCKED_S = 0",
    "gmp-kill": "demo.SMALL += 1",  # one more than there were
    "gmp-locked": "demo.PING_PONG.jobs[0].steps.remove('lockm')",
    "gmp-newm": "demo.WORK.jobs[0].steps[2] = 'compute 1ms'",  # nobody blocks
    "gmp-procs": "demo.at_once = lambda watch: 99",
    "gmp-round": "demo.PATIENCE_S = 0; demo.WORK.jobs[3].steps.remove('lockm')",
    "gmp-steal": "demo.MANY = 1",
    "gmp-stw": "demo.MORE = demo.BEFORE",
    "thread-models": "demo.BLOCK_MS = 10**6",  # longer than anybody was in the kernel
}
NAMES = sorted(SABOTAGE)
NOBODY = Surroundings(name="nobody", nobody=True)

#: What a machine may lack, the demo that meets it, and how that ends: reduced (0), with one line (1), not here (77).
LACKS = [
    ("boundaries", "demo.posix_ipc.MessageQueue = no_queue", 0),
    ("posix-mq", "demo.posix_ipc.MessageQueue = no_queue", 77),
    ("posix-shm", "demo.os.posix_fallocate = no_room", 1),
    ("sysv-mq", "sys.modules['sysv_ipc'] = None", 77),
    ("sysv-shm", "sys.modules['sysv_ipc'] = None", 77),
]
PRELUDE = f"""
import errno, sys
sys.path[0] = {str(DEMOS)!r}

def no_queue(*_args, **_more):
    raise OSError("The process already has the maximum number of files open")

def no_room(*_args):
    raise OSError(errno.ENOSPC, "No space left on device")
"""


def module_name(name: str) -> str:
    return name.replace("-", "_")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def run_changed(name: str, change: str) -> subprocess.CompletedProcess[str]:
    return run("-c", f"{PRELUDE}\nimport {module_name(name)} as demo\n{change}\nsys.exit(demo.main())")


def last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def test_every_demo_is_here() -> None:
    assert sorted(path.stem.replace("_", "-") for path in DEMOS.glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_ends_with_its_verdict(name: str) -> None:
    done = run(str(DEMOS / f"{module_name(name)}.py"))
    if done.returncode == 77:
        pytest.skip(last_line(done.stdout))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "FAILED" not in done.stdout
    assert done.stdout.count("\nok: ") >= 2
    assert last_line(done.stdout).startswith(f"{name}: ")
    assert done.stdout.isascii()


def test_one_cpu_is_one_cpu() -> None:
    pinned = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); demo.PROCS = (1,)"
    done = run_changed("gmp-procs", pinned)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the default is 1 P: " in done.stdout
    assert "at most 1 G ran at once" in done.stdout
    assert "ms of work on 1 CPU: " in last_line(done.stdout)


def test_as_many_steals_are_shown_or_counted_as_there_were() -> None:
    for shown in (10, 2):
        done = run_changed("gmp-steal", f"demo.SHOWN = {shown}")
        first = done.stdout.split("\n-- ")[1]
        (total,) = re.findall(r"^ok: steals: (\d+)$", first, re.MULTILINE)
        more = sum(map(int, re.findall(r"\.\.\. and (\d+) more$", first, re.MULTILINE)))
        assert len(re.findall(r" steal: \d+ from P", first)) + more == int(total)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_nobody_and_leaves_nothing(name: str) -> None:
    if why := NOBODY.obstacle():
        pytest.skip(why)
    done = NOBODY.run(sys.executable, str(DEMOS / f"{module_name(name)}.py"))
    assert done.returncode in (0, 77), done.text
    assert done.left == (), f"left behind: {done.left}"


@pytest.mark.parametrize("name", NAMES)
def test_what_it_claims_is_what_it_observes(name: str) -> None:
    done = run_changed(name, SABOTAGE[name])
    if done.returncode == 77:
        pytest.skip(last_line(done.stdout))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "\nFAILED: " in done.stdout
    assert last_line(done.stdout).startswith(f"{name}: FAILED: ")


@pytest.mark.parametrize(("name", "lack", "code"), LACKS, ids=[name for name, _lack, _code in LACKS])
def test_what_is_lacking_is_one_clear_line(name: str, lack: str, code: int) -> None:
    done = run_changed(name, lack)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if code == 77:
        assert "not here" in last_line(done.stdout)


@pytest.mark.parametrize(
    ("shared_ns", "answer"),
    [([1, 1, 1, 1, 1], "yes"), ([1, 1, 9, 1, 1], "yes"), ([9, 9, 9, 9, 1], "no"), ([1, 9, 1, 9, 1], "undecided")],
)
def test_the_verdict_of_fastest_follows_the_figures(
    shared_ns: list[int], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DEMOS))
    fastest: Any = import_module("fastest")
    # The better one of the kernel's two counts, round by round.
    figures = {"pipe": [2, 5, 2, 5, 2], "unix-stream": [5, 2, 5, 2, 5], "ring": shared_ns}
    assert f" {answer} (" in fastest.judge(figures, "ring")

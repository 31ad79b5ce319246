"""Not a test: ends the parent of demos at random moments and looks at what is left. See test_killed.py.

    python tests/demos/assassin.py SIGKILL|SIGINT SEED TIMES
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ipclab.demos import catalogue
from ipclab.processes import registry

#: The latest moment, for a demo alone and for three in a row: about as long as they take.
LATEST_S = {1: 0.6, 3: 1.5}
#: How long orphans may take to vanish. The project promises a second, of a machine that has a CPU for them; this one
#: may be full, so here it only tells those that go from those that stay.
GONE_S = 30.0
MARK = "IPCLAB_TEST_KILLED"
#: Exit codes after SIGINT. Before Python has a handler, the signal itself ends it, for which a shell says 130 too; and
#: the demo may have been over, or about to be.
INTERRUPTED = (130, -signal.SIGINT, 0)
#: What the interpreter says, with exit code 1, when the signal comes before it has started up.
NOT_STARTED = re.compile(
    "Fatal Python error: init|Could not import runpy|failed to set __main__|^KeyboardInterrupt$"
    # CPython 3.11, in what a demo of its own imports; KeyboardInterrupt is its cause
    "|KeyboardInterrupt.*direct cause.*Error calling __set_name__",
    re.DOTALL,
)


def main(how: str, seed: int, times: int) -> int:
    """End so many demos and look at what is left; 1 at the first fault."""
    chance = random.Random(seed)
    for _ in range(times):
        command, count = choose(chance)
        delay_s = chance.uniform(0, LATEST_S[count])
        print(f"seed {seed}: {how} to {' '.join(command[1:])} after {delay_s:.4f} s", flush=True)
        if fault := end_one(command, signal.Signals[how], delay_s):
            print(f"FAILED: {fault}")
            return 1
    return 0


def choose(chance: random.Random) -> tuple[list[str], int]:
    """A demo alone, or three through the command line, which is then the parent that is ended; and how many."""
    names = catalogue.names()
    if chance.random() < 0.5:
        return [sys.executable, catalogue.find(chance.choice(names)).path], 1
    return [sys.executable, "-m", "ipclab", "demo", *chance.sample(names, 3)], 3


def end_one(command: list[str], signo: signal.Signals, delay_s: float) -> str:
    """Start it, end it, and say what is wrong then; empty when nothing is."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            process.wait(delay_s)
            print("  had ended by itself")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signo) if signo == signal.SIGINT else process.send_signal(signo)
        if fault := look_for_living(process, mark):
            return fault
        errors.seek(0)
        fault = look_at_interrupted(process, errors.read()) if signo == signal.SIGINT else ""
        return fault or look_after_clean()


def look_for_living(process: subprocess.Popen[bytes], mark: str) -> str:
    """Every process of the run goes by itself; those that do not are killed."""
    until = time.monotonic() + GONE_S
    while (living := list(marked(mark))) and time.monotonic() < until:
        process.poll()
        time.sleep(0.01)
    described = [describe(pid) for pid in living]
    for pid in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return f"still there after {GONE_S:g} s: {described}" if living else ""


def look_at_interrupted(process: subprocess.Popen[bytes], errors: str) -> str:
    """After Ctrl-C: the exit code, and nothing left for `clean` to do."""
    unborn = process.wait() == 1 and NOT_STARTED.search(errors.strip()) is not None
    if process.returncode not in INTERRUPTED and not unborn:
        return f"exit code {process.returncode}, not 130\n{errors}"
    if left := registry.leftovers():
        return f"it has not cleaned up: {left}"
    return ""


def look_after_clean() -> str:
    """What `clean` finds it removes; then there is nothing.

    Not at once: a killed process has no environment any more, so it does not count as living, some moments before
    it is a zombie; until then its journal is that of a living one.
    """
    folder = registry.runtime_dir()
    until = time.monotonic() + GONE_S
    while True:
        refused = [left for left in registry.clean() if left.error]
        still = [*refused, *registry.leftovers(), *(folder.iterdir() if folder.exists() else ())]
        if not still or time.monotonic() > until:
            break
        time.sleep(0.01)
    if still:
        return f"left after clean: {still}"
    if folder.exists():
        folder.rmdir()
    return ""


def marked(mark: str) -> Iterator[int]:
    """The living processes of one run. A zombie has no environment any more, so it does not count."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                found = wanted in (entry / "environ").read_bytes()
            except OSError:
                continue
            if found:
                yield int(entry.name)


def describe(pid: int) -> str:
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        syscall = Path(f"/proc/{pid}/syscall").read_text().strip()
    except (OSError, ValueError) as err:
        return f"{pid} ({err})"
    return f"{pid} {status['Name']} state {status['State']} parent {status['PPid']} syscall {syscall}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

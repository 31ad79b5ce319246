"""System calls per message where no counter of ours is: a separate pass, not timed, under strace(1).

Libraries make their system calls in their own code, and Python its own around them. So the same loops are run once more
for a few hundred messages while `strace -c -f` counts every call of every thread of both processes. Being traced makes
a process slower by a factor, which changes how often it finds a queue empty: the figure says what kind of mechanism it
is, not the last digit.

    launcher                               role (each)
    --------                               -----------
                                           take, warm up
                                           meter.start(): "ready", waits
    strace -p each, until attached
    "go" to both                     ->    the loop
                                           meter.stop(): "done", waits
    when both are done: end strace
    "go" to both                     ->    reports

The few calls of this conversation, and the driver's timer, are taken off what was counted.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ipclab import _core
from ipclab.bench.driver import Job, Meter
from ipclab.errors import IpclabError, TimedOut, Unavailable
from ipclab.processes import Launcher, Process, procfs
from ipclab.records import TracedCalls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipclab.bench.driver import Driver, Lane, SideResult
    from ipclab.mechanisms.base import Side
    from ipclab.records import Case

MESSAGES = 400
WARM_UP = 50
DEADLINE_S = 20.0
#: What is not the mechanism's: of each role the read that lets it go and the write that says it is done, and the python
#: driver's timer (python_driver.ticking).
HOOK_CALLS = {"read": 1, "write": 1}
TIMER_CALLS = {"setitimer", "rt_sigaction", "rt_sigreturn"}
#: What a row says of where its figure is from.
SOURCE = "counted by strace in a pass of its own, where all is slower: what spins sleeps more often there"


def trace(driver: Driver, case: Case, messages: int = MESSAGES) -> TracedCalls:
    """Count the system calls of one case, of one pair of it; takes a tenth of a second, more for what sleeps much.

    What keeps it from being counted is the result's reason. Raises KeyboardInterrupt alone.
    """
    key = case.key
    try:
        calls = _trace(driver, msgspec.structs.replace(case, pairs=1, producers=1, consumers=1), messages)
    except (IpclabError, OSError) as err:
        return TracedCalls(case_key=key, messages=0, reason=f"not counted: {' '.join(str(err).split())}")
    per_message = round(sum(calls.values()) / messages, 2)
    return TracedCalls(case_key=key, messages=messages, calls=calls, per_message=per_message, reason=SOURCE)


def _trace(driver: Driver, case: Case, messages: int) -> dict[str, int]:
    strace = shutil.which("strace")
    if strace is None:
        raise Unavailable("strace is not installed")
    deadline_ns = time.monotonic_ns() + int(DEADLINE_S * 1e9)
    interval_ns = None if case.rate_per_s is None else max(1, round(1e9 / case.rate_per_s))
    job = Job(case, messages, WARM_UP, None, interval_ns, deadline_ns)
    with driver.open(case) as lane, contextlib.ExitStack() as stack:
        launcher = stack.enter_context(Launcher(deadline_s=DEADLINE_S + 5, grace_s=0.2, sink=lambda _line: None))
        sides = [_Side(stack, launcher, lane, side, job) for side in ("a", "b")]
        launcher.release()
        for each in sides:
            each.hear(deadline_ns)
        with contextlib.ExitStack() as tracing:
            tracers = [tracing.enter_context(_attached(strace, each.process.pid, deadline_ns)) for each in sides]
            for each in sides:
                each.go()
            for each in sides:
                each.hear(deadline_ns)
                each.process.wait_state("S")  # until then strace may not have counted the call that said so
            calls = _sum(_own(_end(tracer)) for tracer in tracers)
        for each in sides:
            each.go()
        if any(ending.exit_code for ending in launcher.wait()):
            raise IpclabError(f"{case.mechanism}: the traced pass has failed")
    return calls


class _Side:
    """A role that tells where it is, and goes on when it is told to."""

    def __init__(self, stack: contextlib.ExitStack, launcher: Launcher, lane: Lane, side: Side, job: Job) -> None:
        self._heard, told = os.pipe()
        waits, self._go = os.pipe()
        stack.callback(os.close, self._heard)
        stack.callback(os.close, self._go)
        try:
            self.process: Process = launcher.spawn(side, _play, lane, side, job, told, waits, killable=True)
        finally:
            os.close(told)
            os.close(waits)

    def hear(self, deadline_ns: int) -> None:
        """Wait until it has said that it is there. Raises IpclabError when it ends before, TimedOut."""
        poller = select.poll()
        poller.register(self._heard, select.POLLIN)
        poller.register(self.process.pidfd, select.POLLIN)
        ready = [fd for fd, _ in poller.poll(max(0, deadline_ns - time.monotonic_ns()) / 1e6)]
        if self._heard in ready and os.read(self._heard, 1):
            return
        if not ready:
            raise TimedOut(f"side {self.process.role} was not done after {DEADLINE_S:g} s under strace")
        # Only after a wait has everything it said been taken, the reason among it.
        self.process.wait(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        raise IpclabError(
            f"side {self.process.role} has ended before it was traced: {self.process.error or 'no reason'}"
        )

    def go(self) -> None:
        """Let it go on."""
        os.write(self._go, b"g")


def _play(lane: Lane, side: Side, job: Job, told: int, waits: int) -> int:
    """The role: runs the lane, stopping where it is to be traced from and until."""

    def stop() -> None:
        os.write(told, b".")
        os.read(waits, 1)

    _core.set_ptracer_any()  # strace is no ancestor of this process: Yama would refuse it
    result: SideResult = lane.run(side, job._replace(meter=Meter(stop, stop)))
    if result.error:
        raise IpclabError(result.error)
    return 0


@contextlib.contextmanager
def _attached(strace: str, pid: int, deadline_ns: int) -> Iterator[subprocess.Popen[str]]:
    """strace, attached to every thread of that process. Raises Unavailable when it may not."""
    command = [strace, "-c", "-f", "-qq", "-p", str(pid)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as tracer:
        try:
            while not _traced(pid):
                if tracer.poll() is not None:
                    assert tracer.stderr is not None
                    said = tracer.stderr.read().strip().splitlines()
                    raise Unavailable(said[0] if said else "strace has ended at once")
                if time.monotonic_ns() >= deadline_ns:
                    raise TimedOut("strace did not attach in time")
                time.sleep(0.002)
            yield tracer
        finally:
            if tracer.poll() is None:
                tracer.kill()


def _traced(pid: int) -> bool:
    """Whether every thread of that process has a tracer."""
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return all(procfs.status(thread).get("TracerPid", "0") != "0" for thread in threads)


def _end(tracer: subprocess.Popen[str]) -> dict[str, int]:
    """Detach, and read the table."""
    tracer.send_signal(signal.SIGINT)
    _out, table = tracer.communicate(timeout=DEADLINE_S)
    return parse(table)


def parse(table: str) -> dict[str, int]:
    """What `strace -c` prints: "% time, seconds, usecs/call, calls, errors (may be empty), syscall" -> name to calls.

    >>> parse("% time seconds usecs/call calls errors syscall\\n 60.0 0.1 5 20 3 read\\n 40.0 0.1 5 10 write\\n")
    {'read': 20, 'write': 10}
    """
    calls: dict[str, int] = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
            calls[words[-1]] = calls.get(words[-1], 0) + int(words[3])
    return calls


def _own(calls: dict[str, int]) -> dict[str, int]:
    """The mechanism's calls of what one role has made."""
    left = {name: count - HOOK_CALLS.get(name, 0) for name, count in calls.items() if name not in TIMER_CALLS}
    return {name: count for name, count in left.items() if count > 0}


def _sum(tables: Iterator[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for table in tables:
        for name, count in table.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))

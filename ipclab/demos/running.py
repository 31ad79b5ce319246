"""Runs one demo as a process of its own, shows what it prints while it runs, and leaves nothing of it behind.

    ipclab demo                      the demo                          its roles
    -----------                      --------                          ---------
    subreaper; keeps the terminal    group of its own                  a group each
    poll: output, end, deadline      PR_SET_PDEATHSIG: SIGKILL         PR_SET_PDEATHSIG: SIGKILL
      Ctrl-C: one SIGINT       --->  stops its roles, cleans, 130 -->  SIGTERM, SIGKILL
      grace over: SIGKILL      --->  dies at once                 -->  die with it; come to us as orphans, are reaped

The demo has a process group of its own so that a Ctrl-C reaches it once, through us: were it in the terminal's
foreground group, it would get one from the terminal and perhaps one from us in the middle of its own cleaning. It reads
nothing from the terminal, so a background group costs it nothing. Killed with SIGKILL we can do nothing any more: the
parent-death signals end everything then, and `ipclab clean` finds the names that are left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

import msgspec

from ipclab import _core
from ipclab.errors import IpclabError, from_os_error
from ipclab.processes import procfs, registry
from ipclab.records import Demo, DemoRun, DemoStatus, Leftover

#: A little more than a Stage gives itself (30 s): its own report of what hung is better than ours.
DEADLINE_S = 35.0
#: How long a demo may take to clean up after Ctrl-C: everything must be gone within a second.
GRACE_S = 0.6
#: How long its last words may wait for whoever reads ours.
LAST_WORDS_S = 0.1
#: Exit code of a demo that cannot run on this machine, as CTest has it for "skipped".
NOT_HERE = 77

#: What ends us from outside.
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_READ_BYTES = 65536
#: The longest line that is remembered for the report.
_VERDICT_BYTES = 2000

Status = Literal["passed", "failed", "not here", "deadline"]


def run(
    demo: Demo,
    write: Callable[[bytes], object],
    *,
    deadline_s: float = DEADLINE_S,
    on_start: Callable[[int], object] | None = None,
) -> DemoRun:
    """Run one demo to its end and report; `write` gets its output, as it comes, `on_start` its pid, once it is there.

    Blocks until it has ended, `deadline_s` at most (time spent inside `write` does not count). On KeyboardInterrupt,
    and on whatever `write` raises, the demo is stopped, everything of it is removed, and the exception goes on.
    """
    others = _children()
    earlier = {(leftover.kind, leftover.name) for leftover in registry.clean()}
    try:
        with _subreaper():
            ended = _watch(demo, write, deadline_s, on_start)
            orphans = _end_orphans(others)
    except BaseException:
        with _undisturbed():
            _end_orphans(others)
            registry.clean()
        raise
    return msgspec.structs.replace(ended, orphans=orphans, leftovers=_left_since(earlier))


def skip(status: DemoStatus, write: Callable[[bytes], object]) -> DemoRun:
    """The report of a demo that is not started because what it needs is not here; `write` gets its one line."""
    remedy = f"; {status.remedy}" if status.remedy else ""
    verdict = f"{status.demo.name}: not here: {status.reason}{remedy}"
    write(f"{verdict}\n".encode())
    return DemoRun(
        name=status.demo.name, status="not here", verdict=verdict, duration_ns=0, exit_code=NOT_HERE, signal=None
    )


def _left_since(earlier: set[tuple[str, str]]) -> tuple[Leftover, ...]:
    """Clean; what was found, but for what was there before the demo and what another pid namespace has to judge."""
    found = registry.clean()
    return tuple(one for one in found if one.kind != "journal" and (one.kind, one.name) not in earlier)


def _watch(
    demo: Demo, write: Callable[[bytes], object], deadline_s: float, on_start: Callable[[int], object] | None
) -> DemoRun:
    """The demo from its start to its end, however it comes."""
    started_ns = time.monotonic_ns()
    with _spawn(demo) as process:
        if on_start is not None:
            on_start(process.pid)
        output = _Output(process, write)
        try:
            in_time = output.pump(deadline_s)
        except BaseException:
            with _undisturbed():
                last_words = _stop(process, output)
            _write_briefly(write, last_words)
            raise
        if not in_time:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        duration_ns = time.monotonic_ns() - started_ns
        output.rest()
    return DemoRun(
        name=demo.name,
        status=_status(code, in_time),
        verdict=output.last_line() if in_time else f"killed: not at its end after {deadline_s:g} s",
        duration_ns=duration_ns,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
    )


def _status(code: int, in_time: bool) -> Status:
    if not in_time:
        return "deadline"
    return "passed" if code == 0 else "not here" if code == NOT_HERE else "failed"


@contextlib.contextmanager
def _spawn(demo: Demo) -> Iterator[subprocess.Popen[bytes]]:
    """The demo's process; it is dead and reaped when the block is left.

    Signals wait while it is made, so that no exception can come between the fork and our knowing of the child.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        process = _start(demo, mask)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _start(demo: Demo, mask: set[signal.Signals | int]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def in_child() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask | {signal.SIGINT})  # perform.py unblocks it when it is ready
        _core.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ipclab.demos.perform", demo.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            process_group=0,
            preexec_fn=in_child,
        )
    except OSError as err:
        raise from_os_error(err, f"demo {demo.name} cannot be started by {sys.executable}", syscall="execve") from err
    except subprocess.SubprocessError as err:
        raise IpclabError(f"demo {demo.name} cannot be started by {sys.executable}: {err}") from err


class _Output:
    """What the demo prints: passed on as it comes, its last line kept."""

    def __init__(self, process: subprocess.Popen[bytes], write: Callable[[bytes], object]) -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._process = process
        self.write = write
        self._tail = b""

    def pump(self, timeout_s: float) -> bool:
        """Pass output on until the process has ended; False when the time is over first.

        The end is the process's, not the pipe's: an orphan may hold the pipe's other end for longer.
        """
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        pidfd = os.pidfd_open(self._process.pid)
        try:
            poller = select.poll()
            poller.register(self._fd, select.POLLIN)
            poller.register(pidfd, select.POLLIN)
            while True:
                left_ns = until_ns - time.monotonic_ns()
                ready = dict(poller.poll(max(0, left_ns) / 1e6))
                if self._fd in ready:
                    until_ns += self._pass_on()
                    if ready[self._fd] & (select.POLLHUP | select.POLLERR) and not ready[self._fd] & select.POLLIN:
                        poller.unregister(self._fd)
                elif pidfd in ready:
                    return True
                if not ready and left_ns <= 0:
                    return False
        finally:
            os.close(pidfd)

    def rest(self) -> None:
        """Pass on what is still in the pipe; never waits."""
        while self._pass_on():
            pass

    def last_line(self) -> str:
        """The last line that was not empty, without control characters."""
        lines = self._tail.decode("utf-8", errors="replace").split("\n")
        texts = ["".join(char if char.isprintable() else " " for char in line).strip() for line in lines]
        return next((text for text in reversed(texts) if text), "")

    def _pass_on(self) -> int:
        """One read and one write; how long they took, in ns, 0 when there was nothing to read."""
        started_ns = time.monotonic_ns()
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            return 0
        self._tail = (self._tail + data)[-_VERDICT_BYTES:]
        self.write(data)
        return max(1, time.monotonic_ns() - started_ns)


def _stop(process: subprocess.Popen[bytes], output: _Output) -> bytes:
    """SIGINT, GRACE_S to clean up, SIGKILL; what it said meanwhile, for writing it may wait, and this may not."""
    words = bytearray()
    output.write = words.extend
    process.send_signal(signal.SIGINT)  # reaps it when it has just ended by itself: then there is no pid to wait for
    if process.returncode is not None or output.pump(GRACE_S):
        output.rest()
    # Popen.poll: a group whose leader is reaped may be somebody else's by now.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return bytes(words)


def _write_briefly(write: Callable[[bytes], object], words: bytes) -> None:
    """Write, but give up after LAST_WORDS_S: perhaps the reader that does not read is why we were interrupted."""

    def give_up(signo: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, LAST_WORDS_S)
        with contextlib.suppress(OSError, IpclabError):
            write(words)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not interrupt the cleaning, which takes less than a second."""
    before = [(signo, signal.signal(signo, signal.SIG_IGN)) for signo in _ENDING]
    try:
        yield
    finally:
        for signo, handler in before:
            signal.signal(signo, handler)


@contextlib.contextmanager
def _subreaper() -> Iterator[None]:
    """Orphans of the demo come to us, not to an init that may be slow or foreign: PR_SET_CHILD_SUBREAPER."""
    _core.set_child_subreaper(True)
    try:
        yield
    finally:
        _core.set_child_subreaper(False)


def _end_orphans(others: set[int]) -> int:
    """Kill and reap every child of ours that is not one of `others`; how many there were.

    A demo that ends as it should has waited for all of its own. One that sleeps where no signal reaches it (D) is given
    up after a second.
    """
    count = 0
    until = time.monotonic() + 1.0
    while (orphans := _children() - others) and time.monotonic() < until:
        for pid in orphans:
            count += _end_orphan(pid, until)
    return count


def _end_orphan(pid: int, until: float) -> bool:
    """Whether it is gone now. It is our child and nobody else waits for it, so its pid cannot mean another process."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(max(0.0, until - time.monotonic()) * 1e3):
            return False
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        return True
    finally:
        os.close(pidfd)


def _children() -> set[int]:
    """The pids of our children, zombies included; none where /proc is hidden: then the death signals have to do."""
    try:
        return set(procfs.children(os.getpid()))
    except (IpclabError, OSError):
        return set()

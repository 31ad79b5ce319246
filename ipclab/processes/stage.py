"""Stage: a demo. Roles, narration, checks, and a verdict.

    def main() -> int:
        with Stage("pipe", "What does a pipe do when it is full?") as stage:
            writer = stage.spawn("writer", fill)
            stage.release()
            stage.check(stage.asleep_in(writer, syscall="write"), "the writer sleeps in write")
            stage.verdict("A full pipe puts its writer to sleep.")
        return stage.exit_code

Everything is one ordered stream on stdout, plain ASCII of ours: titles, narration with its time, `ok:` and `FAILED:`.
The verdict is printed last, when all roles have ended and every check has passed. A role that an exception ended, or
the deadline, is a failed check.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import msgspec

from ipclab.errors import IpclabError, TimedOut, Unavailable
from ipclab.processes import child, logs, procfs, registry
from ipclab.processes.book import to_stdout
from ipclab.processes.interrupts import Terminated, whole
from ipclab.processes.spawn import Launcher, Process

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: Exit codes of a demo.
PASSED, FAILED, NOT_HERE, INTERRUPTED = 0, 1, 77, 130

_WORDS = {
    "R": "runs",
    "S": "sleeps",
    "D": "sleeps uninterruptibly",
    "T": "is stopped",
    "t": "is stopped by a tracer",
    "Z": "is a zombie",
    "X": "is gone",
    "I": "is idle",
}


def _refusal(error: BaseException | None) -> IpclabError | None:
    """What the kernel has refused the demo's own process, as one line; None for anything else.

    That is this machine's doing and no mistake in the demo, which would keep its traceback.
    """
    if isinstance(error, IpclabError) or error is None:
        return None
    # posix_ipc and sysv_ipc have an OSError for some refusals and exceptions of their own for the others.
    if not isinstance(error, OSError) and type(error).__module__ not in ("posix_ipc", "sysv_ipc"):
        return None
    if os.environ.get("IPCLAB_DEBUG"):
        traceback.print_exception(error)
    return IpclabError(child.in_one_line(error))


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """A process as /proc shows it at one moment."""

    role: str
    pid: int
    #: R S D T t Z X I
    state: str
    #: The kernel function it sleeps in; None: it does not sleep, or the kernel does not tell.
    wchan: str | None
    #: The system call it is blocked in; None: none, or the kernel does not tell.
    syscall: str | None


class Stage(Launcher):
    """See the module's text. Leaving the block sets `exit_code`, and raises only what is a mistake in the demo."""

    label = "stage"

    def __init__(self, name: str, question: str, *, deadline_s: float = 30.0) -> None:
        super().__init__(deadline_s=deadline_s)
        self.name = name
        self.question = question
        self.failed: list[str] = []
        self.passed: list[str] = []
        self._verdict = ""
        self._ended: int | None = None

    @property
    def exit_code(self) -> int:
        """0 all checks passed, 1 not, 77 not here, 130 interrupted; 128 + n for another signal that ended it."""
        if self._ended is not None:
            return self._ended
        return FAILED if self.failed else PASSED

    @whole
    def __enter__(self) -> Self:
        """Ends the program with one line and exit code 1 when there is no room even for the stage."""
        if sys.argv[1:] == ["--states"]:
            _go_under_the_tracker(self.name)
        self._named_before = registry.mine()
        try:
            super().__enter__()
        except IpclabError as err:
            to_stdout(f"{self.name}: FAILED: {err}")
            raise SystemExit(FAILED) from None
        self._interrupts.install(signal.SIGTERM, signal.SIGHUP)
        self._hear_own_logging()
        self._bare(f"{self.name}: {self.question}")
        return self

    @whole
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if os.getpid() != self.pid:
            return False
        root = logging.getLogger()
        root.removeHandler(self._own_logging)
        root.setLevel(self._level_before)
        try:
            error = self._leave_quietly(error)
            return self._conclude(_refusal(error) or error)
        finally:
            self._interrupts.restore()

    def _hear_own_logging(self) -> None:
        root = logging.getLogger()
        self._own_logging = logs.BookHandler(self._book.write, self.label)
        self._level_before = root.level
        root.addHandler(self._own_logging)
        if root.level == logging.WARNING:  # logging's default: nobody chose it
            root.setLevel(logging.INFO)

    def _leave_quietly(self, error: BaseException | None) -> BaseException | None:
        """Leave; returns what ended the block, or else the leaving."""
        try:
            self._leave(hurried=error is not None)
        except IpclabError as later:
            if self._book.error is not None:
                print(f"{self.name}: {later}", file=sys.stderr)  # stdout is what is broken
            error = error or later
        registry.clean_mine(self._named_before)  # a demo that was cut short has not removed its names itself
        return error or self._interrupts.take_noted()

    # --- what a demo says ---

    def scene(self, title: str) -> None:
        """A title: what comes now."""
        self._bare(f"\n-- {title}")

    def say(self, text: str) -> None:
        """Narration by the stage's own process."""
        super().say(text)

    def check(self, ok: bool, what: str) -> bool:
        """Print and remember whether it is as it should be; returns `ok`."""
        (self.passed if ok else self.failed).append(what)
        self._bare(f"{'ok' if ok else 'FAILED'}: {what}")
        return bool(ok)

    def verdict(self, sentence: str) -> None:
        """The demo's last line; printed when the block is left, if every check has passed."""
        self._verdict = sentence

    def _bare(self, text: str) -> None:
        self._book.write(self.name, self.pid, "bare", text)

    # --- what a demo sees ---

    def look(self, process: Process) -> Observation:
        """The process as /proc shows it now; narrated."""
        seen = Observation(
            role=process.role,
            pid=process.pid,
            state=process.state(),
            wchan=procfs.wchan(process.pid),
            syscall=procfs.syscall(process.pid),
        )
        text = f"{seen.role}[{seen.pid}] {_WORDS.get(seen.state, 'is')} ({seen.state})"
        if seen.syscall:
            text += f", in system call {seen.syscall}"
        if seen.wchan:
            text += f", in kernel function {seen.wchan}"
        self.say(text)
        return seen

    def asleep_in(self, process: Process, *, syscall: str | None = None, timeout_s: float = 20.0) -> bool:
        """Wait until it sleeps and goes on sleeping; False when the time is over or it has ended.

        Sleeping is state S or D at four looks 2 ms apart, with its count of voluntary context switches unchanged, and
        in this system call where the kernel tells: what it waits for has not come, so it will not by itself.
        """
        until = time.monotonic() + timeout_s
        looks, before = 0, None
        while time.monotonic() < until:
            state = process.state()
            if state in "ZX":
                return False
            now = procfs.voluntary_switches(process.pid)
            call = procfs.syscall(process.pid)
            fits = syscall is None or call is None or procfs.same_call(call, syscall)
            looks = looks + 1 if state in "SD" and fits and now == before else 0
            if looks >= 3:
                return True
            before = now
            time.sleep(0.002)
        return False

    def hear(self, notes: Connection, timeout_s: float = 20.0) -> Any:
        """The next object a role sent into its end of a multiprocessing.Pipe: what it saw, for the checks.

        TimedOut when none came in time, or when a role ended with an exception, for then none will come.
        """
        until = time.monotonic() + timeout_s
        while not notes.poll(0.05):
            if time.monotonic() > until or any(process.error for process in self.processes):
                raise TimedOut("a role did not say what it saw")
        return notes.recv()

    # --- how it ends ---

    def _conclude(self, error: BaseException | None) -> bool:
        """Set the exit code and print the last line; True: the exception has been dealt with."""
        missing = next((process.error for process in self.processes if process.unavailable), "")
        if isinstance(error, Unavailable) or (missing and (error is None or isinstance(error, IpclabError))):
            self._ended = NOT_HERE
            self._bare(f"{self.name}: not here: {error if isinstance(error, Unavailable) else missing}")
            return True
        self._check_roles()
        self._ended = self._code(error)
        if isinstance(error, IpclabError):
            self._bare(f"{self.name}: FAILED: {error}")
        elif self._ended == FAILED:
            self._bare(f"{self.name}: FAILED: {len(self.failed)} of {len(self.failed) + len(self.passed)} checks")
        elif self._ended == PASSED and self._verdict:
            self._bare(f"{self.name}: {self._verdict}")
        return error is None or isinstance(error, IpclabError | KeyboardInterrupt | Terminated)

    def _code(self, error: BaseException | None) -> int:
        if isinstance(error, Terminated):
            return 128 + int(error.args[0])
        if isinstance(error, KeyboardInterrupt) and not self.deadline_passed:
            return INTERRUPTED
        return FAILED if self.failed or error is not None else PASSED

    def _check_roles(self) -> None:
        for process in self.processes:
            who = f"{process.role}[{process.pid}]"
            if process.error:
                self.check(False, f"{who} ended with {process.error}")
            if process.cause == "deadline":
                self.check(False, f"{who} was still there at the deadline of {self._deadline_s:g} s")

    def _pass_deadline(self) -> None:
        first = not self.deadline_passed
        super()._pass_deadline()
        # The demo's own thread may wait for something that will never come now: wake it as Ctrl-C would.
        if first and not self._leaving and threading.current_thread() is not threading.main_thread():
            main = threading.main_thread().ident
            if self._interrupts.has(signal.SIGINT) and main is not None:
                signal.pthread_kill(main, signal.SIGINT)


def _go_under_the_tracker(name: str) -> NoReturn:
    """`python demos/pipe.py --states` becomes `ipclab demo pipe --states`: who tracks stands above this floor."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", "ipclab", "demo", name, "--states"])

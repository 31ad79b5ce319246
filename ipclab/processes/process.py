"""Process: one role, as its launcher holds it. And what it writes, on its way into the book."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from ipclab.errors import UsageError
from ipclab.processes import procfs
from ipclab.processes.interrupts import whole
from ipclab.records import Ending

Cause = Literal["self", "asked", "killed", "deadline"]

#: A line of output without an end is cut here.
_LONGEST_LINE_BYTES = 65536

#: Children of this process that some launcher made and has not reaped.
forked: set[int] = set()
#: One lock for every waitid and every kill of a group in this process: a number is not used while it is given back.
_reaping = threading.RLock()


class _Status(NamedTuple):
    exit_code: int | None
    signal: int | None
    duration_ns: int


class _Waiter(Protocol):
    """What a process needs of its launcher."""

    pid: int

    def wait_for(self, processes: list[Process], timeout_s: float | None) -> None: ...


class Process:
    """One role. Made by Launcher.spawn alone."""

    def __init__(self, launcher: _Waiter, role: str, pid: int, pidfd: int, output: Output) -> None:
        self.role = role
        self.pid = pid
        #: Readable when the process has ended (pidfd_open(2)); closed with the launcher.
        self.pidfd = pidfd
        self.start_time = procfs.start_time(pid)
        #: Who wanted its end, so far.
        self.cause: Cause = "self"
        #: What the wrapper told: the line of an exception that ended the target, and whether it was Unavailable.
        self.error = ""
        self.unavailable = False
        self._launcher = launcher
        self._born_ns = time.monotonic_ns()
        self._status: _Status | None = None
        self.output = output

    def __repr__(self) -> str:
        return f"<Process {self.role}[{self.pid}] {self.state()}>"

    def state(self) -> str:
        """One letter from /proc/PID/stat: R S D T t Z X I; X once it has been reaped."""
        return "X" if self.reaped else procfs.state(self.pid)

    @property
    def reaped(self) -> bool:
        """Whether it has ended and been waited for: its number may be somebody else's."""
        return self._status is not None

    def alive(self) -> bool:
        """Whether it has not ended; a zombie has."""
        if self.reaped:
            return False
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return not poller.poll(0)

    def wait_state(
        self, states: str, timeout_s: float = 20.0, *, wchan: str | None = None, syscall: str | None = None
    ) -> bool:
        """Wait until its state is one of these letters; False when the time is over or it has ended in another.

        With `syscall` (or `wchan`) it must also be blocked in that system call (kernel function), where the kernel
        tells. Looks at /proc every 1 to 10 ms.
        """
        until = time.monotonic() + timeout_s
        pause_s = 0.001
        while True:
            state = self.state()
            if state in states and _blocked_as_asked(self.pid, wchan, syscall):
                return True
            if state in "ZX" or time.monotonic() > until:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.01)

    def signal(self, signo: int) -> None:
        """Send a signal to the role alone; nothing happens when it has ended."""
        if self.reaped:
            return
        if signo == signal.SIGKILL:
            self.blame("killed")
        with contextlib.suppress(ProcessLookupError):
            if os.getpid() == self._launcher.pid:
                signal.pidfd_send_signal(self.pidfd, signo)
            else:
                os.kill(self.pid, signo)  # a sibling has no pidfd

    def kill(self) -> None:
        """SIGKILL. The Ending's cause is "killed"."""
        self.signal(signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> Ending:
        """Wait until it has ended and reap it. TimedOut when the time is over; the launcher's deadline kills it."""
        self._launcher.wait_for([self], timeout_s)
        return self.ending()

    def ending(self) -> Ending:
        """How it ended. Only after a wait; by then everything it wrote has been taken."""
        if self._status is None:
            raise UsageError(f"{self.role}[{self.pid}] has not ended", hint="wait for it first")
        return Ending(
            role=self.role,
            pid=self.pid,
            exit_code=self._status.exit_code,
            signal=self._status.signal,
            cause=self.cause,
            duration_ns=self._status.duration_ns,
            output_dropped_bytes=self.output.dropped_bytes,
        )

    # --- for the launcher ---

    def blame(self, cause: Cause) -> None:
        """Note who wants its end, unless it has ended or somebody wanted it before."""
        if self.cause == "self" and self.alive():
            self.cause = cause

    def kill_group(self, signo: int) -> None:
        """A signal to the role and the children in its group; nothing happens once it has been reaped."""
        with _reaping:
            if not self.reaped:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signo)

    @whole
    def reap(self) -> bool:
        """Reap it if it has ended; True: it is reaped, now or before. Never blocks."""
        with _reaping:
            if self.reaped:
                return True
            try:
                result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                self._note_end(None, None)  # somebody else has waited for it: how it ended is lost
                return True
            if result is None:
                return False
            if result.si_code == os.CLD_EXITED:
                self._note_end(result.si_status, None)
            else:
                self._note_end(None, result.si_status)
            return True

    def _note_end(self, exit_code: int | None, signo: int | None) -> None:
        self._status = _Status(exit_code, signo, time.monotonic_ns() - self._born_ns)
        forked.discard(self.pid)


class Output:
    """What a role and its children write: bytes become lines, and what is over the cap is dropped and counted."""

    def __init__(self, cap_bytes: int, write: Callable[[str, str, int], None]) -> None:
        """`write` takes kind ("out" or "say"), text and time."""
        self.dropped_bytes = 0
        self._cap_bytes, self._write = cap_bytes, write
        self._taken_bytes = 0
        self._rest = b""
        #: When the first byte of the line in `_rest` came.
        self._since_ns = 0

    def take(self, data: bytes) -> None:
        """Bytes from the output pipe; empty at its end."""
        now_ns = time.monotonic_ns()
        if not self._rest:
            self._since_ns = now_ns
        if data:
            data = data[: self.allow(len(data))]
        elif self._rest:
            data = b"\n"
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > _LONGEST_LINE_BYTES:
            lines.append(self._rest[:_LONGEST_LINE_BYTES])
            self._rest = self._rest[_LONGEST_LINE_BYTES:]
        for line in lines:
            self._write("out", line.decode("utf-8", "backslashreplace").removesuffix("\r"), self._since_ns)
            self._since_ns = now_ns

    def allow(self, size: int) -> int:
        """How many of these bytes are below the cap; counts the others as dropped."""
        allowed = min(size, max(0, self._cap_bytes - self._taken_bytes))
        if allowed < size and not self.dropped_bytes:
            text = f"its output is over {self._cap_bytes} bytes; what follows is dropped"
            self._write("say", text, time.monotonic_ns())
        self._taken_bytes += allowed
        self.dropped_bytes += size - allowed
        return allowed


def _blocked_as_asked(pid: int, wchan: str | None, syscall: str | None) -> bool:
    if wchan is None and syscall is None:
        return True
    seen_call, seen_function = procfs.syscall(pid), procfs.wchan(pid)
    call_fits = syscall is None or seen_call is None or procfs.same_call(seen_call, syscall)
    return call_fits and (wchan is None or seen_function is None or wchan in seen_function)

"""Launcher and Process: the life of a role.

    with Launcher() as launcher:                    subreaper on
        writer = launcher.spawn("writer", write)    guardian and role forked; the role waits at the barrier
        reader = launcher.spawn("reader", read)
        launcher.release()                          the barrier opens, the pump starts
        for ending in launcher.wait(): ...
    leaving: SIGTERM to the groups, the grace time, SIGKILL, everything reaped, every descriptor closed

Vocabulary. A *role* is a process forked by a launcher to run one function. Its *group* is its process group, which the
children it forks share. A *stray* is a child that the kernel gave to the launcher because its parent died: launchers
are subreapers. Every process that was not a child of this process when the launcher was entered, that no launcher
forked and that is not in this process's own group counts as one. So a program that starts other children by itself
while a launcher is open must leave them in its own group (that is the default), or start them before.

Who reaps. Only this file, only by pidfd, under `_reaping`. A role's number stays taken until it is reaped, so that a
signal to its group cannot hit somebody else; whoever is left of its group when it has been reaped is a stray.

What may run where. All methods are for the process that made the launcher (in a role they do nothing, or the obvious);
for any thread of it, one at a time. A role that is forked by a thread other than the main one has no parent-death
signal, because that follows the thread; the guardian watches all the same.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from ipclab.errors import IpclabError, NoRoom, TimedOut, UsageError
from ipclab.processes import _prctl, child, logs, procfs, registry
from ipclab.processes.book import Book, Sink
from ipclab.processes.guardian import Guardian
from ipclab.processes.pump import Pump
from ipclab.records import Ending

Cause = Literal["self", "asked", "killed", "deadline"]

#: How long a killed process may take to go before the launcher gives up and names it (state D, a hung file system).
_LAST_WAIT_S = 5.0

#: Descriptors of all launchers of this process: a new role closes them.
_private_fds: set[int] = set()
#: Children of this process that some launcher made and has not reaped.
_forked: set[int] = set()


class _Status(NamedTuple):
    exit_code: int | None
    signal: int | None
    duration_ns: int


class Process:
    """One role. Made by Launcher.spawn alone."""

    def __init__(self, launcher: Launcher, role: str, pid: int, pidfd: int) -> None:
        self.role = role
        self.pid = pid
        #: Readable when the process has ended (pidfd_open(2)); closed with the launcher.
        self.pidfd = pidfd
        self.start_time = procfs.start_time(pid)
        #: What the wrapper told: the line of an exception that ended the target, and whether it was Unavailable.
        self.error = ""
        self.unavailable = False
        self._launcher = launcher
        self._born_ns = time.monotonic_ns()
        self._cause: Cause = "self"
        self._status: _Status | None = None
        self._output = _Output(launcher, self)

    def __repr__(self) -> str:
        return f"<Process {self.role}[{self.pid}] {self.state()}>"

    def state(self) -> str:
        """One letter from /proc/PID/stat: R S D T t Z X I; X once it has been reaped."""
        return "X" if self._status else procfs.state(self.pid)

    def alive(self) -> bool:
        """Whether it has not ended; a zombie has."""
        return self._status is None and not _readable(self.pidfd)

    def wait_state(
        self, states: str, timeout_s: float = 5.0, *, wchan: str | None = None, syscall: str | None = None
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
        if self._status is not None:
            return
        if signo == signal.SIGKILL:
            self._blame("killed")
        with contextlib.suppress(ProcessLookupError):
            if os.getpid() == self._launcher.pid:
                signal.pidfd_send_signal(self.pidfd, signo)
            else:
                os.kill(self.pid, signo)  # a sibling has no pidfd

    def kill(self) -> None:
        """SIGKILL. The Ending's cause is "killed"."""
        self.signal(signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> Ending:
        """Wait until it has ended and reap it. TimedOut when the time is over; at the launcher's deadline it is killed."""
        self._launcher._wait_for([self], timeout_s)
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
            cause=self._cause,
            duration_ns=self._status.duration_ns,
            output_dropped_bytes=self._output.dropped_bytes,
        )

    def _blame(self, cause: Cause) -> None:
        if self._cause == "self" and self.alive():
            self._cause = cause

    def _kill_group(self, signo: int) -> None:
        with self._launcher._reaping:
            if self._status is None:  # not reaped: the number is still its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signo)

    def _reap(self) -> bool:
        """Reap it if it has ended; True: it is reaped, now or before."""
        with self._launcher._reaping:
            if self._status is not None:
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
        _forked.discard(self.pid)


class _Output:
    """What a role and its children write, on its way into the book: lines, and the cap."""

    def __init__(self, launcher: Launcher, process: Process) -> None:
        self.dropped_bytes = 0
        self._launcher, self._process = launcher, process
        self._taken_bytes = 0
        self._rest = b""
        self._since_ns = 0

    def take(self, data: bytes) -> None:
        """Bytes from the output pipe; empty at its end."""
        now_ns = time.monotonic_ns()
        self._since_ns = self._since_ns or now_ns
        if data:
            data = data[: self.allow(len(data))]
        elif self._rest:
            data = b"\n"
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > _LONGEST_LINE_BYTES:  # a line without an end: cut it
            lines.append(self._rest[:_LONGEST_LINE_BYTES])
            self._rest = self._rest[_LONGEST_LINE_BYTES:]
        for line in lines:
            text = line.decode("utf-8", "backslashreplace").removesuffix("\r")
            self._launcher._book.write(self._process.role, self._process.pid, "out", text, self._since_ns)
            self._since_ns = now_ns
        if not self._rest:
            self._since_ns = 0

    def allow(self, size: int) -> int:
        """How many of these bytes are below the cap; counts the others as dropped."""
        cap = self._launcher._cap_bytes
        allowed = min(size, max(0, cap - self._taken_bytes))
        if allowed < size and not self.dropped_bytes:
            text = f"its output is over {cap} bytes; what follows is dropped"
            self._launcher._book.write(self._process.role, self._process.pid, "say", text)
        self._taken_bytes += allowed
        self.dropped_bytes += size - allowed
        return allowed


_LONGEST_LINE_BYTES = 65536


class Launcher:
    """Starts roles, hears them, ends them; see the module's text. A context manager."""

    def __init__(
        self,
        *,
        deadline_s: float = 60.0,
        output_cap_bytes: int = 1 << 20,
        grace_s: float = 1.0,
        sink: Sink | None = None,
    ) -> None:
        """`deadline_s` after entering, all roles are killed. `sink` takes each finished line (without its newline);
        None prints it. `output_cap_bytes`: of one role, narration included; what is over it is dropped and counted."""
        self.pid = os.getpid()
        self.processes: list[Process] = []
        self.deadline_passed = False
        self._deadline_s, self._cap_bytes, self._grace_s = deadline_s, output_cap_bytes, grace_s
        self._book = Book(sink)
        self._reaping = threading.RLock()
        self._entered = False
        self._released = False

    # --- in and out ---

    def __enter__(self) -> Self:
        if self._entered:
            raise UsageError("a launcher is entered once")
        self._entered = True
        self._until = time.monotonic() + self._deadline_s
        self._book.origin_ns = time.monotonic_ns()
        self._by_pid: dict[int, Process] = {}
        self._guardian: Guardian | None = None
        self._own_fds: set[int] = set()
        with contextlib.ExitStack() as undo:
            self._sigchld = _keep_zombies()
            self._was_subreaper = _prctl.is_child_subreaper()
            undo.callback(self._undo_settings)
            _prctl.set_child_subreaper(True)
            self._strangers = set(procfs.children(self.pid))
            self._pump = Pump(self._tick)
            undo.callback(self._pump.close)
            self._own(self._pump.wake_fd)
            self._barrier, self._barrier_out = self._pipe(undo)
            records, self._records_out = self._pipe(undo)
            self._handler = logs.RoleHandler(
                logs.RecordPipe(records), logs.BookHandler(self._book.write, "launcher")
            )
            self._pump.add(records, self._hear(logs.RecordReader()))
            undo.pop_all()
        self._say_before = logs.set_say(self.say)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if os.getpid() != self.pid:
            return None
        with _interrupts_later():
            try:
                self._stop(self._grace_s if kind is None else min(self._grace_s, _HURRIED_GRACE_S))
            finally:
                self._close()
        return None

    def _close(self) -> None:
        logs.set_say(self._say_before)
        with contextlib.suppress(IpclabError):
            self._pump.sync()
        self._pump.close()
        self._book.turned_by_pump = False
        self._book.turn(everything=True)
        for fd in (self._barrier, self._barrier_out, self._records_out):
            os.close(fd)
        for process in self.processes:
            os.close(process.pidfd)
        if self._guardian is not None:
            self._guardian.close()
            _forked.discard(self._guardian.pid)
        _private_fds.difference_update(self._own_fds)
        self._undo_settings()
        registry.clean_dead({process.pid: process.start_time for process in self.processes if process._status})

    def _undo_settings(self) -> None:
        if not self._was_subreaper:
            _prctl.set_child_subreaper(False)
        if self._sigchld is not None:
            signal.signal(signal.SIGCHLD, self._sigchld)

    def _own(self, fd: int) -> int:
        self._own_fds.add(fd)
        _private_fds.add(fd)
        return fd

    def _disown(self, fd: int) -> None:
        self._own_fds.discard(fd)
        _private_fds.discard(fd)
        os.close(fd)

    def _pipe(self, undo: contextlib.ExitStack) -> tuple[int, int]:
        try:
            reader, writer = os.pipe()
        except OSError as err:
            raise NoRoom("no room for another pipe", hint="see ulimit -n", errno=err.errno, syscall="pipe2") from err
        for fd in (reader, writer):
            self._own(fd)
            undo.callback(self._disown, fd)
        return reader, writer

    # --- roles ---

    def spawn(self, role: str, target: Callable[..., object], *args: object, killable: bool = False) -> Process:
        """Fork a process that runs target(*args) once the barrier is open.

        The target's return value is the exit code (None and what is no int: 0); an exception is one line on its output
        and exit code 1. The role is the leader of a process group, has the dispositions of a fresh Python and an empty
        signal mask, /dev/null as input, and descriptors as this process has them. Code after the target (atexit,
        finally blocks of this program) does not run in it. Raises NoRoom when there are too many processes or files.

        killable: it writes its records to a pipe of its own. For a role that will be killed or stopped.
        """
        self._check_mine()
        ran = self._pump.pause()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            if self._guardian is None:
                self._guardian = Guardian()
                self._own(self._guardian.fd)
                _forked.add(self._guardian.pid)
            return self._fork(role, target, args, killable)
        finally:
            if ran or self._released:
                self._start_pump()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _fork(self, role: str, target: Callable[..., object], args: tuple[object, ...], killable: bool) -> Process:
        assert self._guardian is not None
        with contextlib.ExitStack() as undo:
            output, output_out = self._pipe(undo)
            records, records_out = self._pipe(undo) if killable else (-1, self._records_out)
            plan = child.Plan(
                role=role,
                launcher_pid=self.pid,
                thread_lives=threading.current_thread() is threading.main_thread(),
                barrier_fd=self._barrier,
                output_fd=output_out,
                record_fd=records_out,
                foreign_fds=tuple(_private_fds - {self._barrier, output_out, records_out}),
            )
            _flush_standard_streams()
            pid = _fork_role(plan, target, args)
            process = Process(self, role, pid, self._open_pidfd(pid, role))
            undo.pop_all()
        self._disown(output_out)
        self._pump.add(output, process._output.take)
        if killable:
            self._disown(records_out)
            self._pump.add(records, self._hear(logs.RecordReader()))
        self._guardian.watch(pid, process.start_time)
        self.processes.append(process)
        self._by_pid[pid] = process
        return process

    def _open_pidfd(self, pid: int, role: str) -> int:
        try:
            return self._own(os.pidfd_open(pid))
        except OSError as err:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _forked.discard(pid)
            raise NoRoom(
                f"no room for process {role}", hint="see ulimit -n", errno=err.errno, syscall="pidfd_open"
            ) from err

    def release(self) -> None:
        """Open the barrier; a role spawned later starts at once. Does nothing the second time."""
        self._check_mine()
        if not self._released:
            self._released = True
            self._start_pump()
            os.write(self._barrier_out, b"!")

    def _start_pump(self) -> None:
        self._book.turned_by_pump = True
        self._pump.start()

    def _check_mine(self) -> None:
        if not self._entered or os.getpid() != self.pid:
            raise UsageError("a launcher is used inside its with block, in the process that made it")

    # --- hearing ---

    def say(self, text: str) -> None:
        """Narration by the launcher's own process."""
        if os.getpid() != self.pid:
            logs.say(text)
        else:
            self._book.write("launcher", self.pid, "say", text)

    def _hear(self, reader: logs.RecordReader) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            for wire in reader.feed(data):
                self._take(wire)

        return take

    def _take(self, wire: logs.Wire) -> None:
        process = self._by_pid.get(wire.pid)
        if wire.logger == child.WRAPPER:
            if process is not None:
                process.error, process.unavailable = wire.text, wire.level == logs.UNAVAILABLE
            return
        if process is None or process._output.allow(len(wire.text)) == len(wire.text):
            self._handler.deliver(wire)

    def _tick(self) -> float | None:
        """By the pump, at every turn: the seconds until the next thing to do."""
        self._book.turn()
        next_s = self._book.next_turn_s()
        if self.deadline_passed:
            return next_s
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            self._pass_deadline()
            return next_s
        return left_s if next_s is None else min(left_s, next_s)

    # --- ending ---

    def wait(self, timeout_s: float | None = None) -> tuple[Ending, ...]:
        """Wait until every role has ended, releasing them first if need be; in the order in which they were spawned.

        At the launcher's deadline they are killed. TimedOut when `timeout_s` is over before: they run on.
        """
        self.release()
        self._wait_for(self.processes, timeout_s)
        return tuple(process.ending() for process in self.processes)

    def stop(self) -> tuple[Ending, ...]:
        """End every role that has not: SIGTERM (and SIGCONT) to its group, SIGKILL after the grace time. Reaps all,
        strays too. Blocks for the grace time at most, unless the kernel does not let a killed process go."""
        self._check_mine()
        self._stop(self._grace_s)
        return tuple(process.ending() for process in self.processes)

    def _stop(self, grace_s: float) -> None:
        alive = [process for process in self.processes if not process._reap()]
        for process in alive:
            process._blame("asked")
            process._kill_group(signal.SIGTERM)
            process._kill_group(signal.SIGCONT)
        self._until_reaped(alive, grace_s)
        for process in alive:
            if not process._reap() and process._cause == "asked":
                process._cause = "killed"
            process._kill_group(signal.SIGKILL)
        self._until_reaped(alive, _LAST_WAIT_S)
        self._end_strays()
        self._name_stuck(alive)
        with contextlib.suppress(IpclabError):
            self._pump.sync()

    def _wait_for(self, processes: list[Process], timeout_s: float | None) -> None:
        self._check_mine()
        until = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while not self._until_reaped(processes, min(until, self._until) - time.monotonic()):
            if time.monotonic() >= self._until:
                self._pass_deadline()
                self._until_reaped(processes, _LAST_WAIT_S)
                self._name_stuck(processes)
                break
            if time.monotonic() >= until:
                running = ", ".join(f"{p.role}[{p.pid}]" for p in processes if p._status is None)
                raise TimedOut(f"after {timeout_s} s there is still {running}")
        self._pump.sync()

    def _name_stuck(self, processes: list[Process]) -> None:
        stuck = [process for process in processes if not process._reap()]
        if stuck:
            names = ", ".join(f"{process.role}[{process.pid}] in state {process.state()}" for process in stuck)
            raise IpclabError(f"killed, but the kernel does not let go of {names}")

    def _until_reaped(self, processes: list[Process], timeout_s: float) -> bool:
        """Reap these as they end; False when the time is over first."""
        until = time.monotonic() + timeout_s
        while True:
            left = [process for process in processes if not process._reap()]
            if not left:
                return True
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            poller = select.poll()
            for process in left:
                poller.register(process.pidfd, select.POLLIN)
            poller.poll(min(left_s, 3600.0) * 1e3 + 1)

    def _pass_deadline(self) -> None:
        self.deadline_passed = True
        for process in self.processes:
            process._blame("deadline")
            process._kill_group(signal.SIGKILL)

    def strays(self) -> list[int]:
        """Children this process was given because their parents died, zombies included; see the module's text."""
        own_group = os.getpgrp()
        return [
            pid
            for pid in procfs.children(self.pid)
            if pid not in self._strangers and pid not in _forked and procfs.group(pid) != own_group
        ]

    def _end_strays(self) -> None:
        """Kill and reap them, and who comes to us because of that, until there are none."""
        until = time.monotonic() + _LAST_WAIT_S
        pause_s = 0.0005
        while (strays := self.strays()) and time.monotonic() < until:
            for pid in strays:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.01)


#: The grace time when an exception (Ctrl-C among them) ends the block: all must be over within a second.
_HURRIED_GRACE_S = 0.2


def _fork_role(plan: child.Plan, target: Callable[..., object], args: tuple[object, ...]) -> int:
    try:
        pid = os.fork()
    except OSError as err:
        hint = "see ulimit -u"
        raise NoRoom(f"no room for process {plan.role}", hint=hint, errno=err.errno, syscall="fork") from err
    if pid == 0:
        child.run(plan, target, args)
    _forked.add(pid)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # here and in the child: whoever comes first, nobody sees it without its group
    return pid


def _readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _blocked_as_asked(pid: int, wchan: str | None, syscall: str | None) -> bool:
    seen_call, seen_function = procfs.syscall(pid), procfs.wchan(pid)
    call_fits = syscall is None or seen_call is None or procfs.same_call(seen_call, syscall)
    return call_fits and (wchan is None or seen_function is None or wchan in seen_function)


def _flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _keep_zombies() -> Any:
    """A parent that ignores SIGCHLD is told no exit codes: undo that; returns what to put back, None for nothing."""
    ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C inside the block counts after it: the cleaning up is not left half done."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signo, frame: noted.append(signo))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)


def _after_fork() -> None:
    _forked.clear()  # they are siblings of whoever was forked here, not children


os.register_at_fork(after_in_child=_after_fork)

"""The launcher: how roles are started, heard and ended.

    with Launcher() as launcher:                    subreaper on
        writer = launcher.spawn("writer", write)    guardian and role forked; the role waits at the barrier
        reader = launcher.spawn("reader", read)
        launcher.release()                          the barrier opens, the pump starts
        for ending in launcher.wait(): ...
    leaving: SIGTERM to the groups, the grace time, SIGKILL, everything reaped, every descriptor closed

Vocabulary. A *role* is a process forked by a launcher to run one function. Its *group* is its process group, which the
children it forks share. A *stray* is a child that the kernel gave to the launcher because its parent died (strays.py
says which count). So a program that starts other children by itself while a launcher is open must leave them in its own
group (that is the default), or start them before.

Who reaps. Only launchers, only by pidfd. A role's number stays taken until it is reaped, so that a signal to its group
cannot hit somebody else; whoever is left of its group when it has been reaped is a stray.

What may run where. All methods are for the process that made the launcher, for any thread of it, one at a time. In a
role a launcher only speaks. A role that is forked by a thread other than the main one has no parent-death signal,
because that follows the thread; the guardian watches all the same.

Threads. A launcher is single-threaded when it forks: its pump runs after the release alone, and stands still for every
fork after that. When the program has threads of its own (pytest-xdist, a notebook) the fork is made all the same, and
CPython 3.12 and later say so in a DeprecationWarning. That is not hidden, because whether a lock of theirs is held at
that instant is theirs to know; nothing a role's wrapper uses depends on one.
"""

from __future__ import annotations

import contextlib
import logging.handlers
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from ipclab.errors import IpclabError, NoRoom, TimedOut, UsageError
from ipclab.processes import child, descriptors, logs, procfs, registry
from ipclab.processes.book import Book, Sink
from ipclab.processes.descriptors import Descriptors
from ipclab.processes.guardian import Guardian
from ipclab.processes.interrupts import Interrupts, whole
from ipclab.processes.process import Output, Process, forked
from ipclab.processes.pump import Pump
from ipclab.processes.strays import LAST_WAIT_S, Strays
from ipclab.records import Ending

__all__ = ["Launcher", "Process"]

#: How long a wait sleeps at most before it looks for signals: one that arrives just before the sleep does not cut it
#: short, for its Python handler runs after it.
_LOOK_S = 0.2
#: The grace time when an exception (Ctrl-C among them) ends the block: all must be over within a second.
_HURRIED_GRACE_S = 0.2

#: Open launchers of this process, the innermost last.
_open: list[Launcher] = []


class Launcher:
    """Starts roles, hears them, ends them; see the module's text. A context manager, entered once."""

    #: As whom the launcher's own process speaks.
    label = "launcher"

    def __init__(
        self,
        *,
        deadline_s: float = 60.0,
        output_cap_bytes: int = 1 << 20,
        grace_s: float = 1.0,
        sink: Sink | None = None,
    ) -> None:
        """`deadline_s` after entering, all roles are killed. `sink` takes each finished line (without its newline), in
        the pump's thread as a rule; None prints it. `output_cap_bytes`: of one role, narration included; what is over
        it is dropped and counted."""
        self.pid = os.getpid()
        self.processes: list[Process] = []
        self.deadline_passed = False
        self._deadline_s, self._cap_bytes, self._grace_s = deadline_s, output_cap_bytes, grace_s
        self._book = Book(sink)
        self._interrupts = Interrupts(self._hurry)
        self._entered = False
        self._released = False
        self._leaving = False

    # --- in and out ---

    @whole
    def __enter__(self) -> Self:
        if self._entered:
            raise UsageError("a launcher is entered once")
        procfs.check()
        descriptors.occupy_standard()
        self._entered = True
        self._until = time.monotonic() + self._deadline_s
        self._book.origin_ns = time.monotonic_ns()
        self._guardian: Guardian | None = None
        self._fds = Descriptors()
        self._interrupts.install(signal.SIGINT)
        with contextlib.ExitStack() as undo:
            undo.callback(self._interrupts.restore)
            self._sigchld = _keep_zombies()
            undo.callback(self._put_back_sigchld)
            self._strays = Strays()
            undo.callback(self._strays.close)
            self._pump = Pump(self._tick, self._fds.close)
            undo.callback(self._pump.close)
            self._fds.own(self._pump.wake_fd)
            self._barrier, self._barrier_out = self._fds.pipe(undo)
            records, self._records_out = self._fds.pipe(undo)
            sub_handler = logs.BookHandler(self._book.write, self.label)
            self._handler = logs.RoleHandler(logs.RecordPipe(records), sub_handler)
            self._pump.add(records, self._hear(logs.RecordReader()))
            self._fds.reserve(undo)
            undo.pop_all()
        self._say_before = logs.set_say(self.say)
        _open.append(self)
        return self

    @whole
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if os.getpid() != self.pid:
            return None
        try:
            self._leave(hurried=kind is not None)
        finally:
            self._interrupts.restore()
        self._interrupts.raise_noted()
        return None

    def _leave(self, hurried: bool) -> None:
        self._leaving = True
        self._book.hurry = hurried
        self._fds.free_reserve()
        try:
            self._stop(min(self._grace_s, _HURRIED_GRACE_S) if hurried else self._grace_s)
        finally:
            self._close()

    def _hurry(self) -> None:
        if self._leaving:
            self._book.hurry = True

    def _close(self) -> None:
        logs.set_say(self._say_before)
        _open.remove(self)
        self._pump.sync()
        self._pump.close()
        self._book.turned_by_pump = False
        self._book.turn(everything=True)
        for fd in (self._barrier, self._barrier_out, self._records_out, *(p.pidfd for p in self.processes)):
            self._fds.close(fd)
        if self._guardian is not None:
            self._guardian.close()
            forked.discard(self._guardian.pid)
        self._fds.disown_all()
        self._strays.close()
        self._put_back_sigchld()
        dead = {process.pid: process.start_time for process in self.processes if process.reaped}
        registry.clean_dead(dead | self._strays.ended)
        if self._book.error is not None:
            raise IpclabError(f"the output could not be written: {self._book.error}") from self._book.error

    def _put_back_sigchld(self) -> None:
        if self._sigchld is not None:
            signal.signal(signal.SIGCHLD, self._sigchld)

    def _check_mine(self) -> None:
        if not self._entered or os.getpid() != self.pid:
            raise UsageError("a launcher is used inside its with block, in the process that made it")

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
        process = self._spawn(role, target, args, killable)
        self._interrupts.raise_noted()
        return process

    @whole
    def _spawn(self, role: str, target: Callable[..., object], args: tuple[object, ...], killable: bool) -> Process:
        # No handler of this program may run in the child, which has its dispositions until it has reset them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ran = self._pump.pause()
        try:
            if self._guardian is None:
                self._guardian = Guardian()
                self._fds.own(self._guardian.fd)
                forked.add(self._guardian.pid)
            return self._fork(role, target, args, killable)
        finally:
            if ran:
                self._start_pump()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _fork(self, role: str, target: Callable[..., object], args: tuple[object, ...], killable: bool) -> Process:
        assert self._guardian is not None
        with contextlib.ExitStack() as undo:
            output_in, output_out = self._fds.pipe(undo)
            records_in, records_out = self._fds.pipe(undo) if killable else (-1, self._records_out)
            plan = child.Plan(
                role=role,
                launcher_pid=self.pid,
                thread_lives=threading.current_thread() is threading.main_thread(),
                barrier_fd=self._barrier,
                output_fd=output_out,
                record_fd=records_out,
                foreign_fds=descriptors.foreign(self._barrier, output_out, records_out),
            )
            descriptors.flush_standard()
            pid = _fork_role(plan, target, args)
            undo.callback(_undo_fork, pid)
            pidfd = self._open_pidfd(pid, role)
            undo.callback(self._fds.close, pidfd)
            output = Output(self._cap_bytes, lambda kind, text, at_ns: self._book.write(role, pid, kind, text, at_ns))
            process = Process(self, role, pid, pidfd, output)
            self._guardian.watch(pid, process.start_time)
            undo.pop_all()
        self.processes.append(process)
        self._fds.close(output_out)
        self._pump.add(output_in, output.take)
        if killable:
            self._fds.close(records_out)
            self._pump.add(records_in, self._hear(logs.RecordReader()))
        return process

    def _open_pidfd(self, pid: int, role: str) -> int:
        try:
            return self._fds.own(os.pidfd_open(pid))
        except OSError as err:
            call = "pidfd_open"
            raise NoRoom(f"no room for process {role}", hint="see ulimit -n", errno=err.errno, syscall=call) from err

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

    # --- hearing ---

    def say(self, text: str) -> None:
        """Narration by the launcher's own process."""
        if os.getpid() != self.pid:
            logs.say(text)  # a role, or another child, has another way to speak
        else:
            self._book.write(self.label, self.pid, "say", text)

    @contextlib.contextmanager
    def listen(self, queue: Any) -> Iterator[None]:
        """Inside the block, records put on this queue by `logs.queue_handler` go into the book.

        For processes that were not forked (start method spawn or forkserver). It needs a thread: spawn roles before.
        """
        listener = logging.handlers.QueueListener(queue, logs.BookHandler(self._book.write, "?"))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._start_pump()
            listener.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            yield
        finally:
            listener.stop()

    def _hear(self, reader: logs.RecordReader) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            for wire in reader.feed(data):
                self._take(wire)

        return take

    def _take(self, wire: logs.Wire) -> None:
        process = self._find(wire)
        if wire.logger == child.WRAPPER:
            if process is not None:
                process.error, process.unavailable = wire.text, wire.level == logs.UNAVAILABLE
        elif process is None or process.output.allow(len(wire.text)) == len(wire.text):
            self._handler.deliver(wire)

    def _find(self, wire: logs.Wire) -> Process | None:
        """The role that says it, or whose child does."""
        namesakes = [process for process in self.processes if process.role == wire.role]
        return next((process for process in namesakes if process.pid == wire.pid), namesakes[0] if namesakes else None)

    def _tick(self) -> float | None:
        """By the pump, at every turn: the seconds until the next thing to do."""
        self._book.turn(self._pump.heard_ns)
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
        self.wait_for(self.processes, timeout_s)
        return tuple(process.ending() for process in self.processes)

    def wait_for(self, processes: list[Process], timeout_s: float | None = None) -> None:
        """The same for some of them, without a release."""
        self._check_mine()
        until = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while not self._until_reaped(processes, min(until, self._until) - time.monotonic()):
            if time.monotonic() >= self._until:
                self._pass_deadline()
                self._until_reaped(processes, LAST_WAIT_S)
                _name_stuck(processes)
                break
            if time.monotonic() >= until:
                running = ", ".join(f"{process.role}[{process.pid}]" for process in processes if not process.reaped)
                raise TimedOut(f"after {timeout_s} s there is still {running}")
        self._pump.sync()
        if all(process.reaped for process in self.processes):
            self._book.turn(everything=True)  # nobody is left who could say something earlier

    def stop(self) -> tuple[Ending, ...]:
        """End every role that has not: SIGTERM (and SIGCONT) to its group, SIGKILL after the grace time. Reaps all,
        strays too. Blocks for the grace time at most, unless the kernel does not let a killed process go."""
        self._check_mine()
        self._stop(self._grace_s)
        return tuple(process.ending() for process in self.processes)

    def _stop(self, grace_s: float) -> None:
        alive = [process for process in self.processes if not process.reap()]
        for process in alive:
            process.blame("asked")
            process.kill_group(signal.SIGTERM)
            process.kill_group(signal.SIGCONT)
        self._until_reaped(alive, grace_s)
        for process in alive:
            if not process.reap() and process.cause == "asked":
                process.cause = "killed"
            process.kill_group(signal.SIGKILL)
        self._until_reaped(alive, LAST_WAIT_S)
        self._strays.end()
        self._pump.sync()
        _name_stuck(alive)

    def _until_reaped(self, processes: list[Process], timeout_s: float) -> bool:
        """Reap these as they end; False when the time is over first."""
        until = time.monotonic() + timeout_s
        while left := [process for process in processes if not process.reap()]:
            self._interrupts.raise_noted_unless_held()
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            poller = select.poll()
            for process in left:
                poller.register(process.pidfd, select.POLLIN)
            poller.poll(min(left_s, _LOOK_S) * 1e3 + 1)
        return True

    def _pass_deadline(self) -> None:
        self.deadline_passed = True
        for process in self.processes:
            process.blame("deadline")
            process.kill_group(signal.SIGKILL)

    def strays(self) -> list[int]:
        """Children this process was given because their parents died, zombies included; see strays.py."""
        return self._strays.now()


def _fork_role(plan: child.Plan, target: Callable[..., object], args: tuple[object, ...]) -> int:
    try:
        pid = os.fork()
    except OSError as err:
        hint = "see ulimit -u"
        raise NoRoom(f"no room for process {plan.role}", hint=hint, errno=err.errno, syscall="fork") from err
    if pid == 0:
        child.run(plan, target, args)
    forked.add(pid)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # here and in the child: whoever comes first, nobody sees it without its group
    return pid


def _undo_fork(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    forked.discard(pid)


def _name_stuck(processes: list[Process]) -> None:
    stuck = [process for process in processes if not process.reap()]
    if stuck:
        names = ", ".join(f"{process.role}[{process.pid}] in state {process.state()}" for process in stuck)
        raise IpclabError(f"killed, but the kernel does not let go of {names}")


def _keep_zombies() -> Any:
    """A parent that ignores SIGCHLD is told no exit codes: undo that; returns what to put back, None for nothing."""
    ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _after_fork() -> None:
    forked.clear()  # they are siblings of whoever was forked here, not children
    descriptors.forget_all()
    if _open:
        logs.speak_for(_open[-1].label, _open[-1]._records_out)
        _open.clear()


os.register_at_fork(after_in_child=_after_fork)

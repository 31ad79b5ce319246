"""A command that is tracked from its first instruction on: started, held until the tracker is ready, waited for.

It inherits standard input, output and error, the terminal, process group and session, as a shell's child does: a
program that reads the terminal keeps it, and a Ctrl-C reaches it as it reaches us. It has no parent-death signal: when
the tracker is killed, it runs on.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from ipclab import _core
from ipclab.errors import UsageError, from_os_error

#: Signals that end `ipclab` and are meant for the command it runs.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command:
    """One started command. `release` lets it run, `reap` takes its exit status, `close` gives up what is held."""

    def __init__(self, argv: Sequence[str | os.PathLike[str]], files: tuple[int, int]) -> None:
        """`files`: RLIMIT_NOFILE as the command is to have it. Raises UsageError when there is no such program."""
        self.argv = tuple(os.fspath(word) for word in argv)
        program = _found(self.argv)
        soft, hard = (0xFFFFFFFFFFFFFFFF if limit == resource.RLIM_INFINITY else limit for limit in files)
        try:
            self.pid, self._release_fd, self._failed_fd = _core.launch(
                os.fsencode(program),
                tuple(os.fsencode(word) for word in self.argv),
                tuple(os.fsencode(key) + b"=" + os.fsencode(value) for key, value in os.environ.items()),
                soft,
                hard,
            )
        except OSError as err:
            raise from_os_error(err, f"cannot start {self.argv[0]}", syscall="fork") from err
        #: As waitpid has it; None: it has not been reaped.
        self.status: int | None = None
        self.pidfd = os.pidfd_open(self.pid)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, 128 + n when signal n ended it; None: it runs."""
        if self.status is None:
            return None
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    def release(self) -> None:
        """Let it run. Blocks until the program is loaded; raises UsageError when the kernel cannot execute it."""
        with contextlib.suppress(BrokenPipeError):  # a signal has ended it while it was held
            os.write(self._release_fd, b"!")
        os.close(self._release_fd)
        self._release_fd = -1
        told = os.read(self._failed_fd, 4)  # end of file: execve has closed it
        if len(told) == 4:
            with contextlib.suppress(ChildProcessError):  # the pump may have been quicker
                _pid, self.status = os.waitpid(self.pid, 0)
            (number,) = struct.unpack("=i", told)
            raise UsageError(
                f"cannot run {self.argv[0]}: {os.strerror(number)}",
                hint="is it a program, or a script with a #! line?",
                errno=number,
                syscall="execve",
            )

    def reap(self) -> int | None:
        """Take its exit status, as waitpid has it, if it has ended; None: it runs. Never blocks."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status

    def pass_on(self, signo: int) -> None:
        """A signal we got is meant for it, unless it was a Ctrl-C: that one the terminal gave to both of us."""
        if self.status is None and not (signo == signal.SIGINT and _terminal_is_ours()):
            signal.pidfd_send_signal(self.pidfd, signo)

    def close(self) -> None:
        """Give up the descriptors. One that was never released ends itself, and is reaped."""
        if self._release_fd >= 0:
            os.close(self._release_fd)
            self._release_fd = -1
            if self.status is None:
                _pid, self.status = os.waitpid(self.pid, 0)
        for fd in (self._failed_fd, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self._failed_fd = self.pidfd = -1


@contextlib.contextmanager
def passing_on(command: Callable[[], Command | None]) -> Iterator[None]:
    """Inside, the signals that would end us are the command's, from its start until the record of it is closed.

    By handlers that pass them on, not by exceptions: one that came between the command's start and the wait for its end
    would end us, and leave the command without the signal. Only the main thread may see to that, and it is the one that
    signals interrupt; in another thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(signo: int, frame: FrameType | None) -> None:
        before, there = former[signal.Signals(signo)], command()
        if there is not None:
            there.pass_on(signo)
        elif callable(before):
            before(signo, frame)  # there is no command yet: it is for us

    former = {one: signal.getsignal(one) for one in PASSED_ON if signal.getsignal(one) != signal.SIG_IGN}
    for signo in former:
        signal.signal(signo, pass_on)
    try:
        yield
    finally:
        for signo, handler in former.items():
            signal.signal(signo, handler)


def _found(argv: tuple[str, ...]) -> str:
    if not argv or not argv[0]:
        raise UsageError("there is no command to track", hint="give one behind `--`")
    program = shutil.which(argv[0])
    if program is None:
        there = "/" in argv[0] and Path(argv[0]).exists()
        what = "may not be executed" if there else "not found"
        raise UsageError(f"{argv[0]}: {what}", hint="give its path" if not there else "see its mode with ls -l")
    return program


def _terminal_is_ours() -> bool:
    """Whether a Ctrl-C at the terminal reaches our group: then the command, which is in it, has it already."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)

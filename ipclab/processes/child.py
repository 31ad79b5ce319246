"""What happens in a role's process: before its target runs, around it, and at the end.

The order matters. The launcher has blocked every signal for the fork, so that no handler of its own runs here:

  1. its own process group; the death signal, and a look whether the parent died before it was set
  2. dispositions as a fresh Python has them, then an empty signal mask
  3. close what belongs to the launcher; /dev/null as input, a pipe of its own as output
  4. logging and `say` into the record pipe
  5. wait at the barrier
  6. the target
  7. flush, then os._exit: nothing of the launcher's program (atexit, finally, buffers) runs twice
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ipclab import _core
from ipclab.errors import IpclabError, Unavailable, from_os_error
from ipclab.processes import logs, procfs
from ipclab.processes.interrupts import floor

#: What the wrapper tells the launcher travels under this logger's name and is not shown.
WRAPPER = "ipclab.role"
#: Python ignores these two from its start; every other signal has the kernel's default.
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}

# The launcher's standard streams: kept, because a stream flushes what it holds when it is dropped.
_kept: list[Any] = []


class Plan(NamedTuple):
    """What the new process needs to know; all descriptors are its own by inheritance."""

    role: str
    launcher_pid: int
    #: Whether the forking thread lives as long as the launcher (it is the main thread).
    thread_lives: bool
    barrier_fd: int
    output_fd: int
    record_fd: int
    #: Descriptors of launchers that are none of this process's business.
    foreign_fds: tuple[int, ...]


@floor
def run(plan: Plan, target: Callable[..., object], args: tuple[object, ...]) -> NoReturn:
    """The life of a role; never returns, whatever happens: what is below belongs to the launcher's program."""
    code = 1
    try:
        code = _live(plan, target, args)
        _leave()
    finally:
        os._exit(code)


def _be_born(plan: Plan) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    if plan.thread_lives:
        _core.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != plan.launcher_pid:
        os._exit(1)  # it died before the death signal was set
    _reset_signals()
    for fd in plan.foreign_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    _redirect(plan.output_fd)
    handler = logs.RoleHandler(logs.RecordPipe(plan.record_fd, plan.role))
    logs.install(handler)
    procfs.set_name(plan.role)
    gc.freeze()  # what the launcher made is not ours to look at again, and stays shared with it


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for signo in signal.valid_signals():
        if signo in (signal.SIGKILL, signal.SIGSTOP):
            continue
        wanted: Any = signal.SIG_IGN if signo in _IGNORED_BY_PYTHON else signal.SIG_DFL
        if signo == signal.SIGINT:
            wanted = signal.default_int_handler
        signal.signal(signo, wanted)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _redirect(output_fd: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    for fd in {null, output_fd} - {0, 1, 2}:
        os.close(fd)
    _kept.extend([sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__])
    sys.stdin = sys.__stdin__ = _stream(0, "r")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, "w")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "w")  # type: ignore[misc]


def _stream(fd: int, mode: str) -> io.TextIOWrapper:
    raw = open(fd, mode + "b", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _pass_barrier(fd: int) -> None:
    """Wait until the launcher has written its byte, which nobody reads, so that whoever comes later passes too."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    ((_, events),) = poller.poll()
    if not events & select.POLLIN:
        os._exit(1)  # the launcher has closed it without a release
    os.close(fd)


def _live(plan: Plan, target: Callable[..., object], args: tuple[object, ...]) -> int:
    try:
        _be_born(plan)
        _pass_barrier(plan.barrier_fd)
        result = target(*args)
    except SystemExit as end:
        result = end.code
        if isinstance(result, str):
            print(result, file=sys.stderr)
            result = 1
    except KeyboardInterrupt:
        _die_by(signal.SIGINT)
    except BaseException as error:
        _tell(error)
        return 1
    return result & 0xFF if isinstance(result, int) else 0


def _tell(error: BaseException) -> None:
    """One line on the output, and the same to the launcher."""
    text = in_one_line(error)
    print(text, file=sys.stderr)
    if os.environ.get("IPCLAB_DEBUG"):
        traceback.print_exception(error)
    level = logs.UNAVAILABLE if isinstance(error, Unavailable) else logs.RAISED
    record = logging.LogRecord(WRAPPER, level, "", 0, text, None, None)
    for handler in logging.getLogger(logs.SAY).handlers:
        handler.handle(record)


def in_one_line(error: BaseException) -> str:
    """What went wrong, and where in which file unless it is an error of ours, which names the thing itself."""
    if isinstance(error, IpclabError):
        return " ".join(str(error).split())
    steps = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(steps[-1].filename).name}:{steps[-1].lineno})" if steps else ""
    text, hint = f"{type(error).__name__}: {error}", None
    if isinstance(error, OSError) and error.errno:
        text = f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"
        hint = from_os_error(error, "").hint
    return " ".join(f"{text}{place}{f'; {hint}' if hint else ''}".split())


def _die_by(signo: signal.Signals) -> NoReturn:
    _flush()
    signal.signal(signo, signal.SIG_DFL)
    os.kill(os.getpid(), signo)
    os._exit(128 + signo)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    _flush_handlers(logging.getLogger().handlers)


def _flush_handlers(handlers: Iterable[logging.Handler]) -> None:
    for handler in handlers:
        with contextlib.suppress(Exception):
            handler.flush()


def _leave() -> None:
    try:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    finally:
        _flush()

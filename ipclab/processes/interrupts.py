"""Ctrl-C and its like at a moment when they would leave something half done.

Python runs a signal handler between any two instructions of the main thread, so KeyboardInterrupt can appear in the
first line of an `__exit__`, before any `try`. What does not work: swapping the handler there (the window is before the
swap), and blocking the signal (what has arrived is raised all the same). What works: the handler looks where it
interrupts. Below a function that was marked with `whole` it only notes the signal; the function's caller raises it when
it is done, with `raise_noted`.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

_whole: set[CodeType] = set()
_floors: set[CodeType] = set()


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived (its number is the argument): leave as after Ctrl-C."""


def whole(function: _Function) -> _Function:
    """Mark a function: it runs to its end, a signal that arrives meanwhile is noted. It must not block for long."""
    _whole.add(function.__code__)
    return function


def floor(function: _Function) -> _Function:
    """Mark the function a forked process lives in: what its parent was in the middle of, below it, does not count."""
    _floors.add(function.__code__)
    return function


class Interrupts:
    """The handlers of one launcher. Only those signals are taken that still have Python's own handler, or none."""

    def __init__(self, on_note: Callable[[], None]) -> None:
        """`on_note` is called when a signal is noted, in the handler: somebody is impatient."""
        self.noted: int | None = None
        self._on_note = on_note
        self._before: dict[int, Any] = {}

    def install(self, *signos: int) -> None:
        """Take these signals; nothing happens outside the main thread, which alone may."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signo in signos:
            if signal.getsignal(signo) in (signal.default_int_handler, signal.SIG_DFL):
                self._before[signo] = signal.signal(signo, self._handle)

    def has(self, signo: int) -> bool:
        """Whether this signal is taken."""
        return signo in self._before

    def restore(self) -> None:
        """Give the signals back."""
        for signo, before in self._before.items():
            if signal.getsignal(signo) == self._handle:
                signal.signal(signo, before)
        self._before.clear()

    def take_noted(self) -> BaseException | None:
        """What was noted, as the exception it would have been; once."""
        noted, self.noted = self.noted, None
        return None if noted is None else _exception(noted)

    def raise_noted(self) -> None:
        """Raise what was noted, once."""
        noted = self.take_noted()
        if noted is not None:
            raise noted

    def raise_noted_unless_held(self) -> None:
        """The same, but nothing happens below a marked function: its caller will raise it."""
        if self.noted is not None and not _held(sys._getframe()):
            self.raise_noted()

    def _handle(self, signo: int, frame: FrameType | None) -> None:
        if _held(frame):
            self.noted = self.noted or signo
            self._on_note()
        else:
            raise _exception(signo)


def _held(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _whole:
            return True
        if frame.f_code in _floors:
            return False
        frame = frame.f_back
    return False


def _exception(signo: int) -> BaseException:
    return KeyboardInterrupt() if signo == signal.SIGINT else Terminated(signo)

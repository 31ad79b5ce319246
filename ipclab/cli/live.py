"""The screen of a live view: the terminal's other page, given back whatever happens; on Ctrl-Z until it goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

#: Pictures a second: what an eye follows, and little work.
_EVERY_S = 0.2
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

Frame = Callable[[int], list[str]]
Draw = Callable[[Frame], None]


@contextlib.contextmanager
def screen(wanted: bool) -> Iterator[Draw | None]:
    """What to call often with a function that draws so many lines; it is asked for a picture when one is due. None
    when no screen is wanted."""
    if not wanted:
        yield None
        return
    due_s = 0.0
    #: Nobody draws over the page of a shell that we were stopped in favour of. A thread draws, the main one is stopped.
    ours = threading.RLock()

    def draw(frame: Frame) -> None:
        nonlocal due_s
        if time.monotonic() < due_s:
            return
        due_s = time.monotonic() + _EVERY_S
        # Whoever draws goes on when the terminal has gone.
        with contextlib.suppress(OSError, ValueError):
            lines = frame(_lines())
            with ours:
                _put("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines) + "\x1b[J")

    def stop(_signo: int, _frame: object) -> None:
        with ours:
            _put(_LEAVE)
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # from here to SIGCONT nothing runs
            signal.signal(signal.SIGTSTP, stop)
            _put(_ENTER)

    before = signal.signal(signal.SIGTSTP, stop)
    try:
        _put(_ENTER)
        yield draw
    finally:
        signal.signal(signal.SIGTSTP, before)
        _put(_LEAVE)


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _lines() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines or 24
    except OSError:
        return 24

"""The entry point `ipclab`: runs the command line and turns whatever ends it into one line and an exit code.

Nothing but the interpreter's own modules is imported before the `try`, so that a Ctrl-C during the imports ends as
quietly as one later on.

    0  done                 2  the request itself is wrong     130  Ctrl-C
    1  failed               128 + n  ended by signal n (SIGTERM, SIGHUP), after cleaning up
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: the same way out as Ctrl-C, so that the same things are cleaned up."""

    def __init__(self, signo: int) -> None:
        super().__init__()
        self.signo = signo


def main(argv: list[str] | None = None) -> int:
    """Run `ipclab argv...` (the process's own arguments when None) and return its exit code.

    The process is to end with it at once: from here on Ctrl-C is ignored, lest one in the interpreter's last moments
    change an outcome that is certain already.
    """
    try:
        _prepare()
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except Terminated as end:
        code = 128 + end.signo
    except KeyboardInterrupt:
        code = 130
    except RuntimeError as err:
        if not isinstance(err.__cause__, KeyboardInterrupt):
            raise
        code = 130  # CPython 3.11 wraps a Ctrl-C that comes while a class of some import is being made
    except OSError:
        code = 1  # whoever read our output has enough; nothing to say, and nobody to say it to
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _drop_output()
    return code


def _prepare() -> None:
    """Make the streams and signals what everything below relies on."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a standard descriptor was closed: the next thing opened would have become our output
    os.close(fd)
    # A text may hold what this stream's encoding has not: shown as \\u2026 then, rather than not at all.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="ascii"))  # noqa: SIM115  (for the process's life)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def end(signo: int, frame: FrameType | None) -> None:
        raise Terminated(signo)

    for signo in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signo) is not signal.SIG_IGN:  # nohup asks to go on
            signal.signal(signo, end)


def _run(argv: list[str]) -> int:
    from ipclab.errors import IpclabError, UsageError

    try:
        from ipclab.cli.group import invoke

        return invoke(argv)
    except UsageError as err:
        return _complain(err, 2)
    except IpclabError as err:
        return _complain(err, 1)
    except BrokenPipeError:
        raise
    except OSError as err:
        return _complain(err, 1)  # not foreseen where it happened, but of this machine all the same
    except ImportError as err:
        return _complain(IpclabError(str(err), hint="this installation is not whole, install ipclab again"), 1)


def _complain(err: Exception, code: int) -> int:
    """One line on stderr, in which nothing that a file or an argument says is an order to the terminal."""
    from ipclab.errors import visible

    line = visible(" ".join(str(err).split())) or type(err).__name__
    try:
        sys.stderr.write(f"ipclab: {line}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens: the exit code says it
    return code


def _drop_output() -> None:
    """What could be written is written. The interpreter would try again at its end: and complain about a pipe nobody
    reads, or wait for one that is full."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(null, stream.fileno())
        os.close(null)

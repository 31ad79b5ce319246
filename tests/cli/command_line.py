"""How the tests of the command line run it: with an environment, with demos of the test's own, on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

TIMEOUT_S = 60.0

#: Runs the command line on a folder of demos the test has written: where the demos are is the only thing replaced.
STAND_IN = """
import pathlib, sys
from ipclab.demos import catalogue
catalogue.folder = lambda: pathlib.Path(sys.argv[1])
from ipclab.cli.main import main
sys.exit(main(sys.argv[2:]))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(tmp: Path, **changes: str | None) -> dict[str, str]:
    """A small environment with a runtime folder of the test's own; a change to None takes a variable away."""
    env: dict[str, str | None] = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "TMPDIR": str(tmp),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {name: value for name, value in (env | changes).items() if value is not None}


class Demos:
    """A folder of demos, and the command line on it."""

    def __init__(self, folder: Path, tmp: Path) -> None:
        self.folder = folder
        self.tmp = tmp

    def write(self, name: str, body: str, *, family: str = "processes", needs: tuple[str, ...] = ()) -> Path:
        """One demo; `body` runs at module level."""
        path = self.folder / f"{name.replace('-', '_')}.py"
        head = f'"""{name}: what {name} shows."""\n\nFAMILY = {family!r}\nNEEDS = {needs!r}\nBETTER_WITH = ()\n\n'
        path.write_text(head + textwrap.dedent(body), encoding="utf-8")
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `ipclab ARGUMENTS`, in a session of its own as a shell would."""
        return subprocess.Popen(
            [sys.executable, "-c", STAND_IN, str(self.folder), *arguments],
            env=environment(self.tmp),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@contextlib.contextmanager
def terminal(columns: int) -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        for fd in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(fd)

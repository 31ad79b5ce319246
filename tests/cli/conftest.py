"""What the tests of the command line share: running it, running it with demos of the test's own, a terminal."""

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

import pytest

TIMEOUT_S = 60.0

#: Runs the command line on a folder of demos the test has written: where the demos are is the only thing replaced.
STAND_IN = """
import pathlib, sys
from ipclab import demos
demos.folder = lambda: pathlib.Path(sys.argv[1])
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


@pytest.fixture
def ipclab(tmp_path: Path) -> Run:
    """Run `ipclab ARGUMENTS` to its end; keyword arguments change the environment."""

    def run(*arguments: str, cwd: Path | None = None, **changes: str | None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ipclab", *arguments],
            env=environment(tmp_path, **changes),
            cwd=cwd or tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


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


@pytest.fixture
def demos(tmp_path: Path) -> Demos:
    """An empty folder of demos."""
    folder = tmp_path / "demos"
    folder.mkdir()
    return Demos(folder, tmp_path)


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


@pytest.fixture
def on_terminal(tmp_path: Path) -> Callable[..., str]:
    """Run `ipclab ARGUMENTS` on a terminal of that many columns and return what it showed."""

    def run(*arguments: str, columns: int = 80, **changes: str | None) -> str:
        with terminal(columns) as (ours, theirs):
            process = subprocess.Popen(
                [sys.executable, "-m", "ipclab", *arguments],
                env=environment(tmp_path, TERM="xterm", **changes),
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
            )
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: the last one who had the terminal open is gone
                while data := os.read(ours, 65536):
                    shown += data
            assert process.wait(TIMEOUT_S) == 0, shown
        return shown.decode().replace("\r\n", "\n")

    return run

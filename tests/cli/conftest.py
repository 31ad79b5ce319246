"""What the tests of the command line share: running it, running it with demos of the test's own, a terminal."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import TIMEOUT_S, Demos, Run, environment, terminal


@pytest.fixture(autouse=True)
def runtime_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test cleans must not be what another one, at the same time, wants to find."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


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


@pytest.fixture
def demos(tmp_path: Path) -> Demos:
    """An empty folder of demos."""
    folder = tmp_path / "demos"
    folder.mkdir()
    return Demos(folder, tmp_path)


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

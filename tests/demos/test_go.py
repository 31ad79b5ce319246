"""The Go side of go-ipc: real where there is a Go, and missed with one clear line where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipclab.machine import programs
from ipclab.processes import Launcher, go, procfs, registry

DEMOS = Path(__file__).resolve().parents[2] / "demos"
DEMO = [sys.executable, str(DEMOS / "go_ipc.py")]
#: A compiler that never ends, and one that refuses.
SLOW, BROKEN = "#!/bin/sh\necho $$\nexec sleep 60\n", "#!/bin/sh\necho no such package\nexit 1\n"


@pytest.fixture
def real_go() -> str:
    """A Go whose cache has what the demo needs, so that its time does not depend on who was here before."""
    ready = programs.ready("go")
    if not ready.works:
        pytest.skip(f"{ready.reason}; {ready.remedy}")
    found = programs.find("go")
    assert found
    subprocess.run([found, "vet", str(DEMOS / "go_ipc.go")], check=True, timeout=100)
    subprocess.run([found, "build", "-o", os.devnull, str(DEMOS / "go_ipc.go")], check=True, timeout=100)
    return found


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a `go` with a cache first in the PATH."""
    (folder / "go").write_text(script)
    (folder / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("GOCACHE", str(folder))


def run_demo() -> str:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.isascii()
    return done.stdout


@pytest.mark.usefixtures("real_go")
def test_the_go_program_talks_to_our_processes() -> None:
    said = run_demo()
    assert "no Go program here" not in said
    assert "python-pipe[" not in said
    assert "os.Pipe: 2 descriptors more; nobody has read, and Write has returned 26" in said
    assert "io.Pipe: 0 descriptors more; 5 bytes are read, and Write still waits" in said
    assert "received from the channel: user defined signal 1" in said
    assert 'received "HELLO FROM ANOTHER PROCESS"' in said


@pytest.mark.usefixtures("real_go")
def test_what_the_go_program_is_told_counts() -> None:
    change = "demo.serve = lambda listener: listener.accept()[0].send(b'no')"
    script = f"import sys; sys.path[0] = {str(DEMOS)!r}\nimport go_ipc as demo\n{change}\nsys.exit(demo.main())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "FAILED: the client dialled and was answered" in done.stdout


def test_without_a_go_python_plays_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda name: None)
    assert programs.ready("go").reason == "no go command"
    heard: list[str] = []
    with Launcher(sink=heard.append) as launcher, go.compiled(launcher, DEMOS / "go_ipc.go") as program:
        assert program is None
    assert "no Go program here: no go command; install Go" in heard[0]


def test_a_go_that_has_built_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, SLOW)
    assert programs.find("go") == str(tmp_path / "go")
    assert programs.ready("go").works
    for variable in ("GOCACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ready = programs.ready("go")
    assert (ready.works, ready.remedy) == (False, "run `go build net` once")
    assert f"{tmp_path}/.cache/go-build" in ready.reason
    (tmp_path / ".cache" / "go-build").mkdir(parents=True)
    assert programs.ready("go").works
    monkeypatch.delenv("HOME")
    assert not programs.ready("go").works


def test_a_build_that_fails_is_told_and_the_demo_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, BROKEN)
    said = run_demo()
    assert "| no such package" in said
    assert "no Go program here: `go build` failed" in said
    assert "python-socket[" in said


def test_a_build_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, SLOW)
    monkeypatch.setattr(go, "BUILD_S", 0.2)
    heard: list[str] = []
    with Launcher(sink=heard.append) as launcher, go.compiled(launcher, DEMOS / "go_ipc.go") as program:
        assert program is None
    assert "was not done in 0.2 s" in heard[-1]
    assert registry.mine() == frozenset()


def test_kill_9_during_the_build_leaves_what_clean_removes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, SLOW)
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        line = next(line for line in demo.stdout if "go-build[" in line)
        compiler = int(line.split("| ")[1])
        demo.send_signal(signal.SIGKILL)
        demo.wait(30)
    until = time.monotonic() + 30
    while procfs.state(compiler) not in "ZX":
        assert time.monotonic() < until, "the compiler has outlived its launcher"
        time.sleep(0.01)
    assert [(left.kind, left.error) for left in registry.clean()] == [("path", "")]

"""A Go program beside roles of ours: compiled for the length of a demo, where there is a Go ready for it.

    with compiled(stage, Path("demos/x.go")) as program:      None: no Go, and the stage has said why
        stage.spawn("gopher", os.execv, program, [program, ...])

The compiler is a role like any other: it dies with its launcher, its output is heard, and what it makes, its own
scratch folder included, lies in a journalled folder that `ipclab clean` finds after a kill.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ipclab.errors import TimedOut
from ipclab.machine import programs
from ipclab.processes import registry
from ipclab.processes.spawn import Launcher

#: How long the compiler may take. With its cache warm it takes half a second on an idle machine; what a build that was
#: cut short has compiled is in the cache, and the next one goes on there.
BUILD_S = 15.0


@contextmanager
def compiled(launcher: Launcher, source: Path) -> Iterator[Path | None]:
    """The program of one Go file, gone with its folder when the block is left. Releases the launcher's roles."""
    launcher.release()
    ready = programs.ready("go")
    if not ready.works:
        launcher.say(f"no Go program here: {ready.reason}; {ready.remedy}")
        yield None
        return
    folder = registry.new_path("go")
    folder.mkdir(0o700)
    try:
        yield _build(launcher, source, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        registry.forget("path", folder)


def _build(launcher: Launcher, source: Path, folder: Path) -> Path | None:
    program = folder / source.stem
    builder = launcher.spawn("go-build", _run_compiler, source, program)
    with suppress(TimedOut):
        builder.wait(BUILD_S)
    builder.kill_group(signal.SIGKILL)  # does nothing unless the time is over
    if builder.reaped and os.access(program, os.X_OK):
        return program
    launcher.say(f"no Go program here: `go build` {'failed' if builder.reaped else f'was not done in {BUILD_S:g} s'}")
    return None


def _run_compiler(source: Path, program: Path) -> None:
    go = programs.find("go") or "go"
    os.execve(go, [go, "build", "-o", str(program), str(source)], {**os.environ, "GOTMPDIR": str(program.parent)})

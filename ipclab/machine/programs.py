"""Programs of others that a demo may run, where they are there and ready: found, never installed.

A demo names them in BETTER_WITH as it names mechanisms. `ready` answers without running anything.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from ipclab.records import Probe


def find(name: str) -> str | None:
    """Where the program is: on the PATH, or beside this interpreter (a virtual environment that nobody activated)."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
    return shutil.which(name, path=path)


def ready(name: str) -> Probe:
    """Whether a program of PROGRAMS can be used as it stands."""
    return PROGRAMS[name]()


def _go() -> Probe:
    """A Go that has been used. The first build of a fresh one compiles the standard library, which takes most of a
    minute and fills 40 MB of the user's cache: that is for its user to ask for, not for a demo to do unasked."""
    warm = "run `go build net` once"
    if find("go") is None:
        return Probe(works=False, reason="no go command", remedy=f"install Go, then {warm}")
    cache = _go_cache()
    if cache is None or not os.access(cache, os.W_OK | os.X_OK):
        return Probe(works=False, reason=f"go has built nothing here: {cache or 'its cache'} is missing", remedy=warm)
    return Probe(works=True)


def _go_cache() -> Path | None:
    """Where Go keeps what it has compiled (`go help cache`); None: it has no home for that."""
    if given := os.environ.get("GOCACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or (f"{os.environ['HOME']}/.cache" if os.environ.get("HOME") else "")
    return Path(base) / "go-build" if base else None


#: What `find` and `ready` are asked for.
PROGRAMS: dict[str, Callable[[], Probe]] = {"go": _go}

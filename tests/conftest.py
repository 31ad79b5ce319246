"""Every test leaves nothing: no child, no descriptor, no named object, no file in the runtime folder, no thread.

The whole session has a runtime folder of its own, so that tests of several sessions on one machine (two workers of
pytest-xdist are two) do not see each other's journals. SysV objects are not told apart by their keys, and only segments
by their makers: where it may be made (root), the session has an IPC namespace of its own, in which every object is its
own. Names in /dev/shm carry their owner's pid.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from ipclab.processes import procfs

# The same examples every time, and none is too slow: a check that fails says something about what is checked, and not
# about the dice or the machine. IPCLAB_RANDOM=1 throws them anew.
hypothesis.settings.register_profile(
    "ipclab",
    deadline=None,
    database=None,
    derandomize=not os.environ.get("IPCLAB_RANDOM"),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ipclab")

#: How long something may take to disappear after the test (an exit under way, a journal just being removed; in /dev/shm
#: what another session's test has killed and will clean). Only reached by what really is left.
SETTLE_S = 30.0

_NAME = re.compile(r"(?:sem\.)?ipclab-(\d+)-(\d+)-")
_KEY_MARK = 0x1B

_CLONE_NEWIPC = 0x08000000  # <linux/sched.h>; os.unshare has come with Python 3.12 only

_session_folder = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a runtime folder of its own; short, because sockets live in it.

    And the dispositions a shell would give it: under nohup(1) SIGHUP is ignored, in every process the tests start too.
    """
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signo) == signal.SIG_IGN:
            signal.signal(signo, signal.default_int_handler if signo == signal.SIGINT else signal.SIG_DFL)
    folder = tempfile.mkdtemp(prefix="ipt-", dir="/tmp")
    config.stash[_session_folder] = folder
    os.environ["XDG_RUNTIME_DIR"] = folder
    ctypes.CDLL(None).unshare(_CLONE_NEWIPC)  # fails where it is not allowed: then the makers' pids have to do


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash.get(_session_folder, ""), ignore_errors=True)


def _children() -> set[str]:
    return {f"child {pid}" for pid in procfs.children(os.getpid())}


def _described(one: str) -> str:
    """With what may change from one look to the next, and so is no part of what it is compared by."""
    if not one.startswith("child "):
        return one
    pid = int(one.split()[1])
    return f"{one} {_command(pid)} in state {procfs.state(pid)}"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ").strip()[:100]
    except OSError:
        return ""


def _descriptors() -> set[str]:
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = path.readlink()
        except OSError:
            continue  # the descriptor of this very listing
        found.add(f"descriptor {path.name} -> {target}")
    return found


def _shared_memory() -> set[str]:
    """Objects of ours in /dev/shm whose owner is this process or dead: the others belong to another session."""
    try:
        names = [path.name for path in Path("/dev/shm").iterdir()]
    except OSError:
        return set()
    ours = [(name, match) for name in names if (match := _NAME.match(name))]
    return {f"/dev/shm/{name}" for name, match in ours if _no_others(int(match[1]), int(match[2]))}


def _no_others(pid: int, start: int) -> bool:
    return pid == os.getpid() or not procfs.pid_alive(pid, start)


def _sysv() -> set[str]:
    """SysV objects with a key of ours, made by this process or by one that is dead."""
    found = set()
    for kind in ("shm", "sem", "msg"):
        try:
            head, *rows = [line.split() for line in Path(f"/proc/sysvipc/{kind}").read_text("ascii").splitlines()]
        except (OSError, ValueError):
            continue
        for row in rows:
            values = dict(zip(head, row, strict=False))
            if (int(values["key"]) & 0xFFFFFFFF) >> 24 != _KEY_MARK or int(values["cuid"]) != os.geteuid():
                continue
            creator = int(values.get("cpid", 0))
            if creator == os.getpid() or procfs.state(creator) == "X":
                found.add(f"SysV {kind} key {int(values['key']):#010x}")
    return found


def _runtime_folder() -> set[str]:
    folder = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) / "ipclab"
    return {f"{path}" for path in folder.glob("*")} if folder.is_dir() else set()


def _threads() -> set[str]:
    return {f"thread {thread.name}" for thread in threading.enumerate()}


_LOOKS: tuple[Callable[[], set[str]], ...] = (
    _children,
    _descriptors,
    _shared_memory,
    _sysv,
    _runtime_folder,
    _threads,
)


def _all() -> set[str]:
    return set().union(*(look() for look in _LOOKS))


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fail a test that leaves anything behind."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    before = _all()
    yield
    assert os.environ.get("XDG_RUNTIME_DIR") == runtime_dir, "the test has changed XDG_RUNTIME_DIR"
    until = time.monotonic() + SETTLE_S
    while (left := _all() - before) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left, "left behind: " + "; ".join(sorted(map(_described, left)))

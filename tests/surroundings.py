"""Imitated machines: the places where ipclab must run, built out of namespaces for the length of one command.

    pytest (root, or a user who may make user namespaces)
      unshare     own mounts, own SysV and POSIX IPC, on wish own pids     nothing of the real machine is touched
        sh        mounts a private /dev/shm of the wished size, hides what is to be missing, makes folders read-only
          setpriv drops the user or the capabilities
            ipclab ...
        sh        lists what is left in /dev/shm and in the kernel's IPC tables: exact, because both were empty before

A machine that does not allow one of these says so through `Surroundings.obstacle`, and the test is skipped with that
reason. Interpreters and checkouts below a folder that only root may enter (/root) are shown to `nobody` by mounting
them into a private copy of that folder's path: permissions of the real folders stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The environment variable by which processes of one visit are found again.
MARK = "IPCLAB_TEST_VISIT"
#: How long orphans may take to vanish. The project promises a second, of a machine that has a CPU for them; this one
#: may be full, so here it only tells those that go from those that stay.
ORPHANS_GONE_S = 30.0


@dataclass(frozen=True)
class Visit:
    """What one command did in its surroundings."""

    returncode: int
    out: str
    err: str
    #: Names in /dev/shm, SysV objects, files in the temp folder and processes that outlived the command.
    left: tuple[str, ...]

    @property
    def text(self) -> str:
        """Both streams, for messages and for searches that do not care which one it was."""
        return self.out + self.err


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """One imitated machine. `run` visits it; `obstacle` says why it cannot be built here, None if it can."""

    name: str
    #: Run as the user nobody instead of the one who runs the tests.
    nobody: bool = False
    #: Size of /dev/shm.
    shm_bytes: int = 1 << 30
    #: Its mode: 0700 closes it to all but root.
    shm_mode: int = 0o1777
    #: Take away a mounted /dev/mqueue (the system calls go on working, the listing does not).
    hide_mqueue: bool = False
    #: Capabilities, named as setpriv(1) does, that nobody in there has.
    without: tuple[str, ...] = ()
    #: Share of one CPU that the whole visit gets, by cgroup.
    cpu_quota: float | None = None
    #: Everything on one CPU.
    one_cpu: bool = False
    #: The kernel allows no SysV queue, segment or semaphore at all.
    no_sysv: bool = False
    #: Limits as prlimit(1) has them: ("nofile=24",).
    limits: tuple[str, ...] = ()
    #: Without one there is not even a loopback address.
    network: bool = True
    #: Own process ids: the command's orphans come to a pid 1 that collects nobody.
    own_pids: bool = False
    #: Whether further user namespaces may be made in there.
    user_namespaces: bool = True
    #: The current folder cannot be written to.
    read_only: bool = False
    #: No UTF-8, no colour, no terminal, no HOME.
    plain: bool = False
    #: More environment variables.
    env: tuple[tuple[str, str], ...] = field(default=())

    def obstacle(self) -> str | None:
        """Why this machine does not allow these surroundings."""
        if shutil.which("unshare") is None:
            return "unshare(1) is not installed"
        if refusal := namespaces_refused():
            return refusal
        as_root = os.geteuid() == 0
        if (self.nobody or self.without) and not as_root:
            return "only root may become another user or drop capabilities it has"
        if self.nobody or self.without:
            if shutil.which("setpriv") is None:
                return "setpriv(1) is not installed"
            if self.nobody and (hidden := [path for path in needed_paths() if path.stat().st_mode & 0o005 != 0o005]):
                return f"nobody may not read {hidden[0]}"
        if self.no_sysv and not as_root:
            return "only root may set the limits of an IPC namespace"
        if self.cpu_quota is not None and cpu_cgroup() is None:
            return "no cgroup with a cpu controller may be made here"
        if not self.user_namespaces and _fails(["unshare", "-Ur", "true"]):
            return "user namespaces are not allowed here at all: that is the real thing already"
        return None

    def run(self, *argv: str, timeout_s: float = 60.0, patience_s: float = ORPHANS_GONE_S) -> Visit:
        """Run a command in there, to its end or until the time is over (then it is killed and the test fails).

        What it leaves running is `left` when it is still there after `patience_s`.
        """
        mark = uuid.uuid4().hex
        with _folders(self.nobody) as place, _quota(self.cpu_quota) as cgroup:
            script = "\n".join(["set -e", *self._mounts(place, cgroup), *self._visit(place)])
            command = ["unshare", "--mount", "--ipc", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
            if not self.network:
                command += ["--net"]
            if self.own_pids:
                command += ["--pid", "--fork", "--mount-proc"]
            if self.one_cpu:
                command = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *command]
            returncode, out, err = _execute(
                [*command, "sh", "-c", script, "sh", *argv], self._environment(place, mark), timeout_s
            )
            left = (place / "left").read_text().splitlines() if (place / "left").exists() else ["no listing was made"]
            left += [f"process {line}" for line in _marked(mark, patience_s)]
            left += [f"file {path.relative_to(place)}" for path in leftover_files(place / "tmp")]
        encoding = "ascii" if self.plain else "utf-8"
        return Visit(returncode, out.decode(encoding), err.decode(encoding), tuple(left))

    def _environment(self, place: Path, mark: str) -> dict[str, str]:
        """Nothing is inherited but the PATH: a test's result must not hang on the shell it was started from."""
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "TMPDIR": str(place / "tmp"),
            "HOME": str(place / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            MARK: mark,
        }
        if self.plain:
            del env["HOME"]
            env |= {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TERM": "dumb", "PYTHONUTF8": "0"}
            env["PYTHONCOERCECLOCALE"] = "0"
        return env | dict(self.env)

    def _mounts(self, place: Path, cgroup: Path | None) -> Iterator[str]:
        """The shell lines that make the surroundings."""
        yield "umask 022"
        if cgroup is not None:
            yield f"echo $$ > {shlex.quote(str(cgroup / 'cgroup.procs'))}"
        yield f"mount -t tmpfs -o mode={self.shm_mode:o},size={self.shm_bytes} none /dev/shm"
        if self.no_sysv:
            yield "cd /proc/sys/kernel; echo 0 > msgmni; echo 0 > shmmni; echo 250 32000 32 0 > sem"
        if self.hide_mqueue:
            yield "while mountpoint -q /dev/mqueue; do umount /dev/mqueue; done"
        if self.nobody:
            yield from _show_to_others(place / "hold")
        folder = shlex.quote(str(place / "cwd"))
        if self.read_only:
            yield f"mount --bind {folder} {folder}"
            yield f"mount -o remount,bind,ro {folder}"
        yield f"cd {folder}"

    def _visit(self, place: Path) -> Iterator[str]:
        """The shell lines that run the command as whom it shall run, then list what is left."""
        privileges = []
        if self.nobody:
            user = pwd.getpwnam("nobody")
            privileges += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        if self.without:
            dropped = ",".join(f"-{name}" for name in self.without)
            privileges += [f"--inh-caps={dropped}", f"--bounding-set={dropped}"]
        before = f"setpriv {' '.join(privileges)} " if privileges else ""
        if self.limits:
            before += f"prlimit {' '.join(f'--{limit}' for limit in self.limits)} "
        if not self.user_namespaces:
            closed = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
            before += f"unshare --user --map-root-user sh -c {shlex.quote(closed)} sh "
        yield "code=0"
        yield f'{before}"$@" || code=$?'
        listing = "ls -A /dev/shm; for kind in shm sem msg; do sed '1d; s/^/'$kind' /' /proc/sysvipc/$kind; done"
        yield f"{{ {listing}; }} > {shlex.quote(str(place / 'left'))}"
        yield "exit $code"


def ipclab(*arguments: str) -> tuple[str, ...]:
    """The command line of the package under test: the console script beside this interpreter."""
    script = Path(sys.executable).parent / "ipclab"
    return (str(script), *arguments) if script.exists() else (sys.executable, "-m", "ipclab", *arguments)


@functools.cache
def namespaces_refused() -> str | None:
    """Why no mount and IPC namespace can be made here; None if they can."""
    command = ["unshare", "--mount", "--ipc", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    done = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True, check=False)
    if done.returncode:
        return f"no own mounts here: {done.stderr.decode(errors='replace').strip()}"
    return None


@functools.cache
def cpu_cgroup() -> Path | None:
    """A cgroup below which groups with a CPU quota can be made, version 2 or 1; None if there is none."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _source, options = after.split(" ")[:3]
        base = Path(before.split(" ")[4])
        if kind == "cgroup" and "cpu" in options.split(","):
            offered = True
        elif kind == "cgroup2":
            control = base / "cgroup.subtree_control"
            offered = control.exists() and "cpu" in control.read_text().split()
        else:
            continue
        if offered and os.access(base, os.W_OK):
            return base
    return None


def needed_paths() -> list[Path]:
    """What a process must be able to read to run ipclab and the demos: the interpreter, its packages, the checkout."""
    return sorted({Path(sys.prefix), Path(sys.base_prefix), ROOT})


def leftover_files(folder: Path) -> list[Path]:
    """Files that outlived a command in its temp folder; empty files and folders hold nothing and do not count."""
    return [path for path in folder.rglob("*") if not path.is_dir() and (path.lstat().st_size or not path.is_file())]


def _show_to_others(hold: Path) -> Iterator[str]:
    """Shell lines that make needed paths below closed folders reachable, by covering those folders with open ones.

    From the outside in: what is shown again below /root may have a closed folder in it in turn (tox closes .tox).
    """
    closed = {folder for path in needed_paths() for folder in path.parents if not folder.stat().st_mode & 0o001}
    for number, folder in enumerate(sorted(closed, key=lambda folder: len(folder.parts))):
        below = [path for path in needed_paths() if path.is_relative_to(folder)]
        outermost = [path for path in below if not any(other in path.parents for other in below)]
        pairs = [(shlex.quote(str(path)), shlex.quote(f"{hold}/{number}.{i}")) for i, path in enumerate(outermost)]
        for source, held in pairs:
            yield f"mkdir -p {held} && mount --rbind {source} {held}"
        yield f"mount -t tmpfs -o mode=755 none {shlex.quote(str(folder))}"
        for source, held in pairs:
            yield f"mkdir -p {source} && mount --move {held} {source}"


@contextlib.contextmanager
def _folders(nobody: bool) -> Iterator[Path]:
    """A place with a current folder and a temp folder that the visiting user may enter (pytest's own it may not)."""
    place = Path(tempfile.mkdtemp(prefix="ipclab-visit-", dir="/tmp"))
    try:
        place.chmod(0o755)
        for name in ("cwd", "tmp"):
            (place / name).mkdir()
            if nobody:
                user = pwd.getpwnam("nobody")
                os.chown(place / name, user.pw_uid, user.pw_gid)
        yield place
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def _quota(share: float | None) -> Iterator[Path | None]:
    """A cgroup that gives its processes `share` of one CPU; None when no quota is wanted."""
    base = cpu_cgroup()
    if share is None or base is None:
        yield None
        return
    group = base / f"ipclab-visit-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        period_us = 100_000
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{int(share * period_us)} {period_us}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period_us))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * period_us)))
        yield group
    finally:
        _remove_cgroup(group)


def _remove_cgroup(group: Path) -> None:
    """Remove a cgroup; the kernel needs a moment after its last process has been waited for."""
    deadline = time.monotonic() + 30
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _execute(command: list[str], env: dict[str, str], timeout_s: float) -> tuple[int, bytes, bytes]:
    """Run to the end, in a session of its own; when the time is over all of its processes are killed."""
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        for pid in [process.pid, *(int(line.split()[0]) for line in _marked(env[MARK], 0))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        out, err = process.communicate()
        raise TimeoutError(f"not done after {timeout_s} s:\n{out.decode(errors='replace')}") from error
    return process.returncode, out, err


def _marked(mark: str, patience_s: float) -> list[str]:
    """The processes of a visit that are still there after `patience_s`, one line each; zombies count as gone."""
    deadline = time.monotonic() + patience_s
    while True:
        found = [f"{pid} {_words(pid)}" for pid in _living() if f"{MARK}={mark}".encode() in _environ(pid)]
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.02)


def _living() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()  # empty for a zombie: its memory is gone
    except OSError:
        return b""


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0

"""`ipclab demo`: what it says of each run, and that nothing of a demo outlives it, however the run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import Demos

from ipclab.demos import running
from ipclab.demos.catalogue import read
from ipclab.demos.running import run
from ipclab.errors import IpclabError
from ipclab.processes import procfs

PASSES = "print('at work')\nprint('it passed')\n"
FAILS = "import sys\nprint('it did not')\nsys.exit(1)\n"
NOT_HERE = "import sys\nprint('absent: not here: no such thing; get one')\nsys.exit(77)\n"

#: A demo with a role in a group of its own, as a Stage has it: says both pids, then sleeps. On Ctrl-C it ends the role.
SLEEPS = """
import os, signal, sys
role = os.fork()
if role == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pause()
try:
    print("pids", os.getpid(), role, flush=True)
    signal.pause()
except KeyboardInterrupt:
    os.kill(role, signal.SIGKILL)
    os.waitpid(role, 0)
    print("cleaned up")
    sys.exit(130)
"""

#: Makes a named object and a file through the registry, says their names, and is killed.
LEAVES = """
import os, signal
from ipclab.processes import registry
import posix_ipc
name = registry.new_name("posix-shm", "test")
posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=4096).close_fd()
path = registry.new_path("test", ".txt")
path.write_text("left")
print("made", name, path, flush=True)
"""


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    try:
        return procfs.state(pid) in "ZX"
    except (OSError, IpclabError):
        return True


def soon(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def pids_of(process: subprocess.Popen[str]) -> list[int]:
    """What a sleeping demo says of itself."""
    assert process.stdout is not None
    word, *pids = process.stdout.readline().split()
    assert word == "pids"
    return [int(pid) for pid in pids]


# --- what is said ----------------------------------------------------------------------------------------------------


def test_one_demo(demos: Demos) -> None:
    demos.write("good", PASSES)
    done = demos.run("demo", "good")
    assert (done.returncode, done.stdout, done.stderr) == (0, "at work\nit passed\n", "")


@pytest.mark.parametrize(("body", "code"), [(PASSES, 0), (FAILS, 1), (NOT_HERE, 1), ("raise SystemExit(130)", 1)])
def test_exit_code_of_a_named_demo(demos: Demos, body: str, code: int) -> None:
    demos.write("demo", body)
    assert demos.run("demo", "demo").returncode == code


def test_an_interpreter_that_cannot_be_started_is_named(demos: Demos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/closed/python")
    with pytest.raises(IpclabError, match=r"demo good cannot be started by /closed/python: .* ENOENT"):
        run(read(demos.write("good", PASSES)), lambda text: None)


def test_all_of_them_in_order_and_a_table(demos: Demos) -> None:
    demos.write("zebra", PASSES, family="processes")
    demos.write("lock-up", PASSES, family="synchronisation")
    demos.write("absent", NOT_HERE, family="data transfer")
    done = demos.run("demo")
    assert done.returncode == 0, "what cannot be here has not failed"
    titles = [line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("==== ") and ": " in line]
    assert titles == ["zebra", "absent", "lock-up"], "by family, as a newcomer reads them"
    table = done.stdout.partition("==== all\n")[2].splitlines()
    assert [line.split()[0] for line in table[:3]] == titles
    assert "not here" in table[1]
    assert "no such thing; get one" in table[1]
    assert table[-1].startswith("2 passed, 1 not here in ")


def test_all_of_them_and_one_fails(demos: Demos) -> None:
    demos.write("good", PASSES)
    demos.write("bad", FAILS)
    demos.write("ugly", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    done = demos.run("demo")
    assert done.returncode == 1
    assert "exit code 1: it did not" in done.stdout
    assert "ended by signal 11" in done.stdout
    assert "1 passed, 2 failed" in done.stdout or "2 failed, 1 passed" in done.stdout


def test_the_record_on_stdout_and_the_narration_on_stderr(demos: Demos) -> None:
    demos.write("good", PASSES)
    demos.write("absent", NOT_HERE)
    done = demos.run("demo", "--json")
    report = json.loads(done.stdout)
    assert [(one["name"], one["status"], one["exit_code"]) for one in report["runs"]] == [
        ("absent", "not here", 77),
        ("good", "passed", 0),
    ]
    assert report["runs"][1]["verdict"] == "it passed"
    assert report["runs"][1]["duration_ns"] > 0
    assert "at work" in done.stderr


def test_list_tells_what_is_missing(demos: Demos) -> None:
    demos.write("good", PASSES, family="signals", needs=("pipe",))
    done = demos.run("demo", "--list")
    assert done.returncode == 0
    assert "signals\n`-- good  runs     what good shows." in done.stdout
    assert done.stdout.endswith("\n1 demo: 1 run\n")


def test_source(demos: Demos) -> None:
    path = demos.write("good", PASSES)
    done = demos.run("demo", "good", "--source")
    assert done.returncode == 0
    assert done.stdout == path.read_text()


@pytest.mark.parametrize("asked", ["god", "GOOD", "good.py", "../good", ""])
def test_an_unknown_name(demos: Demos, asked: str) -> None:
    demos.write("good", PASSES)
    done = demos.run("demo", asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'good'" in done.stderr


def test_a_file_that_is_no_demo_is_named(demos: Demos) -> None:
    (demos.folder / "torn.py").write_text("def (")
    done = demos.run("demo", "torn")
    assert done.returncode == 1
    assert "ipclab: demo torn: " in done.stderr
    path = demos.folder / "silent.py"
    path.write_text("print('hello')")
    with pytest.raises(IpclabError, match="must begin with the docstring"):
        read(path)


def test_output_comes_as_it_is_made(demos: Demos) -> None:
    fifo = demos.tmp / "fifo"
    os.mkfifo(fifo)
    demos.write("waits", f"print('before')\nopen({str(fifo)!r}).read()\nprint('after')\n")
    process = demos.start("demo", "waits")
    assert process.stdout is not None
    assert process.stdout.readline() == "before\n", "it sleeps in the open of the FIFO, and its line is here already"
    with open(fifo, "w"):
        pass
    out, _err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "after\n")


def test_bytes_that_are_no_text_pass(demos: Demos) -> None:
    demos.write("raw", "import os\nos.write(1, bytes(range(256)) + b'\\n\\x1b[31mlast \\xff line\\n\\n')\n")
    runs: list[bytes] = []
    done = run(read(demos.folder / "raw.py"), runs.append)
    assert b"".join(runs).startswith(bytes(range(256)))
    assert done.verdict == "[31mlast \ufffd line"


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_a_demo_that_does_not_end_is_killed_with_all_of_its_own(
    demos: Demos, monkeypatch: pytest.MonkeyPatch
) -> None:
    demos.write("sleeps", SLEEPS)
    lines: list[bytes] = []
    asked_since = 0

    def an_hour_later() -> int:
        """Once the demo has said all and that has been passed on, its time is over."""
        nonlocal asked_since
        asked_since += bool(lines)
        return time.monotonic_ns() + (3600 * 10**9 if asked_since > 1 else 0)

    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=time.monotonic, monotonic_ns=an_hour_later))
    done = run(read(demos.folder / "sleeps.py"), lines.append, deadline_s=60)
    assert (done.status, done.exit_code, done.signal) == ("deadline", None, signal.SIGKILL)
    assert "not at its end after 60 s" in done.verdict
    assert done.orphans == 1
    assert all(gone(int(pid)) for pid in b"".join(lines).split()[1:])


def test_a_process_that_outlives_its_demo_is_ended_and_named(demos: Demos) -> None:
    body = "import os, signal\nrole = os.fork()\nif role == 0:\n    signal.pause()\nprint('role', role)\n"
    demos.write("careless", body)
    done = demos.run("demo", "careless")
    assert "careless: 1 of its processes outlived it and were ended" in done.stdout
    assert gone(int(done.stdout.split()[1]))


def test_leftovers_of_a_killed_demo_are_removed_and_named(demos: Demos) -> None:
    demos.write("leaves", LEAVES + "os.kill(os.getpid(), signal.SIGKILL)\n")
    done = demos.run("demo", "leaves")
    assert done.returncode == 1
    _made, name, path = done.stdout.splitlines()[0].split()
    assert f"leaves: left posix-shm {name} behind, removed" in done.stdout
    assert not Path("/dev/shm", name[1:]).exists()
    assert not Path(path).exists()
    assert not [entry for entry in demos.tmp.iterdir() if entry != demos.folder], "the runtime folder is gone too"


@pytest.mark.parametrize(("signo", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ended_by_a_signal(demos: Demos, signo: signal.Signals, code: int) -> None:
    demos.write("sleeps", SLEEPS)
    process = demos.start("demo", "sleeps")
    pids = pids_of(process)
    process.send_signal(signo)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "cleaned up\n", "")
    assert all(gone(pid) for pid in pids)


def test_ctrl_c_ends_a_demo_that_ignores_it(demos: Demos) -> None:
    demos.write("deaf", "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + LEAVES + SLEEPS)
    process = demos.start("demo", "deaf")
    assert process.stdout is not None
    _made, name, _path = process.stdout.readline().split()
    pids = pids_of(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # an impatient user
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert all(gone(pid) for pid in pids)
    assert not Path("/dev/shm", name[1:]).exists()


def test_kill_9_of_the_command_ends_the_demo(demos: Demos) -> None:
    demos.write("leaves", LEAVES + "print('pids', os.getpid(), flush=True)\nsignal.pause()\n")
    process = demos.start("demo", "leaves")
    assert process.stdout is not None
    _made, name, _path = process.stdout.readline().split()
    (pid,) = pids_of(process)
    process.kill()
    process.communicate(timeout=30)
    assert soon(lambda: gone(pid)), "its parent-death signal ended it"
    assert Path("/dev/shm", name[1:]).exists(), "nobody was there to remove it"
    done = demos.run("clean")
    assert done.returncode == 0
    assert f"removed  posix-shm  {name}: " in done.stdout
    assert "2 objects removed\n" in done.stdout
    assert not Path("/dev/shm", name[1:]).exists()


def test_a_reader_that_goes_away_ends_the_demo(demos: Demos) -> None:
    demos.write("talks", SLEEPS.replace("signal.pause()\nexcept", "while True: print('x' * 4096)\nexcept"))
    process = demos.start("demo", "talks")
    pids = pids_of(process)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert all(gone(pid) for pid in pids)


def test_ctrl_c_when_nobody_takes_our_output(demos: Demos) -> None:
    demos.write("talks", SLEEPS.replace("signal.pause()\nexcept", "while True: print('x' * 4096)\nexcept"))
    process = demos.start("demo", "talks")
    pids = pids_of(process)
    assert soon(lambda: procfs.wchan(process.pid) in ("pipe_write", "anon_pipe_write")), "it waits for its reader"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert all(gone(pid) for pid in pids)
    process.communicate()


def test_the_terminal_stays_ours(demos: Demos) -> None:
    demos.write("group", "import os, sys\nprint(os.getpgid(0) == os.getpid(), os.getppid(), sys.stdin.read() == '')\n")
    process = demos.start("demo", "group")
    out, _err = process.communicate(timeout=30)
    assert out == f"True {process.pid} True\n", "a group of its own, and nothing to read"


# --- the demos of this tree ------------------------------------------------------------------------------------------


def test_every_demo_of_this_tree_can_be_listed(ipclab: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = ipclab("demo", "--list", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["demos"]
    assert {"pipe", "signals", "fastest"} <= {one["demo"]["name"] for one in listed}
    assert all(Path(one["demo"]["path"]).is_file() for one in listed)


def test_demos_of_a_checkout_and_of_an_installation(tmp_path: Path) -> None:
    from ipclab.demos import catalogue as module

    package = tmp_path / "ipclab"
    with pytest.raises(IpclabError, match="no demos"):
        module.folder(package)
    (package / "_demos").mkdir(parents=True)
    (tmp_path / "demos").mkdir()
    assert module.folder(package) == package / "_demos", "a foreign folder beside an installed package"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "ipclab"\n')
    assert module.folder(package) == tmp_path / "demos"


def test_python_of_the_demo_is_ours(demos: Demos) -> None:
    demos.write("which", "import sys\nprint(sys.executable)\n")
    assert demos.run("demo", "which").stdout == f"{sys.executable}\n"

"""`ipclab states` as a user meets it: what it runs keeps its streams, terminal and exit code; faults are one line."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from surroundings import Surroundings

from ipclab import states
from ipclab.processes import procfs

#: How the live view takes the terminal, and gives it back.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
IPCLAB = [sys.executable, "-m", "ipclab"]
TIMEOUT_S = 60.0


def run(*arguments: str, given: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*IPCLAB, *arguments], input=given, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, **more
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


#: What every user has; the better sources have tests of their own.
POLL = ["states", "--source", "poll"]


def record(*arguments: str) -> dict[str, Any]:
    done = run(*POLL, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def sleeper() -> Iterator[int]:
    """A process of ours that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        try:
            until = time.monotonic() + TIMEOUT_S
            while procfs.syscall(process.pid) not in ("pause", None) and time.monotonic() < until:
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


# --- a command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 5", 5), ("kill -9 $$", 137), ("kill $$", 143)])
def test_the_exit_code_is_the_commands(script: str, code: int) -> None:
    done = run(*POLL, "--", "sh", "-c", script)
    assert done.returncode == code
    assert done.stderr == ""
    assert "complete: " in done.stdout


def test_the_streams_are_the_commands() -> None:
    done = run(*POLL, "--", "sh", "-c", "tr a-z A-Z; echo problem >&2", given="from standard input\n")
    assert done.stdout.startswith("FROM STANDARD INPUT\n")
    assert done.stderr == "problem\n"


def test_options_behind_the_command_are_the_commands() -> None:
    done = run(*POLL, "sh", "-c", "echo $1", "--", "--json")
    assert done.stdout.startswith("--json\n")
    assert run(*POLL, "--", "echo", "--pid", "1").stdout.startswith("--pid 1\n")


def test_a_signal_to_us_goes_to_the_command() -> None:
    script = "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*IPCLAB, *POLL, "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        assert "complete: " in process.stdout.read()
        assert process.wait(TIMEOUT_S) == 9


def test_a_killed_tracker_leaves_its_command_alone() -> None:
    script = "echo $$; read word; echo unharmed"
    reader, writer = os.pipe()
    with subprocess.Popen(
        [*IPCLAB, *POLL, "--", "sh", "-c", script], stdin=reader, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(reader)
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait(TIMEOUT_S)
        assert procfs.state(pid) not in "ZX"
        os.write(writer, b"go on\n")
        os.close(writer)
        assert process.stdout.read() == "unharmed\n"
    until = time.monotonic() + TIMEOUT_S
    while procfs.state(pid) not in "ZX" and time.monotonic() < until:
        time.sleep(0.01)


def test_children_are_followed_unless_not_wanted() -> None:
    script = "sleep 0.1; sleep 0.1; exit 0"
    assert len(record("--", "sh", "-c", script)["recording"]["threads"]) == 3
    assert (
        len(json.loads(run(*POLL, "--no-follow", "--json", "--", "sh", "-c", script).stdout)["recording"]["threads"])
        == 1
    )


def test_a_process_that_dies_at_once_is_in_the_record() -> None:
    found = record("--", "true")
    (thread,) = found["recording"]["threads"]
    assert thread["gone"]
    assert thread["exit_code"] == 0
    assert found["intervals"]


def test_the_duration_ends_the_record_and_not_the_command() -> None:
    with sleeper() as pid:
        assert record("--pid", str(pid), "--duration", "0.2")["recording"]["pids"] == [pid]
        assert procfs.state(pid) == "S"


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    """The pid of a process that has ended, and whose parent does not reap it."""
    parent = subprocess.Popen(["/bin/sh", "-c", "true & exec sleep 600"])
    try:
        until = time.monotonic() + TIMEOUT_S
        while not (found := [pid for pid in procfs.children(parent.pid) if procfs.state(pid) == "Z"]):
            assert time.monotonic() < until
            time.sleep(0.01)
        yield found[0]
    finally:
        parent.kill()
        parent.wait()


def test_a_zombie_that_nobody_reaps_does_not_hold_the_record_open() -> None:
    with zombie() as pid:
        found = record("--pid", str(pid))
        assert {one["state"] for one in found["intervals"]} == {"Z"}
        assert f"process {pid} is a zombie: its parent does not reap it" in found["recording"]["notes"]
        with sleeper() as living:
            both = record("--pid", str(pid), "--pid", str(living), "--duration", "1.5")
            assert not any("zombie" in note for note in both["recording"]["notes"])


# --- on a terminal ---------------------------------------------------------------------------------------------------


def on_terminal(
    arguments: Sequence[str], talk: Sequence[tuple[str, bytes]], program: Sequence[str] = IPCLAB
) -> tuple[str, int]:
    """Run it as a shell's foreground job; each time the first text has been shown, since then, the bytes are typed."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", LANG="C.UTF-8", COLUMNS="90")
        os.execv(program[0], [*program, *arguments])
    shown, waiting = "", list(talk)
    since = 0
    until = time.monotonic() + TIMEOUT_S
    try:
        while time.monotonic() < until:
            if waiting and waiting[0][0] in shown[since:]:
                since = len(shown)
                os.write(fd, waiting.pop(0)[1])
            if select.select([fd], [], [], 0.05)[0]:
                try:
                    shown += os.read(fd, 65536).decode(errors="replace")
                except OSError:  # EIO: the last one has closed it
                    break
    finally:
        os.close(fd)
        if time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
    return shown, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_command_reads_the_terminal() -> None:
    script = "echo ready; read word; echo heard $word"
    shown, code = on_terminal([*POLL, "--", "sh", "-c", script], [("ready", b"abc\n")])
    assert "heard abc" in shown
    assert "complete: " in shown
    assert code == 0


def test_ctrl_c_is_the_commands() -> None:
    script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    shown, code = on_terminal([*POLL, "--", "sh", "-c", script], [("ready", b"\x03")])
    assert shown.count("interrupted") == 1
    assert "complete: " in shown
    assert code == 9


def test_the_live_view_gives_the_terminal_back() -> None:
    with sleeper() as pid:
        shown, code = on_terminal([*POLL, "--pid", str(pid)], [("waits in", b""), ("S 100%", b"\x03")])
    assert code == 0
    assert shown.startswith("\x1b[?1049h\x1b[?25l")
    frames, _, after = shown.rpartition("\x1b[?25h\x1b[?1049l")
    assert "pause" in frames
    assert "complete: " in after
    assert "lives on" in after
    quiet, _code = on_terminal([*POLL, "--no-live", "--duration", "0.1", "--pid", str(os.getpid())], [])
    assert "1049" not in quiet


def test_ctrl_z_gives_the_terminal_to_the_shell_until_fg() -> None:
    """In a shell with job control: the kernel stops nobody whose group no shell could continue."""
    with sleeper() as pid:
        command = shlex.join([*IPCLAB, *POLL, "--pid", str(pid)])
        talk = [
            ("", f"{command}\n".encode()),
            ("S 100%", b"\x1a"),
            ("Stopped", b"fg\n"),
            ("S 100%", b"\x03"),
            ("complete: ", b"exit\n"),
        ]
        shown, _code = on_terminal([], talk, ["/bin/sh", "-i"])
    page, _, shell = shown.partition("Stopped")
    assert page.count(ENTER) == page.count(LEAVE) == 1
    assert page.index(ENTER) < page.index(LEAVE)
    assert shell.count(ENTER) == shell.count(LEAVE) == 1
    assert "complete: " in shell.partition(LEAVE)[2]


# --- formats ---------------------------------------------------------------------------------------------------------


def test_csv_and_chrome_are_pure_on_standard_output() -> None:
    done = run(*POLL, "--format", "csv", "--", "true")
    assert next(csv.DictReader(io.StringIO(done.stdout)))["state"] in ("R", "S", "D")
    assert done.stderr.startswith("complete: ")
    done = run(*POLL, "--format", "chrome", "--", "true")
    assert json.loads(done.stdout)["traceEvents"]


@pytest.mark.parametrize("form", ["table", "chrome"])
def test_a_file_gets_the_record_and_the_reader_the_table(form: str, tmp_path: Path) -> None:
    target = tmp_path / "record"
    done = run(*POLL, "--format", form, "-o", str(target), "--", "true")
    assert done.returncode == 0
    assert "complete: " in done.stdout
    assert target.stat().st_size > 100
    assert list(tmp_path.iterdir()) == [target]


def test_the_sqlite_file_is_the_store(tmp_path: Path) -> None:
    target = tmp_path / "record.sqlite"
    done = run(*POLL, "--format", "sqlite", "-o", str(target), "--", "sleep", "0.1")
    assert done.returncode == 0, done.stderr
    head, intervals = states.open_recording(target)
    assert head.exit_code == 0
    assert {one.state for one in intervals} >= {"S"}


# --- bad input and faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "nothing to track"),
        (["--pid", "1", "--", "true"], 2, "exclude"),
        (["--pid", "0"], 2, "0 is no pid"),
        (["--pid", "4194999"], 1, "no process 4194999"),
        (["--pid", "x"], 2, "--pid"),
        (["--rate", "0", "--", "true"], 2, "--rate 0"),
        (["--rate", "-5", "--", "true"], 2, "--rate -5"),
        (["--rate", "nan", "--", "true"], 2, "--rate nan"),
        (["--rate", "often", "--", "true"], 2, "--rate often"),
        (["--duration", "0", "--", "true"], 2, "--duration 0"),
        (["--source", "magic", "--", "true"], 2, "--source"),
        (["--format", "sqlite", "--", "true"], 2, "-o FILE"),
        (["--", "/nonexistent/program"], 2, "not found"),
        (["--", "/etc/passwd"], 2, "may not be executed"),
        (["--", ""], 2, "no command"),
        (["-o", "/nonexistent/record", "--", "true"], 1, "cannot write"),
    ],
)
def test_bad_requests_are_one_line(arguments: list[str], code: int, words: str) -> None:
    done = run(*POLL, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_rate_nobody_can_keep_is_flat_out_and_says_so() -> None:
    done = run(*POLL, "--rate", "1e9", "--", "true")
    assert done.returncode == 0
    assert "flat out" in done.stdout
    assert json.loads(run(*POLL, "--rate", "max", "--json", "--", "true").stdout)["recording"]["rate_hz"] is None


def test_several_pids_and_ourselves() -> None:
    with sleeper() as one, sleeper() as two:
        found = record("--duration", "0.2", "--pid", str(one), str(two), "--pid", str(os.getpid()))
        assert found["recording"]["pids"] == [one, two, os.getpid()]


def test_a_full_disk_is_told_after_the_table() -> None:
    done = run(*POLL, "-o", "/dev/full", "--", "true")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "complete: " in done.stdout


@pytest.mark.parametrize(("form", "room_kib"), [("sqlite", 64), ("csv", 16)])  # an empty database takes 40
def test_a_disk_that_fills_up_is_told_and_the_totals_are_whole(form: str, room_kib: int) -> None:
    small = Surroundings(name="small", shm_bytes=room_kib << 10)
    if why := small.obstacle():
        pytest.skip(why)
    script = "for i in $(seq 200); do sleep 0.001; done"
    asked = ["--rate", "max", "--format", form, "-o", "/dev/shm/record"]
    done = small.run(*IPCLAB, *POLL, *asked, "--", "sh", "-c", script)
    if form == "csv":
        assert done.left == (), "a file that could not be written whole is not left in part"
    assert done.returncode == 1, done.text
    assert "complete: " in done.out
    assert "full" in done.err or "No space left" in done.err


def test_a_foreign_process_has_its_states_and_the_reason_for_the_rest() -> None:
    nobody = Surroundings(name="nobody", nobody=True)
    if why := nobody.obstacle():
        pytest.skip(why)
    with sleeper() as pid:
        done = nobody.run(*IPCLAB, *POLL, "--duration", "0.3", "--pid", str(pid))
    assert done.returncode == 0, done.text
    assert "another user" in done.text
    assert " S " in done.text
    assert done.left == ()


# --- demos -----------------------------------------------------------------------------------------------------------


def test_a_demo_ends_with_the_timeline_of_its_roles() -> None:
    done = run("demo", "pipe", "--states", "--json")
    assert done.returncode == 0, done.stderr
    verdict, _, timeline = done.stderr.partition("and sleeps when full\n")
    assert verdict
    rows = {line.split("[")[0] for line in timeline.splitlines() if "[" in line}
    assert rows >= {"pipe", "source", "upper", "sink", "writer", "plain", "careful"}
    assert "ipclab-" not in timeline
    assert "complete: " in timeline
    (one,) = json.loads(done.stdout)["runs"]
    assert one["status"] == "passed"
    slept = {thread["name"]: thread["time_ns"].get("S", 0) for thread in one["recording"]["threads"]}
    assert slept["writer"] > 0, "the writer of the full pipe is seen in S"


def test_a_demo_alone_takes_it_too() -> None:
    demo = Path(__file__).resolve().parents[2] / "demos" / "memfd.py"
    done = subprocess.run(
        [sys.executable, str(demo), "--states"], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete: " in done.stdout

"""A demo's stage: what it prints, in which order, and the exit code it leaves with."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import posix_ipc
import pytest

from ipclab.errors import IpclabError, Unavailable
from ipclab.processes import Stage, say


def sleep_for_ever() -> None:
    while True:
        signal.pause()


def run(tmp_path: Path, body: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    """A demo with this body inside its `with Stage(...)`."""
    program = tmp_path / "demo.py"
    head = """
        import os, signal, sys, time
        from ipclab.errors import *
        from ipclab.processes import Stage, say
        def sleep_for_ever():
            while True: signal.pause()
        def main():
            with Stage("demo", "Does it work?", deadline_s=DEADLINE) as stage:
        """
    text = textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body), "        ")
    text += "\n    return stage.exit_code\nsys.exit(main())\n"
    program.write_text(text.replace("DEADLINE", "20"))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=timeout_s)


def test_a_demo_from_title_to_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()

    def fill() -> None:
        say("filling the pipe")
        while True:
            os.write(writer, bytes(4096))

    with Stage("pipe", "What does a pipe do when it is full?") as stage:
        role = stage.spawn("writer", fill)
        stage.scene("The pipe fills")
        stage.release()
        stage.check(stage.asleep_in(role, syscall="write"), "the writer sleeps in write")
        seen = stage.look(role)
        stage.say("that is all")
        stage.verdict("A full pipe puts its writer to sleep.")
    os.close(reader)
    os.close(writer)
    out = capsys.readouterr().out
    assert stage.exit_code == 0
    assert seen.state == "S"
    assert seen.syscall in ("write", None)
    lines = out.splitlines()
    assert lines[:3] == ["pipe: What does a pipe do when it is full?", "", "-- The pipe fills"]
    assert re.fullmatch(r" *\d+\.\d ms  writer\[\d+\]  filling the pipe", lines[3])
    assert lines[4] == "ok: the writer sleeps in write"
    assert re.fullmatch(r" *\d+\.\d ms  stage\[\d+\]  writer\[\d+\] sleeps \(S\).*", lines[5])
    assert lines[6].endswith("that is all")
    assert lines[7:] == ["pipe: A full pipe puts its writer to sleep."]


def test_a_failed_check_has_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    with Stage("demo", "?") as stage:
        assert stage.check(True, "one")
        assert not stage.check(False, "two")
        stage.verdict("never seen")
    assert stage.exit_code == 1
    assert capsys.readouterr().out.splitlines()[1:] == ["ok: one", "FAILED: two", "demo: FAILED: 1 of 2 checks"]


def test_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    with Stage("posix-mq", "?") as stage:
        stage.verdict("never seen")
        raise Unavailable("no message queues", hint="mount them")
    assert stage.exit_code == 77
    assert capsys.readouterr().out.splitlines()[-1] == "posix-mq: not here: no message queues; mount them"


def test_not_here_for_a_role(capsys: pytest.CaptureFixture[str]) -> None:
    def ask() -> None:
        raise Unavailable("no message queues", hint="mount them")

    with Stage("posix-mq", "?") as stage:
        stage.spawn("role", ask)
        stage.wait()
        stage.check(False, "the queue works")
    assert stage.exit_code == 77
    assert capsys.readouterr().out.splitlines()[-1] == "posix-mq: not here: no message queues; mount them"


def test_an_error_of_ours_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Stage("demo", "?") as stage:
        stage.spawn("role", sleep_for_ever)
        stage.release()
        raise IpclabError("queue /x", errno=errno.EBADF, syscall="mq_send")
    assert stage.exit_code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "demo: FAILED: queue /x (mq_send: EBADF)"


def test_a_mistake_in_the_demo_is_not_hidden() -> None:
    stage = Stage("demo", "?")

    def perform() -> None:
        with stage:
            stage.spawn("role", sleep_for_ever)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        perform()
    assert stage.exit_code == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"ENOSPC: No space left on device \(test_stage.py:\d+\)"),
        (OSError(errno.EMFILE, "Too many"), r"EMFILE: Too many \(test_stage.py:\d+\); raise RLIMIT_NOFILE .*"),
        (posix_ipc.PermissionsError("No"), r"PermissionsError: No \(test_stage.py:\d+\)"),
    ],
)
def test_what_the_kernel_refuses_the_demo_itself_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stage("demo", "?") as stage:
        raise error
    assert stage.exit_code == 1
    assert re.search(rf"^demo: FAILED: {line}$", capsys.readouterr().out, flags=re.MULTILINE)


def test_a_role_that_fails_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("wrong")

    with Stage("demo", "?") as stage:
        stage.spawn("role", fail)
        stage.spawn("other", lambda: 3)  # an exit code is the demo's business
        stage.wait()
        stage.verdict("never seen")
    assert stage.exit_code == 1
    out = capsys.readouterr().out
    assert "| ValueError: wrong (test_stage.py:" in out
    assert re.search(r"FAILED: role\[\d+\] ended with ValueError: wrong", out)
    assert "never seen" not in out


def test_asleep_in_is_not_fooled(capsys: pytest.CaptureFixture[str]) -> None:
    def busy() -> None:
        while True:
            pass

    def napping() -> None:
        reader, writer = os.pipe()
        while True:
            os.write(writer, b"x")
            os.read(reader, 1)

    with Stage("demo", "?") as stage:
        roles = [stage.spawn("busy", busy), stage.spawn("napping", napping), stage.spawn("gone", lambda: None)]
        sleeper = stage.spawn("sleeper", sleep_for_ever)
        stage.release()
        assert stage.asleep_in(sleeper, syscall="pause")
        assert not any(stage.asleep_in(role, timeout_s=0.1) for role in roles)


def test_ctrl_c(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        stage.spawn("role", lambda: (os.kill(os.getppid(), signal.SIGINT), sleep_for_ever()))
        stage.release()
        sleep_for_ever()
        """,
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(("signo", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_other_ways_to_be_ended(tmp_path: Path, signo: str, code: int) -> None:
    done = run(
        tmp_path,
        f"""
        def end():
            os.kill(os.getppid(), signal.{signo})
            sleep_for_ever()
        stage.spawn("role", end)
        stage.wait()
        """,
    )
    assert (done.returncode, done.stderr) == (code, "")


def test_the_deadline_wakes_the_demo_itself(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        role = stage.spawn("role", sleep_for_ever)
        stage.release()
        stage._until = time.monotonic()  # the deadline is now
        os.eventfd_write(stage._pump.wake_fd, 1)
        os.read(os.pipe()[0], 1)
        """,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"FAILED: role\[\d+\] was still there at the deadline of 20 s", done.stdout)


def test_output_without_utf8(tmp_path: Path) -> None:
    program = tmp_path / "demo.py"
    program.write_text(
        "from ipclab.processes import Stage, say\n"
        "with Stage('demo', '?') as stage:\n"
        "    stage.spawn('role', say, 'caf\\u00e9')\n"
        "    stage.wait()\n"
    )
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, str(program)], env=env, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf\\xe9\n" in done.stdout


def test_a_reader_that_does_not_read_does_not_hold_up_ctrl_c(tmp_path: Path) -> None:
    program = tmp_path / "demo.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from ipclab.processes import Stage, say
            def talk():
                os.kill(os.getppid(), signal.SIGUSR1)
                while True:
                    say("x" * 1000)
            with Stage("demo", "?") as stage:
                signal.signal(signal.SIGUSR1, lambda signo, frame: os.write(2, b"!"))
                stage._cap_bytes = 1 << 30
                stage.spawn("talker", talk, killable=True)
                stage.wait()
            sys.exit(stage.exit_code)
            """
        )
    )
    demo = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert demo.stdout is not None
    assert demo.stderr is not None
    assert demo.stderr.read(1) == b"!"
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=30) == 130
    assert demo.stderr.read() == b""
    demo.stdout.close()
    demo.stderr.close()


def test_no_room_for_a_stage_is_one_line() -> None:
    program = (
        "import resource, ipclab.processes.stage\n"
        "from ipclab.processes import Stage\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))\n"
        "with Stage('demo', '?') as stage: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("demo: FAILED: no room for another pipe (pipe2: EMFILE)")


def test_a_full_disk_is_one_line() -> None:
    program = (
        "import sys\n"
        "from ipclab.processes import Stage\n"
        "with Stage('demo', '?') as stage: stage.spawn('role', print, 'x'); stage.wait()\n"
        "sys.exit(stage.exit_code)\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, timeout=30)
    assert done.returncode == 1
    assert re.fullmatch(rb"demo: the output could not be written: .*No space left on device\n", done.stderr)


def test_the_stages_own_logging_is_in_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with Stage("demo", "?"):
        logging.getLogger("x").info("noted")
    logging.getLogger("x").info("not here")
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.endswith(f"stage[{os.getpid()}]  INFO x: noted")

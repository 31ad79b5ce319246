"""What holds for every command: exit codes, one line for an error, where output goes and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import TIMEOUT_S, environment

from ipclab.processes import procfs

COMMANDS = ("list", "doctor", "demo", "clean")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(ipclab: Callable[..., subprocess.CompletedProcess[str]], command: str) -> None:
    done = ipclab(command, "--help")
    assert done.returncode == 0
    assert f"Example: ipclab {command}" in done.stdout
    assert "--json" in done.stdout
    assert "-o," in done.stdout


def test_help_names_every_command(ipclab: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = ipclab("--help")
    assert done.returncode == 0
    for command in (*COMMANDS, "bench", "gmp"):
        assert re.search(rf"^  {command} ", done.stdout, flags=re.MULTILINE)
    assert "Example:" in done.stdout


def test_version(ipclab: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = ipclab("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"ipclab \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lst"], "did you mean 'list'"),
        (["dcotor"], "did you mean 'doctor'"),
        (["list", "pip"], "did you mean 'pipe'"),
        (["demo", "pipee"], "did you mean 'pipe'"),
        (["list", "--lmits"], "--limits"),
        (["demo", "--source"], "--source needs a NAME"),
        (["demo", "--source", "--list", "pipe"], "exclude each other"),
        (["clean", "everything"], "unexpected extra argument"),
        (["doctor", "-o"], "requires an argument"),
    ],
)
def test_a_wrong_request_is_one_line_and_2(
    ipclab: Callable[..., subprocess.CompletedProcess[str]], arguments: list[str], words: str
) -> None:
    done = ipclab(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("ipclab: ")
    assert words in line


def test_no_command_is_help_and_2(ipclab: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = ipclab()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ipclab")


# --- the record ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "record"),
    [
        (["list"], "mechanisms"),
        (["list", "pipe"], "mechanisms"),
        (["doctor"], "doctor"),
        (["clean", "--dry-run"], "clean"),
        (["demo", "--list"], "demos"),
    ],
)
def test_the_record_to_stdout_and_to_a_file(
    ipclab: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, arguments: list[str], record: str
) -> None:
    file = tmp_path / "record.json"
    as_json = ipclab(*arguments, "--json")
    assert as_json.returncode == 0
    assert json.loads(as_json.stdout)["record"] == record
    as_text = ipclab(*arguments, "-o", str(file))
    assert as_text.returncode == 0
    assert not as_text.stdout.startswith("{")
    assert json.loads(file.read_text())["record"] == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"], "nothing but the file is there"


def test_a_file_keeps_its_mode_and_a_link_stays_one(
    ipclab: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    file, link = tmp_path / "record.json", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    assert ipclab("clean", "-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert json.loads(file.read_text())["record"] == "clean"
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("where", ["missing/record.json", "folder", "file/record.json"])
def test_a_file_that_cannot_be_written_is_one_line_and_1(
    ipclab: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, where: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    done = ipclab("list", "-o", str(tmp_path / where))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ipclab: cannot write {tmp_path / where}: ")


def test_a_file_may_be_a_device(ipclab: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert ipclab("clean", "-o", "/dev/null").returncode == 0
    piped = ipclab("clean", "-o", "/dev/stdout")  # a pipe has no name but that one
    assert piped.stdout.startswith("{\n")
    assert piped.returncode == 0, piped.stderr
    done = ipclab("clean", "-o", "/dev/full")
    assert (done.returncode, done.stdout != "") == (1, True)  # what it did is told all the same
    assert "cannot write /dev/full: No space left on device" in done.stderr


def test_a_file_that_is_the_output_gets_both_in_their_order(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "ipclab", "list", "--json", "-o", "/dev/stdout"],
            env=environment(tmp_path), stdout=file, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    record, end = json.JSONDecoder().raw_decode(out.read_text())
    assert record["record"] == json.loads(out.read_text()[end:])["record"]


# --- how output ends -------------------------------------------------------------------------------------------------


def start(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "ipclab", *arguments], **options)  # type: ignore[call-overload, no-any-return]


def test_a_reader_that_goes_away_is_no_news() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = start("list", stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    _out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, b"")


@pytest.mark.parametrize("command", [("list",), ("demo", "pidfd-signal")])
def test_a_full_disk_is_one_line(command: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        process = start(*command, stdout=full, stderr=subprocess.PIPE)
        _out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == b"ipclab: standard output: No space left on device (write: ENOSPC)\n"


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_closed_standard_streams(closed: str) -> None:
    redirections = " ".join(f"{fd}>&-" for fd in closed.split())
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "ipclab", "list"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0
    assert done.stderr == b""


def test_ctrl_c_is_130_and_quiet(tmp_path: Path) -> None:
    # The FIFO holds the command at a known place: opening it for writing sleeps until there is a reader.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = start("clean", "-o", str(fifo), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_syscall(process.pid)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_ctrl_c_when_nobody_takes_our_output() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, bytes(4096))
    os.set_blocking(write_end, True)
    process = start("list", stdout=write_end, stderr=subprocess.PIPE)
    try:
        poll_until(lambda: procfs.wchan(process.pid) in ("pipe_write", "anon_pipe_write"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        _out, err = process.communicate()
        os.close(read_end)
        os.close(write_end)
    assert err == b""


def test_sigterm_is_143_and_quiet(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = start("clean", "-o", str(fifo), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_syscall(process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (143, b"", b"")


def wait_for_syscall(pid: int) -> None:
    """Until it sleeps in the open of the FIFO: fifo_open is where the kernel lets it wait."""
    poll_until(lambda: procfs.wchan(pid) in ("wait_for_partner", "fifo_open"))


def poll_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.005)


# --- where it must run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "pipe"], ["doctor"], ["clean", "--dry-run"], ["demo", "--list"]]
)
@pytest.mark.parametrize(
    "changes",
    [
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LANG": None, "TERM": None, "PATH": None},
        {"HOME": "/nonexistent", "COLUMNS": "banana"},
    ],
    ids=["LANG=C", "ascii", "bare", "no-home"],
)
def test_plain_places(
    ipclab: Callable[..., subprocess.CompletedProcess[str]], arguments: list[str], changes: dict[str, str | None]
) -> None:
    done = ipclab(*arguments, **changes)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("arguments", [["list"], ["doctor"], ["clean"], ["demo", "--list"]])
def test_a_current_folder_that_is_gone(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    command = ["sh", "-c", script, "sh", str(tmp_path / "gone"), sys.executable, "-m", "ipclab", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_importing_ipclab_imports_nothing_heavy() -> None:
    script = "import sys; before = set(sys.modules); import ipclab; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert not modules & {
        "numpy",
        "rich",
        "click",
        "zmq",
        "msgspec",
        "psutil",
        "posix_ipc",
        "sysv_ipc",
        "difflib",
        "typing",
    }


def test_list_imports_what_it_needs() -> None:
    script = (
        "import sys; from ipclab.cli.main import main; code = main(['list', '--json']); "
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    modules = set(done.stderr.split())
    assert not modules & {
        "numpy",
        "rich",
        "zmq",
        "psutil",
        "multiprocessing",
        "logging",
        "asyncio",
        "importlib.metadata",
    }


def test_completion_of_names(ipclab: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    def completed(line: str) -> list[str]:
        done = ipclab(_IPCLAB_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1))
        return [entry.partition(",")[2] for entry in done.stdout.splitlines()]

    assert completed("ipclab cl") == ["clean"]
    assert completed("ipclab list posix") == ["posix-mq", "posix-shm", "posix-sem"]
    assert "pipe" in completed("ipclab demo pi")
    assert "complete -o nosort" in ipclab(_IPCLAB_COMPLETE="bash_source").stdout


#: What a Ctrl-C does to an import that is just making a class: CPython 3.11 gives a RuntimeError for it.
_IN_A_CLASS = """
class Field:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt

class Record:
    field = Field()
"""


@pytest.mark.parametrize("how", ["command line", "demo"])
def test_ctrl_c_while_an_import_makes_a_class_is_a_ctrl_c(how: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_IN_A_CLASS)
    text = f"""
import sys
import ipclab.cli.main

class Importer:
    def find_spec(self, name, path=None, target=None):
        if name == "ipclab.cli.group":
            exec({_IN_A_CLASS!r}, {{}})

sys.meta_path.insert(0, Importer())
sys.exit(ipclab.cli.main.main(["list"]))
"""
    program = ["-c", text] if how == "command line" else ["-m", "ipclab.demos.perform", str(script)]
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

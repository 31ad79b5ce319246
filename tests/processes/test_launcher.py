"""How roles end, and what their launcher makes of it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclab.errors import NoRoom, TimedOut, UsageError
from ipclab.processes import Launcher, procfs, say


class Lines(list[str]):
    """A sink that remembers."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def having(self, text: str) -> list[str]:
        return [line for line in self if text in line]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def sleep_for_ever() -> None:
    while True:
        signal.pause()


def test_return_values_become_exit_codes(lines: Lines) -> None:
    with Launcher(sink=lines) as launcher:
        launcher.spawn("none", lambda: None)
        launcher.spawn("zero", lambda: 0)
        launcher.spawn("three", lambda: 3)
        launcher.spawn("text", lambda: "a result nobody asked for")
        launcher.spawn("exit", lambda: sys.exit(7))
        endings = launcher.wait()
    assert [(e.role, e.exit_code, e.signal, e.cause) for e in endings] == [
        ("none", 0, None, "self"),
        ("zero", 0, None, "self"),
        ("three", 3, None, "self"),
        ("text", 0, None, "self"),
        ("exit", 7, None, "self"),
    ]


def test_an_exception_is_one_line_and_exit_code_1(lines: Lines) -> None:
    def fail() -> None:
        raise ValueError("the bridge\nis out")

    with Launcher(sink=lines) as launcher:
        role = launcher.spawn("broken", fail)
        (ending,) = launcher.wait()
    assert (ending.exit_code, ending.signal) == (1, None)
    assert len(lines) == 1
    assert f"broken[{role.pid}]  | ValueError: the bridge is out (test_launcher.py:" in lines[0]
    assert "ValueError: the bridge" in role.error


def test_a_signal_of_its_own_making(lines: Lines) -> None:
    with Launcher(sink=lines) as launcher:
        launcher.spawn("aborts", lambda: os.kill(os.getpid(), signal.SIGABRT))
        (ending,) = launcher.wait()
    assert (ending.exit_code, ending.signal, ending.cause) == (None, signal.SIGABRT, "self")


def test_kill_is_told_from_a_crash(lines: Lines) -> None:
    with Launcher(sink=lines) as launcher:
        role = launcher.spawn("victim", sleep_for_ever, killable=True)
        launcher.release()
        assert role.wait_state("S")
        role.kill()
        ending = role.wait()
    assert (ending.signal, ending.cause) == (signal.SIGKILL, "killed")
    assert role.state() == "X"


def test_nobody_starts_before_the_release(lines: Lines) -> None:
    reader, writer = os.pipe()
    with Launcher(sink=lines) as launcher:
        for name in ("a", "b"):
            role = launcher.spawn(name, lambda: os.write(writer, b"x"))
            assert role.wait_state("S", syscall="poll")
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        launcher.wait()
        assert os.read(reader, 10) == b"xx"
        launcher.spawn("late", lambda: os.write(writer, b"y"))
        launcher.wait()
        assert os.read(reader, 10) == b"y"
    os.close(reader)
    os.close(writer)


def test_the_deadline_kills(lines: Lines) -> None:
    with Launcher(deadline_s=0.2, sink=lines) as launcher:
        launcher.spawn("stays", sleep_for_ever)
        (ending,) = launcher.wait()
        assert launcher.deadline_passed
    assert (ending.signal, ending.cause) == (signal.SIGKILL, "deadline")


def test_the_deadline_kills_while_the_launcher_is_busy_elsewhere(lines: Lines) -> None:
    reader, writer = os.pipe()
    with Launcher(deadline_s=0.2, sink=lines) as launcher:
        launcher.spawn("stays", sleep_for_ever)
        launcher.release()
        os.close(writer)
        assert os.read(reader, 1) == b""  # until the role, which holds the other copy, is gone
        (ending,) = launcher.stop()
    os.close(reader)
    assert ending.cause == "deadline"


def test_a_wait_may_time_out_and_the_role_runs_on(lines: Lines) -> None:
    with Launcher(grace_s=30.0, sink=lines) as launcher:
        role = launcher.spawn("stays", sleep_for_ever)
        with pytest.raises(TimedOut, match=r"stays\[\d+\]"):
            launcher.wait(timeout_s=0.05)
        assert role.alive()
        (ending,) = launcher.stop()
    assert (ending.signal, ending.cause) == (signal.SIGTERM, "asked")


def test_stop_asks_first(lines: Lines) -> None:
    def polite() -> None:
        signal.signal(signal.SIGTERM, lambda signo, frame: sys.exit(5))
        say("ready")
        sleep_for_ever()

    with Launcher(grace_s=30.0, sink=lines) as launcher:
        role = launcher.spawn("polite", polite)
        launcher.release()
        assert role.wait_state("S", syscall="pause")
        (ending,) = launcher.stop()
    assert (ending.exit_code, ending.cause) == (5, "asked")


def test_stop_kills_who_does_not_listen(lines: Lines) -> None:
    def deaf() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleep_for_ever()

    with Launcher(grace_s=0.1, sink=lines) as launcher:
        role = launcher.spawn("deaf", deaf)
        launcher.release()
        assert role.wait_state("S", syscall="pause")
        (ending,) = launcher.stop()
    assert (ending.signal, ending.cause) == (signal.SIGKILL, "killed")


def test_a_stopped_role_is_ended_too(lines: Lines) -> None:
    with Launcher(grace_s=30.0, sink=lines) as launcher:
        role = launcher.spawn("stopped", sleep_for_ever)
        launcher.release()
        assert role.wait_state("S", syscall="pause")
        role.signal(signal.SIGSTOP)
        assert role.wait_state("T")
    assert role.ending().signal == signal.SIGTERM


def test_output_is_shown_and_capped(lines: Lines) -> None:
    def talk() -> None:
        print("first")
        os.write(2, b"second\x1b[31m\xff")
        for _ in range(1000):
            os.write(1, b"x" * 999 + b"\n")

    with Launcher(output_cap_bytes=10_000, sink=lines) as launcher:
        role = launcher.spawn("talker", talk)
        (ending,) = launcher.wait()
    assert lines[0].endswith(f"talker[{role.pid}]  | first")
    assert "| second\\x1b[31m\\xffxxx" in lines[1]
    assert sum(len(line) for line in lines) < 12_000
    assert ending.output_dropped_bytes == len("first\n") + 12 + 1_000_000 - 10_000
    assert lines.having("its output is over 10000 bytes")


def test_narration_counts_against_the_cap(lines: Lines) -> None:
    def talk() -> None:
        for _ in range(1000):
            say("y" * 100)

    with Launcher(output_cap_bytes=1000, sink=lines) as launcher:
        launcher.spawn("talker", talk, killable=True)
        (ending,) = launcher.wait()
    assert len(lines.having("yyy")) == 10
    assert ending.output_dropped_bytes == 99_000


def test_the_whole_group_is_ended(lines: Lines) -> None:
    reader, writer = os.pipe()

    def family() -> None:
        for _ in range(2):
            if os.fork() == 0:
                if os.fork() == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.write(writer, b"%d\n" % os.getpid())
                sleep_for_ever()
        sleep_for_ever()

    with Launcher(grace_s=0.1, sink=lines) as launcher:
        launcher.spawn("family", family)
        launcher.release()
        with open(reader, "rb", closefd=False) as file:
            pids = [int(file.readline()) for _ in range(4)]
    os.close(reader)
    os.close(writer)
    assert [procfs.state(pid) for pid in pids] == ["X"] * 4


def test_orphans_come_to_the_launcher_and_are_ended(lines: Lines) -> None:
    reader, writer = os.pipe()

    def leave_an_orphan() -> None:
        if os.fork() == 0:
            os.setsid()  # as a daemon would: out of the group
            if os.fork() != 0:
                os._exit(0)
            os.write(writer, b"%d\n" % os.getpid())
            sleep_for_ever()
        os.wait()

    with Launcher(sink=lines) as launcher:
        launcher.spawn("careless", leave_an_orphan)
        launcher.wait()
        with open(reader, "rb", closefd=False) as file:
            orphan = int(file.readline())
        assert procfs.parent(orphan) == os.getpid()
        assert launcher.strays() == [orphan]
    os.close(reader)
    os.close(writer)
    assert procfs.state(orphan) == "X"


def test_a_child_of_the_program_itself_is_not_a_stray(lines: Lines) -> None:
    reader, writer = os.pipe()
    with Launcher(sink=lines) as launcher:
        launcher.spawn("role", lambda: None)
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(9)
        launcher.wait()
        assert launcher.strays() == []
    os.close(writer)
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_a_role_has_fresh_signals_its_own_group_and_no_input(lines: Lines) -> None:
    def look() -> None:
        assert os.getpgrp() == os.getpid()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
        assert os.read(0, 1) == b""
        assert threading.active_count() == 1
        assert procfs.status(os.getpid())["Threads"] == "1"
        assert Path("/proc/self/comm").read_text().strip() == "looker"

    before = signal.signal(signal.SIGUSR1, lambda signo, frame: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        with Launcher(sink=lines) as launcher:
            launcher.spawn("looker", look)
            (ending,) = launcher.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR1, before)
    assert lines == []
    assert ending.exit_code == 0


def test_a_role_holds_no_descriptor_of_the_launcher(lines: Lines) -> None:
    before = {path.name for path in Path("/proc/self/fd").iterdir()}

    def count() -> int:
        now = {path.name for path in Path("/proc/self/fd").iterdir()}
        return len(now - before)

    with Launcher(sink=lines) as outer, Launcher(sink=lines) as inner:
        outer.spawn("other", sleep_for_ever)
        outer.release()
        inner.spawn("first", sleep_for_ever)
        role = inner.spawn("counter", count)
        inner.release()
        # The record pipe; the listing's own descriptor is in both sets or takes a free number.
        assert role.wait().exit_code in (1, 2)


def test_nothing_of_the_launchers_program_runs_in_a_role(lines: Lines, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import atexit, sys\n"
        "from ipclab.processes import Launcher\n"
        "atexit.register(print, 'atexit')\n"
        "sys.stdout.write('unflushed ')\n"
        "try:\n"
        "    with Launcher() as launcher:\n"
        "        launcher.spawn('role', lambda: None)\n"
        "        launcher.wait()\n"
        "finally:\n"
        "    print('finally')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr, done.returncode) == ("unflushed finally\natexit\n", "", 0)


@contextlib.contextmanager
def a_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="somebody else's")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_in_a_process_with_threads(lines: Lines) -> None:
    with a_thread(), Launcher(sink=lines) as launcher:
        launcher.spawn("one", lambda: say("here"))
        launcher.release()
        launcher.spawn("two", lambda: say("here too"))
        endings = launcher.wait()
    assert [ending.exit_code for ending in endings] == [0, 0]
    assert len(lines) == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_launcher_in_a_thread_that_ends(lines: Lines) -> None:
    """The parent-death signal would follow the thread: the role must outlive it."""
    with Launcher(sink=lines) as launcher:
        thread = threading.Thread(target=launcher.spawn, args=("role", sleep_for_ever))
        thread.start()
        thread.join()
        launcher.release()
        (role,) = launcher.processes
        assert role.wait_state("S", syscall="pause")
        assert role.alive()


def spawn_many(launcher: Launcher, count: int) -> None:
    for number in range(count):
        launcher.spawn(f"role-{number}", lambda: say("hello"))


def test_many_roles_with_few_descriptors(lines: Lines) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(1000) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[20], hard))
    try:
        with Launcher(sink=lines) as launcher:
            with pytest.raises(NoRoom, match="ulimit -n"):
                spawn_many(launcher, 100)
            endings = launcher.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 4 <= len(endings) < 12
    assert all(ending.exit_code == 0 for ending in endings)
    assert len(lines) == len(endings)


def test_siblings_may_signal_each_other(lines: Lines) -> None:
    with Launcher(sink=lines) as launcher:
        victim = launcher.spawn("victim", sleep_for_ever, killable=True)
        launcher.spawn("killer", lambda: victim.signal(signal.SIGKILL))
        assert victim.wait_state("S")
        endings = launcher.wait()
    assert [(ending.exit_code, ending.signal) for ending in endings] == [(None, signal.SIGKILL), (0, None)]


def test_a_role_that_somebody_else_reaped_has_ended_all_the_same(lines: Lines) -> None:
    with Launcher(sink=lines) as launcher:
        role = launcher.spawn("stolen", lambda: 3)
        launcher.release()
        os.waitpid(role.pid, 0)
        (ending,) = launcher.wait()
    assert (ending.exit_code, ending.signal) == (None, None)


def test_exit_codes_are_known_where_sigchld_is_ignored(lines: Lines) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Launcher(sink=lines) as launcher:
            launcher.spawn("role", lambda: 4)
            (ending,) = launcher.wait()
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert ending.exit_code == 4


def test_ctrl_c_during_a_wait_cleans_up(lines: Lines) -> None:
    def interrupt() -> None:
        os.kill(os.getppid(), signal.SIGINT)
        sleep_for_ever()

    launcher = Launcher(sink=lines)

    def wait() -> None:
        with launcher:
            launcher.spawn("interrupter", interrupt)
            launcher.wait()

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert [process.reaped for process in launcher.processes] == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_leaving_is_raised_afterwards(lines: Lines) -> None:
    def slow() -> None:
        signal.signal(signal.SIGTERM, lambda signo, frame: (os.kill(os.getppid(), signal.SIGINT), sys.exit(7)))
        sleep_for_ever()

    def leave() -> None:
        with launcher:
            role = launcher.spawn("slow", slow)
            launcher.release()
            assert role.wait_state("S", syscall="pause")

    launcher = Launcher(sink=lines, grace_s=30.0)
    with pytest.raises(KeyboardInterrupt):
        leave()
    (role,) = launcher.processes
    assert role.ending().exit_code == 7


def test_an_exception_in_the_block_ends_the_roles_and_is_kept(lines: Lines) -> None:
    def fail() -> None:
        with launcher:
            launcher.spawn("stays", sleep_for_ever)
            launcher.release()
            raise ZeroDivisionError

    launcher = Launcher(sink=lines)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert launcher.processes[0].reaped


def test_misuse_is_said(lines: Lines) -> None:
    launcher = Launcher(sink=lines)
    with pytest.raises(UsageError):
        launcher.spawn("too early", lambda: None)
    with launcher:
        role = launcher.spawn("role", lambda: None)
        with pytest.raises(UsageError, match="has not ended"):
            role.ending()
    with pytest.raises(UsageError, match="once"), launcher:
        pass


def test_a_role_may_be_a_launcher(lines: Lines) -> None:
    def nest() -> int:
        kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]  # they take the numbers the launcher had
        inner_lines = Lines()
        with Launcher(sink=inner_lines) as inner:
            inner.spawn("inner", lambda: [os.fstat(fd) for fd in kept] and say("deep inside"))
            (ending,) = inner.wait()
        say(inner_lines[0].split("  ")[-1])
        return ending.exit_code or 0

    with Launcher(sink=lines) as launcher:
        launcher.spawn("outer", nest)
        (ending,) = launcher.wait()
    assert ending.exit_code == 0
    assert [line.split("]  ")[1] for line in lines] == ["deep inside"]


def test_ctrl_c_ends_a_nested_launcher(lines: Lines) -> None:
    """The role lives below its launcher's spawn, which must not count as unfinished there."""

    def nest() -> None:
        with Launcher() as inner:
            inner.spawn("interrupter", lambda: os.kill(os.getppid(), signal.SIGINT))
            inner.wait()
            sleep_for_ever()

    with Launcher(sink=lines) as launcher:
        launcher.spawn("outer", nest)
        (ending,) = launcher.wait(timeout_s=20)
    assert ending.signal == signal.SIGINT


def test_a_role_interrupted_at_the_barrier(lines: Lines) -> None:
    with Launcher(sink=lines) as launcher:
        role = launcher.spawn("waiter", lambda: None)
        assert role.wait_state("S", syscall="poll")
        role.signal(signal.SIGINT)
        assert role.wait().signal == signal.SIGINT
    assert lines == []


def test_a_program_without_standard_descriptors(tmp_path: Path) -> None:
    result = tmp_path / "result"
    program = (
        "import sys\n"
        "from ipclab.processes import Launcher, say\n"
        "def role(): print('printed'); say('said')\n"
        "lines = []\n"
        "with Launcher(sink=lines.append) as launcher:\n"
        "    launcher.spawn('role', role); launcher.wait()\n"
        f"open({str(result)!r}, 'w').write(' '.join(line.split()[-1] for line in lines))\n"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    assert subprocess.run(command, timeout=30).returncode == 0
    assert sorted(result.read_text().split()) == ["printed", "said"]


def test_a_nested_launchers_roles_go_with_it(lines: Lines) -> None:
    reader, writer = os.pipe()

    def tell() -> None:
        os.write(writer, b"%d\n" % os.getpid())
        sleep_for_ever()

    def nest() -> None:
        with Launcher() as inner:
            inner.spawn("inner", tell)
            inner.wait()

    with Launcher(sink=lines) as launcher:
        launcher.spawn("outer", nest, killable=True)
        launcher.release()
        with open(reader, "rb", closefd=False) as file:
            pid = int(file.readline())
        launcher.processes[0].kill()
        launcher.wait()
    os.close(reader)
    os.close(writer)
    assert procfs.state(pid) == "X"


def test_a_proc_of_another_pid_namespace_is_said() -> None:
    command = ["unshare", "--pid", "--fork", sys.executable, "-c"]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    try:
        subprocess.run([*command, "pass"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no pid namespace can be made here")
    for ask in ("processes.Launcher().__enter__()", "processes.registry.clean()", "processes.registry.new_path('x')"):
        program = f"from ipclab import IpclabError, processes\ntry: {ask}\nexcept IpclabError as err: print(err)"
        done = subprocess.run([*command, program], capture_output=True, text=True, timeout=30)
        assert done.stdout.startswith("/proc belongs to another pid namespace; mount it"), done.stderr


def test_a_single_threaded_program_forks_single_threaded() -> None:
    """CPython 3.12 and later warn of a fork in a process with threads: also after the release there is none."""
    program = (
        "from ipclab.processes import Launcher, say\n"
        "with Launcher() as launcher:\n"
        "    launcher.spawn('early', say, 'x')\n"
        "    launcher.release()\n"
        "    launcher.spawn('late', say, 'y')\n"
        "    print([ending.exit_code for ending in launcher.wait()])\n"
    )
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout.endswith("[0, 0]\n")  # and a print after the wait comes after what the roles said

"""`ipclab gmp sim`: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import TIMEOUT_S, Run, environment
from surroundings import Surroundings
from surroundings import ipclab as in_surroundings

from ipclab.errors import IpclabError, UsageError
from ipclab.processes import procfs

#: Never done before somebody ends it. A 'block' leaves the CPU to the other tests.
LONG = '[[job]]\nname = "long"\ncount = 3\nrepeat = 100000\nsteps = ["block 20ms", "compute 10us"]\n'
SHORT = """
[channels]
c = 0
[[job]]
name = "ping"
repeat = 20
steps = ["send c 2", "recv c"]
[[job]]
name = "pong"
repeat = 20
steps = ["recv c", "send c 3", "block 1ms"]
"""


def written(tmp: Path, text: str) -> str:
    (tmp / "work.toml").write_text(text, encoding="utf-8")
    return "work.toml"


@pytest.mark.parametrize("command", ["sim", "snapshot"])
def test_help_has_an_example(ipclab: Run, command: str) -> None:
    done = ipclab("gmp", command, "--help")
    assert f"Example: ipclab gmp {command}" in done.stdout
    assert "--json" in done.stdout


def test_completion_knows_the_workloads(ipclab: Run) -> None:
    asked = {"COMP_WORDS": "ipclab gmp sim phil", "COMP_CWORD": "3", "_IPCLAB_COMPLETE": "bash_complete"}
    assert "plain,philosophers" in ipclab(**asked).stdout.split()


# --- what it prints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["m:n", "n:1", "1:1"])
def test_a_workload_of_ones_own(ipclab: Run, tmp_path: Path, model: str) -> None:
    done = ipclab("gmp", "sim", written(tmp_path, SHORT), "--model", model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"work: model {model}, ")
    assert re.search(r"^ping +1 +1 +0 ", done.stdout, flags=re.MULTILINE)
    assert "turnaround" in done.stdout
    assert "response" in done.stdout
    assert re.search(r"\d+ context switches, \d+ steals?, \d+ hand-offs?", done.stdout)


def test_the_record(ipclab: Run, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    done = ipclab("gmp", "sim", written(tmp_path, SHORT), "--procs", "2", "--seed", "9", "--json", "-o", str(file))
    record = json.loads(done.stdout)
    assert json.loads(file.read_text()) == record
    assert (record["record"], record["outcome"], record["procs"], record["seed"]) == ("gmp-sim", "done", 2, 9)
    assert {job["name"]: job["received"] for job in record["jobs"]} == {"ping": 60, "pong": 40}


@pytest.mark.parametrize("option", ["-o", "--trace"])
def test_a_file_that_cannot_be_written_costs_no_report(ipclab: Run, tmp_path: Path, option: str) -> None:
    done = ipclab("gmp", "sim", written(tmp_path, SHORT), option, "/dev/full")
    assert done.stdout.startswith("work: model m:n, ")
    assert "context switches" in done.stdout
    assert done.returncode == 1
    assert done.stderr == "ipclab: cannot write /dev/full: No space left on device; name a file that you may write\n"


def test_the_workloads_that_ship_are_listed_and_run(ipclab: Run) -> None:
    listed = json.loads(ipclab("gmp", "sim", "--list", "--json").stdout)["workloads"]
    names = {one["name"] for one in listed}
    assert {"mixed", "pipeline", "philosophers", "arrivals"} <= names
    assert all(one["about"] for one in listed)
    text = ipclab("gmp", "sim", "--list").stdout
    assert all(re.search(rf"^{name} ", text, flags=re.MULTILINE) for name in names)
    assert ipclab("gmp", "sim", "pipeline").returncode == 0
    assert ipclab("gmp", "sim", "philosophers").returncode == 1


def test_every_round_is_explained_in_a_line(ipclab: Run, tmp_path: Path) -> None:
    done = ipclab("gmp", "sim", written(tmp_path, SHORT), "--procs", "1", "--explain", "--rounds", "500")
    head, *lines = done.stdout.split("\n\n")[0].splitlines()
    assert (found := re.fullmatch(r"M(\d+), (\d+) rounds:", head))
    whole: list[str] = []
    for line in lines:
        if re.match(r" *\d+ +\d+\.\d{3} ms  \S", line):
            whole.append(line)
        else:  # what did not fit
            whole[-1] += " " + line.strip()
    assert len(whole) == int(found[2])
    assert any("G2 blocks (chan send)" in line or "G3 blocks (chan receive)" in line for line in whole)
    assert all(re.search(r": runs G\d+ on P0$", line) for line in whole[:-1])
    other = ipclab("gmp", "sim", written(tmp_path, SHORT), "--m", "77")
    assert (other.returncode, "there was no M77" in other.stderr) == (2, True)


def test_the_life_of_one_g_is_told_from_birth_to_death(ipclab: Run, tmp_path: Path) -> None:
    done = ipclab("gmp", "sim", written(tmp_path, SHORT), "--procs", "1", "--g", "3")
    lines = done.stdout.split("\n\n")[0].splitlines()
    told = [re.fullmatch(r" *\d+\.\d{3} ms  M\d+ +(?:P\d+|-) +G3 +(.+)", line) for line in lines]
    kinds = [found[1] for found in told if found]
    assert len(kinds) == len(lines)
    assert (kinds[0], kinds[-1]) == ("create: by G1", "end")
    assert any(kind.partition(":")[0] == "start" for kind in kinds)
    assert "block: chan send" in kinds or "block: chan receive" in kinds
    nobody = ipclab("gmp", "sim", written(tmp_path, SHORT), "--g", "77")
    assert (nobody.returncode, "there was no G77" in nobody.stderr) == (2, True)


def test_a_g_whose_events_were_overwritten_has_not_been_nobody() -> None:
    from ipclab import gmp
    from ipclab.cli.gmp import _explained, _life

    work = gmp.Workload([gmp.Job("a", ["yield"], count=50_000)])
    result = gmp.run(work, procs=1, events=True, event_slots=16)
    assert result.totals.events_lost
    known = {event.goid for event in result.events}
    unknown = next(goid for goid in range(2, 50_000) if goid not in known)
    with pytest.raises(IpclabError, match=rf"nothing is known of G{unknown}: \d+ events were overwritten"):
        _life(result, unknown)
    with pytest.raises(UsageError, match="there was no G0"):
        _life(result, 0)
    lost = result.totals.events_lost
    missing = f"{lost} events of all Gs were overwritten before they could be read: some may be missing here"
    assert _life(result, max(known)).split("\n")[-3] == missing
    head = " ".join(_explained(result, None, 1).split(":")[0].split())
    told = rf"M\d+, \d+ rounds? in what is left of its events; {lost} of all Ms' were overwritten before they could be "
    assert re.match(told, head)


def test_the_trace_has_a_track_for_each_m_and_p(ipclab: Run, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    assert ipclab("gmp", "sim", written(tmp_path, SHORT), "--procs", "2", "--trace", str(file)).returncode == 0
    trace = json.loads(file.read_text())
    events = trace["traceEvents"]
    tracks = {(one["pid"], one["tid"]): one["args"]["name"] for one in events if one["name"] == "thread_name"}
    slices = [one for one in events if one["ph"] == "X"]
    assert "P0" in tracks.values()
    assert "M1" in tracks.values()
    assert {(one["pid"], one["tid"]) for one in slices} <= tracks.keys()
    assert {"main G1", "ping G2", "pong G3"} == {one["name"] for one in slices if one["pid"] == 2 and one["cat"] == "G"}
    assert {"main G1", "ping G2", "pong G3"} <= {one["name"] for one in slices if one["pid"] == 1}
    steps = {(one["args"].get("job"), one["args"].get("reason", one["name"])): one["args"].get("step")
             for one in slices if one["pid"] == 1 and one["args"].get("ends", "block") == "block"}  # fmt: skip
    assert steps[None, "system call"] == "block 1ms"
    waits = {("ping", "chan send"): "send c 2", ("ping", "chan receive"): "recv c",
             ("pong", "chan send"): "send c 3", ("pong", "chan receive"): "recv c"}  # fmt: skip
    assert steps.items() & waits.items()
    assert all(waits.get(key, step) == step for key, step in steps.items())
    assert all(one["dur"] >= 0 and one["ts"] >= 0 for one in slices)
    for track in tracks:  # what runs on one P, or one M, never overlaps
        runs = sorted((one["ts"], one["ts"] + one["dur"]) for one in slices
                      if (one["pid"], one["tid"]) == track and one["cat"] == "G")  # fmt: skip
        assert all(end <= begin + 0.001 for (_b, end), (begin, _e) in itertools.pairwise(runs)), tracks[track]
    assert trace["otherData"]["ipclab"]["record"] == "gmp-sim"


def test_what_a_workload_says_is_no_order_to_the_terminal(ipclab: Run, tmp_path: Path) -> None:
    head = 'title = "red\\u001b[31m\\nred"\n[channels]\nc = 0\n'
    text = head + job('"recv\\u007f\\u009b c"')
    done = ipclab("gmp", "sim", written(tmp_path, text))
    assert (done.returncode, done.stdout) == (2, "")
    assert r'step 1 "recv\x7f\x9b c": unknown step' in done.stderr
    assert done.stderr.rstrip("\n").isprintable()
    text = text.replace("recv\\u007f\\u009b c", "recv\\u001f c")  # to Python, that is a space
    done = ipclab("gmp", "sim", written(tmp_path, text))
    assert done.stdout.startswith(r"red\x1b[31m\nred: model m:n")
    assert r"a: recv\x1f c; created by" in done.stdout
    assert "".join(done.stdout.split("\n")).isprintable()
    record = json.loads(ipclab("gmp", "sim", "work.toml", "--json").stdout)
    assert (record["workload"], record["waiting"][0]["step"]) == ("red\x1b[31m\nred", "recv\x1f c")
    strange = ipclab("gmp", "sim", "no\x1b[2Jsuch\x85.toml")
    assert (strange.returncode, strange.stderr.startswith(r"ipclab: cannot read no\x1b[2Jsuch")) == (1, True)
    assert strange.stderr.rstrip("\n").isprintable()


def test_a_trace_to_where_the_record_goes_leaves_the_record(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    for more, code in (["--trace", "/dev/stdout"], 0), (["--trace", "/dev/stdout", "-o", "out.json"], 2):
        with out.open("wb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "ipclab", "gmp", "sim", written(tmp_path, SHORT), "--json", *more],
                cwd=tmp_path, env=environment(tmp_path), stdout=file, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        assert done.returncode == code
        if code == 0:
            trace, end = json.JSONDecoder().raw_decode(out.read_text())
            assert "traceEvents" in trace
            assert json.loads(out.read_text()[end:])["record"] == "gmp-sim"
    assert out.read_text() == ""


# --- Go's own format -------------------------------------------------------------------------------------------------

N = r"-?\d+"
OR_NIL = r"(?:-?\d+|nil)"
BOOL = r"(?:true|false)"
HEAD = (
    rf"SCHED {N}ms: gomaxprocs={N} idleprocs={N} threads={N} spinningthreads={N} needspinning={N} idlethreads={N} "
    rf"runqueue={N}"
)
SHORT_LINE = re.compile(rf"{HEAD} \[ {N}(?: {N})* \] schedticks=\[ (?:{N} )+\]\n")
LONG_HEAD = re.compile(rf"{HEAD} gcwaiting={BOOL} nmidlelocked={N} stopwait={N} sysmonwait={BOOL}\n")
P_LINE = re.compile(
    rf"  P{N}: status={N} schedtick={N} syscalltick={N} m={OR_NIL} runqsize={N} gfreecnt={N} timerslen={N}\n"
)
M_LINE = re.compile(
    rf"  M{N}: p={OR_NIL} curg={OR_NIL} mallocing={N} throwing={N} preemptoff= locks={N} dying={N} spinning={BOOL} "
    rf"blocked={BOOL} lockedg={OR_NIL}\n"
)
G_LINE = re.compile(rf"  G{N}: status={N}\([a-zA-Z. ()-]*\) m={OR_NIL} lockedm={OR_NIL}\n")


def test_schedtrace_is_gos_line(ipclab: Run, tmp_path: Path) -> None:
    work = written(tmp_path, '[[job]]\nname = "a"\ncount = 3\nsteps = ["block 400ms"]\n')
    done = ipclab("gmp", "sim", work, "--procs", "3", "--schedtrace", "20")
    lines = done.stderr.splitlines(keepends=True)
    assert len(lines) >= 2
    for line in lines:
        assert SHORT_LINE.fullmatch(line), line
        assert "gomaxprocs=3" in line
        assert len(line.split("[ ")[1].split(" ]")[0].split()) == 3


def test_scheddetail_is_gos_text(ipclab: Run, tmp_path: Path) -> None:
    work = written(tmp_path, '[[job]]\nname = "a"\ncount = 3\nsteps = ["block 400ms"]\n')
    done = ipclab("gmp", "sim", work, "--procs", "2", "--schedtrace", "50", "--scheddetail")
    looks = re.split(r"(?=^SCHED )", done.stderr, flags=re.MULTILINE)[1:]
    assert looks
    for look in looks:
        head, *rest = look.splitlines(keepends=True)
        assert LONG_HEAD.fullmatch(head), head
        order = "".join(line[2] for line in rest)
        assert re.fullmatch(r"P+M+G+", order), look
        assert order.count("P") == 2
        for line in rest:
            assert {"P": P_LINE, "M": M_LINE, "G": G_LINE}[line[2]].fullmatch(line), line


# --- what it refuses -------------------------------------------------------------------------------------------------


def job(steps: str, more: str = "", name: str = "a") -> str:
    return f'[[job]]\nname = "{name}"\nsteps = [{steps}]\n{more}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            job('"yield", "comput 1ms"'),
            "job 'a', step 2 \"comput 1ms\": unknown step 'comput'; did you mean 'compute'?",
        ),
        (job('"yield"', 'count = "x"'), "job 1 'a', count: expected `int`, got `str`; docs/gmp-sim.md has every field"),
    ],
)
def test_a_wrong_workload_is_one_line_that_names_the_place(ipclab: Run, tmp_path: Path, text: str, words: str) -> None:
    done = ipclab("gmp", "sim", written(tmp_path, text))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ipclab: work.toml: {words}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "which workload?; a .toml file, or a name of `ipclab gmp sim --list`"),
        (["nosuch"], 2, "there is no workload 'nosuch'; a .toml file, or one of: "),
        (["nosuch.toml"], 1, "cannot read nosuch.toml: No such file or directory"),
        (["x" * 300], 1, "cannot read " + "x" * 300 + ": File name too long; `ipclab gmp sim --list`"),
        (["/dev/zero"], 2, "/dev/zero: it has more than 32 MiB; a workload is a short text"),
        ([""], 2, "the workload's name is empty; a .toml file, or one of: "),
        (["mixed", "--trace", "same", "-o", "./same"], 2, "--trace and -o both write same; two files"),
        (["mixed", "--procs", "257"], 2, "257 Ps: a segment holds 1 to 256"),
        (["mixed", "--procs", "2", "--model", "1:1"], 2, "1:1 has as many as there may be"),
        (["mixed", "--model", "2:2"], 2, "--model"),
        (["mixed", "--seed", "-1"], 2, "seed -1 is out of range"),
        (["mixed", "--schedtrace", "0"], 2, "--schedtrace 0 is no interval"),
        (["mixed", "--rounds", "3"], 2, "--rounds 3 alone shows nothing; with --explain, or --m ID"),
        (["--list", "mixed", "--seed", "0"], 2, "--list runs nothing: WORKLOAD.toml, --seed would do nothing"),
        (["mixed", "--rounds", "0"], 2, "--rounds 0 shows nothing"),
        (["mixed", "--trace", "no/folder.json"], 1, "cannot write no/folder.json: No such file or directory; name"),
    ],
)
def test_a_wrong_request(ipclab: Run, arguments: list[str], code: int, words: str) -> None:
    done = ipclab("gmp", "sim", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert words in line


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_a_deadlock_lists_everybody_and_is_1(ipclab: Run) -> None:
    done = ipclab("gmp", "sim", "philosophers")
    assert done.returncode == 1
    assert done.stderr.startswith("ipclab: all goroutines are asleep - deadlock! (3 waiting)")
    for number, (name, step) in enumerate((("plato", "fork2"), ("kant", "fork3"), ("laozi", "fork1")), 2):
        pattern = (
            rf"goroutine {number} \[sync\.Mutex\.Lock, [\d.]+ [mun]?s\] {name}: lock {step}; "
            rf"created by goroutine 1, main: spawn {name} 1\b"
        )
        assert re.search(pattern, " ".join(done.stdout.split())), done.stdout


def test_a_rule_of_go_broken_is_1(ipclab: Run, tmp_path: Path) -> None:
    done = ipclab("gmp", "sim", written(tmp_path, "[channels]\nc = 0\n" + job('"close c", "close c"')))
    assert done.returncode == 1
    assert "panic: close of closed channel (goroutine 2)" in done.stderr


@contextlib.contextmanager
def started(tmp: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A simulation that runs, and its processes: the template, then the Ms."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ipclab", "gmp", "sim", *arguments],
        env=environment(tmp),
        cwd=tmp,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        pids: list[int] = []
        until = time.monotonic() + TIMEOUT_S
        while len(pids) < 4 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
            templates = procfs.children(process.pid)
            pids = [*templates, *(pid for template in templates for pid in procfs.children(template))]
        yield process, pids
    finally:
        process.kill()
        process.communicate()


def gone(pids: list[int]) -> bool:
    """Whether all of them end: a zombie that only a foreign init can collect counts as gone."""
    until = time.monotonic() + TIMEOUT_S
    while any(procfs.state(pid) not in ("X", "Z") for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_a_killed_m_loses_its_g_and_that_is_said(tmp_path: Path) -> None:
    work = written(tmp_path, '[[job]]\nname = "a"\ncount = 2\nsteps = ["block 1500ms"]\n')
    with started(tmp_path, work, "--procs", "2") as (process, (_template, *ms)):
        victim = next(pid for pid in ms if in_nanosleep(pid))
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert re.fullmatch(r"ipclab: 1 G was lost, it died with the M that ran it: G[23]\n", err)
    assert re.search(r"^a +2 +1 +1 ", out, flags=re.MULTILINE), out
    assert "1 M died, 1 repair" in out


def in_nanosleep(pid: int) -> bool:
    """It sleeps in the G's own system call, once it does; a parked M and sysmon sleep on a futex."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        call = procfs.syscall(pid)
        if call and "nanosleep" in call:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_it_nothing_is_left(tmp_path: Path, how: signal.Signals) -> None:
    with started(tmp_path, written(tmp_path, LONG)) as (process, pids):
        process.send_signal(how)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
        assert gone(pids)


def test_ctrl_c_is_130_and_nothing_is_left(tmp_path: Path) -> None:
    with started(tmp_path, written(tmp_path, LONG)) as (process, pids):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to all of them
        _out, err = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, err) == (130, "")
        assert gone(pids)


def test_a_killed_template_is_1_and_nothing_is_left(tmp_path: Path) -> None:
    with started(tmp_path, written(tmp_path, LONG)) as (process, pids):
        os.kill(pids[0], signal.SIGKILL)
        _out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 1
        assert err.startswith("ipclab: the template process of the scheduler died")
        assert gone(pids)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (resource.RLIMIT_FSIZE, "File too large (gmp_create: EFBIG); raise RLIMIT_FSIZE"),
        (resource.RLIMIT_AS, "Cannot allocate memory (gmp_create: ENOMEM); raise RLIMIT_AS"),
    ],
)
def test_a_limit_of_the_shell_is_named(tmp_path: Path, limit: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ipclab", "gmp", "sim", "mixed"],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        preexec_fn=lambda: resource.setrlimit(limit, (1 << 30, 1 << 30)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ipclab: cannot make the segment for mixed: {words}")


def test_as_nobody(tmp_path: Path) -> None:
    place = Surroundings(name="gmp-as-nobody", nobody=True)
    if why := place.obstacle():
        pytest.skip(why)
    done = place.run(*in_surroundings("gmp", "sim", "locked"), timeout_s=TIMEOUT_S)
    assert (done.returncode, done.left) == (0, ()), done.text

"""Snapshots of schedulers that run: of one moment, from any of their processes, read-only, and with clear refusals."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from surroundings import Surroundings
from surroundings import ipclab as in_surroundings

from ipclab import _core, gmp
from ipclab.errors import IpclabError
from ipclab.gmp import Job, Workload
from ipclab.gmp.observer import attach, running
from ipclab.gmp.state import record_of
from ipclab.processes import procfs
from ipclab.records.gmp import SchedSnapshot
from ipclab.views.gmp_snapshot import snapshot_report
from ipclab.views.medium import Medium

LONG_S = 60.0

BUSY = Workload(
    channels={"c": 2, "never": 0},
    mutexes=["m"],
    jobs=[
        Job("pair", ["send c", "recv c", "yield"], count=4, repeat=1 << 30),
        Job("sleeper", ["sleep 200us", "spawn child 5"], count=2, repeat=1 << 30),
        Job("child", ["yield"], count=0),
        Job("blocker", ["block 2ms"], count=2, repeat=1 << 30),
        Job("holder", ["lock m", "recv never"]),
        Job("asker", ["lock m"], at="1ms"),
    ],
)


@pytest.fixture
def sim() -> Iterator[gmp.Simulation]:
    """Busy, on two Ps, and never done."""
    work = Workload(**{**{f: getattr(BUSY, f) for f in BUSY.__struct_fields__}, "jobs": [*BUSY.jobs]})
    # sleepers would spawn more than a workload may: what is looked at is over long before that
    jobs = [Job(j.name, j.steps, count=j.count, at=j.at, repeat=100_000 if j.name == "sleeper" else j.repeat)
            for j in work.jobs]  # fmt: skip
    with gmp.Simulation(Workload(jobs, channels=BUSY.channels, mutexes=BUSY.mutexes), procs=2) as running:
        until = time.monotonic() + LONG_S
        while not running.snapshot().semaphores[0].q:  # the asker waits for the holder: by then all others are at it
            assert time.monotonic() < until
            assert not running.wait(0.01)
        yield running


def check(seen: SchedSnapshot) -> None:
    """What holds in one moment and in no mixture of two."""
    assert seen.consistent, seen.notes
    assert seen.gs_left_out == 0
    status = {g.goid: g.status for g in seen.gs if g.status not in ("_Gdead", "_Gidle")}
    queued = [*seen.runq, *(goid for p in seen.ps for goid in [*p.runq, *([p.runnext] if p.runnext else [])])]
    assert max(Counter(queued).values(), default=1) == 1
    assert set(queued) == {goid for goid, one in status.items() if one == "_Grunnable"}
    assert len(seen.runq) == seen.sched["runq.size"]
    assert len(seen.midle) == seen.sched["nmidle"]
    assert len(seen.pidle) == seen.sched["npidle"]
    ms = {m.id: m for m in seen.ms}
    for g in seen.gs:
        if g.status in ("_Grunning", "_Gsyscall"):
            assert g.m is not None
            assert ms[g.m].curg == g.goid
    for p in seen.ps:
        if p.status == "_Prunning":
            assert p.m is not None
            assert ms[p.m].p == p.id
    sleeping = {goid for p in seen.ps for goid in p.timers}
    assert sleeping == {g.goid for g in seen.gs if g.status == "_Gwaiting" and g.waitreason == "sleep"}
    channel = seen.channels[0]
    assert not (channel.recvq and channel.buffered)
    assert not channel.sendq or channel.buffered == channel.capacity


def test_every_snapshot_is_of_one_moment(sim: gmp.Simulation) -> None:
    for _each in range(20):
        seen = sim.snapshot(most=1 << 20)
        check(seen)
        assert seen.stopped_ns is not None
    (mutex,) = seen.semaphores
    assert (mutex.kind, mutex.value, len(mutex.q)) == ("mutex", 1, 1)
    assert seen.channels[1].recvq == (mutex.holder,)


def test_any_of_its_processes_leads_to_it(sim: gmp.Simulation) -> None:
    before = sim.snapshot()
    for pid in (os.getpid(), sim.template_pid, *list(sim.ms().values())[:2]):
        seen = gmp.snapshot(pid)
        assert seen.consistent, seen.notes
        assert (seen.caller_pid, seen.template_pid) == (os.getpid(), before.template_pid)
        assert seen.sched["starttime"] == before.sched["starttime"]
    assert os.getpid() in [one.caller_pid for one in running()]


def test_a_snapshot_cannot_write(sim: gmp.Simulation) -> None:
    with contextlib.closing(attach(sim.template_pid)) as look:
        for change in (lambda: look.chan(1), look.stop, lambda: look.set_procs(1), lambda: look.start(0)):
            with pytest.raises(RuntimeError, match="only looked at"):
                change()
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:ipclab" in line]
        assert any(line.split()[1] == "r--s" for line in mapped), mapped


def test_no_word_of_sched_is_parted_from_its_value(sim: gmp.Simulation) -> None:
    seen = sim.snapshot(0)
    for columns in range(40, 120):
        text = snapshot_report(seen, Medium(columns=columns))
        assert all(re.search(rf"\b{re.escape(name)} {value}\b", text) for name, value in seen.sched.items())


def test_a_bounded_snapshot_says_what_it_left_out(sim: gmp.Simulation) -> None:
    seen = sim.snapshot(most=3)
    assert len(seen.gs) == 3
    assert seen.gs_left_out > 0
    assert seen.consistent


def test_a_stopped_m_is_named(sim: gmp.Simulation) -> None:
    victim = next(pid for pid in sim.ms().values() if pid != sim.sysmon_pid())
    os.kill(victim, signal.SIGSTOP)
    until = time.monotonic() + LONG_S
    while procfs.state(victim) != "T" and time.monotonic() < until:
        time.sleep(0.001)
    seen = sim.snapshot()  # consistent, if it was stopped outside the runtime
    assert any(f"(pid {victim}) is " in note for note in seen.notes)
    assert seen.consistent or "does not come out" in seen.notes[0]
    os.kill(victim, signal.SIGCONT)
    check(sim.snapshot(most=1 << 20))


def test_a_stopped_world_is_looked_at_and_said_to_be_so() -> None:
    jobs = [Job("serial", ["stopworld 1000s"]), Job("other", ["compute 1ms", "yield"], repeat=1 << 30)]
    work = Workload(jobs, channels={"c": 0})
    with gmp.Simulation(work, procs=2) as sim:
        seen, until = sim.snapshot(), time.monotonic() + LONG_S
        while not (seen.sched["gcwaiting"] and not seen.sched["stopwait"]) and time.monotonic() < until:
            time.sleep(0.01)
            seen = sim.snapshot()
        began = time.monotonic()
        seen = sim.snapshot()
        took = time.monotonic() - began
        check(seen)
        (stopper,) = [m for m in seen.ms if m.curg is not None]
        assert {p.status for p in seen.ps} == {"_Pgcstop"}
        assert (stopper.where, stopper.pid) == ("user", sim.ms()[stopper.id])
        (note,) = [note for note in seen.notes if "world" in note]
        assert re.fullmatch(rf"the world is stopped, by M{stopper.id} \(pid {stopper.pid}\), for [\d.e-]+ s now", note)
        assert took < 5  # it waits for nobody; a second where something is stopped
        victim = next(m for m in seen.ms if m.role == "M" and m.id != stopper.id)
        os.kill(victim.pid, signal.SIGKILL)
        while not (repairs := sim.snapshot().sched["repairs"]) and time.monotonic() < until:
            time.sleep(0.01)
        assert repairs == 1  # nor does the repair
        assert sim.snapshot().sched["gcwaiting"]


def test_a_stopped_template_makes_it_a_look_without_a_promise(sim: gmp.Simulation) -> None:
    os.kill(sim.template_pid, signal.SIGSTOP)
    seen = sim.snapshot()
    assert not seen.consistent
    assert seen.stopped_ns is None
    assert f"the template (pid {sim.template_pid}) does not answer; it is in state T" in seen.notes[0]
    os.kill(sim.template_pid, signal.SIGCONT)
    assert sim.snapshot().consistent


def test_an_observer_killed_in_the_middle_stops_nobody(sim: gmp.Simulation) -> None:
    look = "from ipclab import gmp; import sys\nwhile True: gmp.snapshot(int(sys.argv[1]))"
    for wait_s in (0.3, 0.35, 0.4):
        observer = subprocess.Popen([sys.executable, "-c", look, str(sim.template_pid)])
        time.sleep(wait_s)  # somewhere in the middle
        observer.kill()
        observer.wait()
        assert sim.snapshot().consistent
    before = sum(sim._sched.tally(number)[1] for number in range(sim._sched.sched_fields()["nprograms"]))
    until = time.monotonic() + LONG_S
    while time.monotonic() < until:
        if sum(sim._sched.tally(n)[1] for n in range(sim._sched.sched_fields()["nprograms"])) > before:
            return
    pytest.fail("nothing goes on")


# --- refusals --------------------------------------------------------------------------------------------------------


def segment(kind: int = 3, version: int = 1, magic: int = 0x0000424C4C435049, size: int = 1 << 16) -> int:
    """A memfd that looks like a scheduler's, with its header wrong."""
    fd = os.memfd_create("ipclab", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 16)
    os.pwrite(fd, struct.pack("<QIIQQQQ", magic, version, kind, 4096, size, 0, 0), 0)
    return fd


@pytest.mark.parametrize(
    ("made", "number", "words"),
    [
        ({"version": 7}, errno.EPROTO, "was made by another version of ipclab"),
        ({}, errno.EPROTO, "was made by another version of ipclab"),  # of a build with other records
        ({"size": 1 << 30}, errno.ENODATA, "is shorter than it says it is"),
    ],
)
def test_a_segment_that_is_not_ours_is_refused(made: dict[str, int], number: int, words: str) -> None:
    fd = segment(**made)
    try:
        with pytest.raises(IpclabError, match=words) as told:
            gmp.snapshot(os.getpid())
        assert told.value.errno == number
    finally:
        os.close(fd)


def test_a_segment_with_offsets_that_lead_out_of_it_is_refused() -> None:
    real = _core.Sched(procs=1, maxg=100, maxm=4)
    size = os.fstat(real.fileno()).st_size
    fd = os.memfd_create("ipclab", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    head = bytearray(os.pread(real.fileno(), 4096, 0))
    os.pwrite(fd, head, 0)
    _core.Sched.attach(fd).close()  # as it is, it is taken
    for at in range(64, 512, 8):
        changed = bytearray(head)
        changed[at : at + 8] = b"\xff" * 8
        os.pwrite(fd, changed, 0)
        with contextlib.suppress(OSError):
            look = _core.Sched.attach(fd)
            look.sched_fields()
            look.p_fields(255)
            look.schedtrace(True)
            look.close()
    os.close(fd)
    real.close()


def test_a_segment_whose_lists_lead_nowhere_is_refused() -> None:
    """A copy of a good one, in which one word is another: whichever it is, it is read or refused."""
    with gmp.Simulation(Workload([Job("a", ["block 10s"])]), procs=2, maxg=1000, maxm=20) as sim:
        sim.wait(0.05)
        size = os.fstat(sim.fileno()).st_size
        begin = os.pread(sim.fileno(), 1 << 16, 0)
        rest = os.pread(sim.fileno(), min(size, 1 << 20) - len(begin), len(begin))
    refused: set[str] = set()
    fd = os.memfd_create("ipclab", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, begin + rest, 0)
        for place in range(64, 4096, 4):
            os.pwrite(fd, b"\x1e\0\0\0", place)
            with contextlib.suppress(OSError), contextlib.closing(_core.Sched.attach(fd)) as sched:
                try:
                    record_of(sched, consistent=False)
                except IpclabError as err:
                    refused.add(str(err))
            os.pwrite(fd, begin[place : place + 4], place)
    finally:
        os.close(fd)
    assert refused
    assert all("the scheduler's state contradicts itself: there is no " in text for text in refused)


def test_who_has_no_scheduler_is_refused() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(IpclabError, match=f"process {child.pid} has no scheduler"):
            gmp.snapshot(child.pid)
    finally:
        child.communicate(b"\n")
    with pytest.raises(IpclabError, match=f"there is no process {child.pid}"):
        gmp.snapshot(child.pid)


def test_another_uid_is_refused(sim: gmp.Simulation) -> None:
    place = Surroundings(name="snapshot-as-nobody", nobody=True)
    if why := place.obstacle():
        pytest.skip(why)
    done = place.run(*in_surroundings("gmp", "snapshot", str(sim.template_pid)), timeout_s=LONG_S)
    assert (done.returncode, done.out) == (1, "")
    assert f"process {sim.template_pid} is another user's" in done.err
    assert len(done.err.splitlines()) == 1


# --- the command -----------------------------------------------------------------------------------------------------


def ipclab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ipclab", "gmp", "snapshot", *arguments],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


def test_the_command_prints_every_field(sim: gmp.Simulation) -> None:
    done = ipclab(str(sim.template_pid))
    assert (done.returncode, done.stderr) == (0, "")
    head, _sched, *_rest = done.stdout.split("\n\n")
    assert head.startswith(f"model m:n, caller {os.getpid()}, template {sim.template_pid}, running (one moment; ")
    for word in ("gomaxprocs 2", "P0", "P1", "M0", "sysmon", "chan receive", "sync.Mutex.Lock"):
        assert word in done.stdout
    record = json.loads(ipclab(str(sim.template_pid), "--json").stdout)
    assert record["record"] == "gmp-snapshot"
    one = sim._sched
    assert record["sched"].keys() == one.sched_fields().keys()
    assert record["ps"][0]["fields"].keys() == one.p_fields(0).keys()
    assert record["ms"][0]["fields"].keys() == one.m_fields(1).keys()
    assert record["gs"][0]["fields"].keys() == one.g_fields(1).keys()


@pytest.mark.parametrize(("gigabytes", "words"), [(1, "cannot map"), (6, "cannot copy")])
def test_too_little_address_space_is_said(sim: gmp.Simulation, gigabytes: int, words: str) -> None:
    look = subprocess.run(
        [sys.executable, "-m", "ipclab", "gmp", "snapshot", str(sim.template_pid)],
        capture_output=True, text=True, timeout=LONG_S, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30)),
    )  # fmt: skip
    assert (look.returncode, look.stdout) == (1, "")
    assert look.stderr.startswith(
        f"ipclab: {words} the scheduler's segment of process {sim.template_pid}: Cannot allocate"
    )
    assert "; raise RLIMIT_AS (ulimit -v)" in look.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["0"], 2, "0 is no process"),
        (["four"], 2, "'four' is not a valid integer"),
        (["1", "--gs", "-1"], 2, "--gs -1 is out of range"),
        (["4194305"], 1, "there is no process 4194305"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], code: int, words: str) -> None:
    done = ipclab(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1

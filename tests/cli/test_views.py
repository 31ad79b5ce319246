"""Drawing: records in, text out; what a terminal, a pipe and a plain terminal get."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable

import msgspec
import pytest
from command_line import terminal

from ipclab.records import (
    CleanReport,
    Demo,
    DemoList,
    DemoReport,
    DemoRun,
    DemoStatus,
    DoctorReport,
    Fact,
    Instrument,
    Leftover,
    Limit,
    Mechanism,
    MechanismList,
    MechanismStatus,
    Package,
    Probe,
)
from ipclab.views.clean import clean_table
from ipclab.views.doctor import doctor_table
from ipclab.views.medium import Medium, about, medium_of, plain, quantity, wrap
from ipclab.views.runs import remains, runs_table
from ipclab.views.tree import demo_tree, mechanism_page, mechanism_tree

LONG = "a word " * 40 + "/a/path/that/is/not/to/be/cut/because/somebody/wants/to/copy/it/whole/from/here/to/the/end"

PIPE = MechanismStatus(
    mechanism=Mechanism(
        name="pipe",
        family="data transfer",
        summary="a stream",
        lifetime="process",
        go="os.Pipe",
        boundaries=False,
        duplex=False,
        man_pages=("pipe(7)", "pipe(2)"),
    ),
    probe=Probe(works=True),
    limits=(Limit(name="capacity", value=65536, unit="bytes", source="F_GETPIPE_SZ"),),
    page="pipe: a page.\n\nWhat it is. Words.\n\n    a --> b",
)
SYSV = MechanismStatus(
    mechanism=Mechanism(name="sysv-sem", family="synchronisation", summary=LONG, lifetime="kernel"),
    probe=Probe(works=False, reason="needs sysv_ipc", remedy="pip install 'ipclab[sysv]'"),
    limits=(Limit(name="sets", value=None, unit="", source="cannot read /proc/sys/kernel/sem"),),
)
WEAK = MechanismStatus(
    mechanism=Mechanism(name="posix-mq", family="data transfer", summary="a queue", lifetime="kernel"),
    probe=Probe(works=True, reason="only 10 messages", remedy="sysctl fs.mqueue.msg_max"),
)
MECHANISMS = MechanismList(mechanisms=(PIPE, WEAK, SYSV))
DEMO = Demo(name="a-demo", summary=LONG, family="comparison", needs=("pipe",), better_with=(), path="/demos/a_demo.py")
RUN = DemoRun(name="a-demo", status="passed", verdict=LONG, duration_ns=1_500_000_000, exit_code=0, signal=None)
LEFT = Leftover(kind="posix-shm", name="/ipclab-1-2-x-1", owner_pid=4711)
DOCTOR = DoctorReport(
    version="1.2.3",
    facts=(
        Fact(group="machine", name="kernel", value="6.1", note="old"),
        Fact(group="memory and queues", name="/dev/shm free", value=67108865, unit="bytes"),
        Fact(group="memory and queues", name="/dev/mqueue", value=False, note="not mounted"),
        Fact(group="processors", name="cgroup quota", value=0.5, unit="CPUs"),
        Fact(group="processors", name="online", value=None),
        Fact(group="python", name="version", value="3.11.7"),
    ),
    limits=(
        Limit(name="nofile", value=1024, unit="files", source="soft"),
        Limit(name="nofile (hard)", value=4096, unit="files", source="hard"),
        Limit(name="nproc", value=None, unit="processes", source="soft"),
        Limit(name="nproc (hard)", value=None, unit="processes", source="hard"),
    ),
    packages=(
        Package(name="click", version="8.1"),
        Package(name="sysv_ipc", version=None, extra="sysv", remedy="pip install 'ipclab[sysv]'"),
    ),
    runtime_dir="/tmp/ipclab-1000",
    leftovers=(LEFT,),
    instruments=(Instrument(name="mechanisms", standing="reduced", working=2, total=3),),
    mechanisms=(PIPE, WEAK, SYSV),
    demos=(
        DemoStatus(demo=DEMO, standing="not here", reason="needs sysv-sem: needs sysv_ipc", remedy="pip install it"),
        DemoStatus(demo=msgspec.structs.replace(DEMO, name="other"), standing="runs"),
    ),
)

DRAWINGS: dict[str, Callable[[Medium], str]] = {
    "mechanisms": lambda medium: mechanism_tree(MECHANISMS, medium),
    "page": lambda medium: mechanism_page(SYSV, medium),
    "demos": lambda medium: demo_tree(DemoList(demos=DOCTOR.demos), medium),
    "runs": lambda medium: runs_table(DemoReport(runs=(RUN, RUN)), medium),
    "doctor": lambda medium: doctor_table(DOCTOR, medium),
    "clean": lambda medium: clean_table(CleanReport(dry_run=False, leftovers=(LEFT,)), medium),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
class TestEveryDrawing:
    def test_is_plain_where_nothing_else_is_known(self, draw: Callable[[Medium], str]) -> None:
        text = draw(Medium())
        assert text.isascii()
        assert "\x1b" not in text
        assert text.endswith("\n")
        assert not re.search(r"[ \t]$", text, flags=re.MULTILINE)

    @pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
    def test_keeps_to_the_width(self, draw: Callable[[Medium], str], columns: int) -> None:
        for line in draw(Medium(columns=columns, colour=True, unicode=True)).splitlines():
            # The narrowest column is 20 wide, and a word that is longer than its column stays whole.
            assert len(plain(line)) <= max(columns, 60) or "/" in line or len(plain(line).split()) < 4, line

    def test_colour_and_lines_add_no_fact(self, draw: Callable[[Medium], str]) -> None:
        drawn = plain(draw(Medium(colour=True, unicode=True)))
        for fancy, ascii_ in (("├── ", "|-- "), ("└── ", "`-- "), ("│   ", "|   ")):
            drawn = drawn.replace(fancy, ascii_)
        assert "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n" == draw(Medium())


def test_the_tree_of_mechanisms() -> None:
    found = MechanismList(mechanisms=(msgspec.structs.replace(PIPE, limits=()), WEAK))
    assert mechanism_tree(found, Medium()).splitlines() == [
        "communication by data transfer",
        "|-- pipe      works    a stream",
        "|                      Go: os.Pipe",
        "`-- posix-mq  reduced  a queue",
        "                       why: only 10 messages",
        "                       remedy: sysctl fs.mqueue.msg_max",
        "",
        "2 of 2 work here; Go's standard library offers 1",
    ]


def test_limits_are_exact_and_name_their_source() -> None:
    text = mechanism_tree(MECHANISMS, Medium(columns=200))
    assert "limit: capacity: 64 KiB (F_GETPIPE_SZ)" in text
    assert "limit: sets: none (cannot read /proc/sys/kernel/sem)" in text


def test_a_page_has_the_facts_and_the_text() -> None:
    text = mechanism_page(PIPE, Medium())
    assert "  here        works\n" in text
    assert "  in Go       os.Pipe\n" in text
    assert "  manual      pipe(7), pipe(2)\n" in text
    assert text.endswith("What it is. Words.\n\n    a --> b\n")


def test_the_doctor_says_what_why_and_how() -> None:
    lines = [" ".join(line.split()) for line in doctor_table(DOCTOR, Medium()).splitlines()]
    for line in (
        "kernel 6.1 (old)",
        "/dev/shm free 64 MiB",
        "/dev/mqueue no (not mounted)",
        "cgroup quota 0.5 CPUs",
        "online unknown",
        "sysv_ipc missing, only needed for the extra sysv: pip install 'ipclab[sysv]'",
        "nofile 1024 files, can be raised to 4096 files",
        "nproc unlimited",
        "leftovers 1 of dead owners: `ipclab clean` removes them",
        "mechanisms reduced 2 of 3 work here",
        "sysv-sem not here needs sysv_ipc",
        "a-demo not here needs sysv-sem: needs sysv_ipc",
        "remedy: pip install it",
        "other runs",
    ):
        assert line in lines


def test_what_was_cleaned() -> None:
    assert clean_table(CleanReport(dry_run=False, leftovers=()), Medium()) == "nothing to clean\n"
    stuck = Leftover(kind="sysv-shm", name="0x1b000001", owner_pid=5, error="EPERM: Operation not permitted")
    foreign = Leftover(kind="journal", name="1-2-3.journal", owner_pid=2, error="another pid namespace")
    assert clean_table(CleanReport(dry_run=False, leftovers=(LEFT, stuck, foreign)), Medium()).splitlines() == [
        "removed  posix-shm  /ipclab-1-2-x-1: its owner, process 4711, is dead",
        "not removed  sysv-shm   0x1b000001: EPERM: Operation not permitted",
        "left alone  journal    1-2-3.journal: another pid namespace",
        "1 object removed, 2 not",
    ]
    assert "1 object would be removed" in clean_table(CleanReport(dry_run=True, leftovers=(LEFT,)), Medium())


def test_what_a_run_left_is_told() -> None:
    run = msgspec.structs.replace(RUN, orphans=2, leftovers=(LEFT,))
    assert remains(run, Medium()).splitlines() == [
        "a-demo: 2 of its processes outlived it and were ended",
        "a-demo: left posix-shm /ipclab-1-2-x-1 behind, removed",
    ]
    assert remains(RUN, Medium()) == ""


# --- the medium ------------------------------------------------------------------------------------------------------


def test_a_pipe_is_100_columns_of_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert medium_of(stream, {"TERM": "xterm", "COLUMNS": "30"}) == Medium(columns=100, colour=False, unicode=False)


@pytest.mark.parametrize(
    ("env", "encoding", "expected"),
    [
        ({"TERM": "xterm"}, "utf-8", Medium(columns=72, colour=True, unicode=True)),
        ({"TERM": "xterm"}, "ascii", Medium(columns=72, colour=True, unicode=False)),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "utf-8", Medium(columns=72, colour=False, unicode=True)),
        ({"TERM": "xterm", "NO_COLOR": ""}, "utf-8", Medium(columns=72, colour=True, unicode=True)),
        ({"TERM": "dumb"}, "utf-8", Medium(columns=72, colour=False, unicode=True)),
        ({}, "utf-8", Medium(columns=72, colour=False, unicode=True)),
        ({"COLUMNS": "120"}, "utf-8", Medium(columns=120, colour=False, unicode=True)),
        ({"COLUMNS": "3"}, "utf-8", Medium(columns=40, colour=False, unicode=True)),
    ],
)
def test_a_terminal(env: dict[str, str], encoding: str, expected: Medium) -> None:
    with terminal(72) as (_ours, theirs), os.fdopen(os.dup(theirs), "w", encoding=encoding) as stream:
        assert medium_of(stream, env) == expected


def test_wrap_hangs_and_never_cuts() -> None:
    long = "x" * 50
    assert wrap(f"one two {long}", Medium(columns=40), "- ", "  ") == ["- one two", f"  {long}"]
    assert wrap("", Medium(), "- ", "  ") == ["-"]


@pytest.mark.parametrize(
    ("value", "unit", "exact", "rounded"),
    [
        (0, "bytes", "0 bytes", "0 bytes"),
        (1, "files", "1 file", "1 file"),
        (65535, "bytes", "65535 bytes", "64 KiB"),
        (65536, "bytes", "64 KiB", "64 KiB"),
        (3 << 29, "bytes", "1536 MiB", "1.5 GiB"),
        (7, "", "7", "7"),
    ],
)
def test_quantities(value: int, unit: str, exact: str, rounded: str) -> None:
    assert quantity(value, unit) == exact
    assert about(value, unit) == rounded

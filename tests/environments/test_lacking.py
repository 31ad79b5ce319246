"""Where something is lacking altogether: the demos that need it say so in one clear line, and leave nothing.

No permission, no room, no queue, no network, no descriptors: alone a demo meets the kernel's refusal itself, through
`ipclab demo` it is not started where the probe of what it needs says no. Neither ever shows a traceback.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from surroundings import Surroundings, Visit, ipclab

DEMOS = Path(__file__).resolve().parents[2] / "demos"
PAGE = 4096

#: What is lacking, the demos that meet it, and what `ipclab demo` says of them.
LACKING: tuple[tuple[Surroundings, tuple[str, ...], str], ...] = (
    (Surroundings(name="shm-closed", nobody=True, shm_mode=0o700), ("posix-shm", "semaphore", "fastest"), "not here"),
    (Surroundings(name="shm-one-page", shm_bytes=PAGE), ("semaphore", "fastest"), "FAILED"),
    (Surroundings(name="no-network", network=False), ("tcp", "udp"), "not here"),
    (Surroundings(name="no-sysv", no_sysv=True), ("sysv-mq", "sysv-shm"), "not here"),
    (Surroundings(name="no-queue-memory", nobody=True, limits=("msgqueue=0",)), ("posix-mq",), "not here"),
    (Surroundings(name="24-files", nobody=True, limits=("nofile=24:24",)), ("pipe", "boundaries"), "FAILED"),
    (Surroundings(name="12-files", nobody=True, limits=("nofile=12:12",)), ("pipe", "memfd", "semaphore"), "FAILED"),
)
CASES = [pytest.param(place, name, word, id=f"{place.name}-{name}") for place, names, word in LACKING for name in names]


def last_line(place: Surroundings, *command: str) -> tuple[int, str]:
    """The exit code and the last line of a command in that place; checked: no traceback, and nothing left."""
    if why := place.obstacle():
        pytest.skip(why)
    done: Visit = place.run(*command)
    assert "Traceback" not in done.text, done.text
    assert done.left == (), f"left behind: {done.left}\n{done.text}"
    assert "behind" not in done.text, done.text
    return done.returncode, done.out.rstrip().rpartition("\n")[2]


@pytest.mark.parametrize(("place", "name", "word"), CASES)
def test_a_demo_through_the_command(place: Surroundings, name: str, word: str) -> None:
    code, line = last_line(place, *ipclab("demo", name))
    assert code == 1
    assert line.startswith(f"{name}: {word}: "), line


@pytest.mark.parametrize(("place", "name", "word"), CASES)
def test_a_demo_alone(place: Surroundings, name: str, word: str) -> None:
    code, line = last_line(place, sys.executable, str(DEMOS / f"{name.replace('-', '_')}.py"))
    assert code in (1, 77)
    assert re.match(f"{name}: (FAILED|not here): ", line), line


def test_full_tables_are_told_of_every_sysv_mechanism() -> None:
    pytest.importorskip("sysv_ipc")
    place = Surroundings(name="no-sysv", no_sysv=True)
    if why := place.obstacle():
        pytest.skip(why)
    done = place.run(*ipclab("list", "--json"))
    reasons = {
        status["mechanism"]["name"]: status["probe"]["reason"] for status in json.loads(done.out)["mechanisms"]
    }
    for name in ("sysv-mq", "sysv-shm", "sysv-sem"):
        assert re.fullmatch(r"all 0 SysV \w+ of this machine are in use", reasons[name]), reasons[name]


def test_what_can_do_without_does_without() -> None:
    place = Surroundings(name="no-queue-memory", nobody=True, limits=("msgqueue=0",))
    for name in ("boundaries", "signals"):
        code, line = last_line(place, *ipclab("demo", name))
        assert (code, "FAILED" in line) == (0, False), line

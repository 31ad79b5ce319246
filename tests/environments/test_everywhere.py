"""The commands and demos wherever they must run: another user, little memory, missing parts, few rights, little CPU.

In each place `doctor` and `list` end with 0 and the demos that depend on what is different there end with a verdict:
passed, or not here with a reason; never a traceback, never something left. All demos run in the two hardest places.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from surroundings import Surroundings, Visit, ipclab

MIB = 1 << 20

#: Each place with the demos to which its difference matters.
PLACES: tuple[tuple[Surroundings, tuple[str, ...]], ...] = (
    (Surroundings(name="as-nobody", nobody=True), ("posix-mq", "sysv-shm", "robust-mutex", "unix-socket")),
    (Surroundings(name="plain-text", plain=True), ("pipe", "boundaries", "execution-units")),
    (Surroundings(name="read-only-folder", read_only=True, nobody=True), ("fifo", "file-lock", "memfd")),
    (Surroundings(name="shm-64M", shm_bytes=64 * MIB), ("posix-shm", "ring", "fastest")),
    (Surroundings(name="shm-1M", shm_bytes=MIB), ("posix-shm", "ring", "semaphore", "memfd", "robust-mutex")),
    (Surroundings(name="no-mqueue", hide_mqueue=True), ("posix-mq", "boundaries", "signals")),
    (Surroundings(name="no-ptrace", without=("sys_ptrace",)), ("execution-units", "pipe", "signals")),
    (Surroundings(name="half-a-cpu", cpu_quota=0.5), ("pipe", "sigchld", "ring")),
    (Surroundings(name="one-cpu", one_cpu=True), ("ring", "semaphore", "eventfd")),
    (Surroundings(name="no-user-namespaces", user_namespaces=False), ("pipe", "unix-socket")),
)

#: Everything a container takes away, as root and as a user; here all demos run.
HARDEST: tuple[Surroundings, ...] = (
    Surroundings(
        name="container",
        shm_bytes=64 * MIB,
        hide_mqueue=True,
        without=("sys_ptrace", "sys_admin", "sys_nice", "net_admin"),
        own_pids=True,
        plain=True,
    ),
    Surroundings(name="user", nobody=True, shm_bytes=64 * MIB, hide_mqueue=True, read_only=True, plain=True),
)


def visit(place: Surroundings, *arguments: str, timeout_s: float = 60.0) -> Visit:
    """Run `ipclab ARGUMENTS` in a place and check what holds for every command in every place."""
    if why := place.obstacle():
        pytest.skip(why)
    done = place.run(*ipclab(*arguments), timeout_s=timeout_s)
    assert "Traceback" not in done.text, done.text
    assert "\x1b" not in done.text, "an escape sequence, and no terminal"
    assert done.left == (), f"left behind: {done.left}\n{done.text}"
    return done


def by_name(place: Surroundings) -> str:
    return place.name


@pytest.mark.parametrize("place", [place for place, _demos in PLACES] + list(HARDEST), ids=by_name)
class TestEverywhere:
    def test_doctor_examines(self, place: Surroundings) -> None:
        done = visit(place, "doctor")
        assert done.returncode == 0, done.text
        assert re.search(r"\b(runs|reduced|not here)\b", done.out)

    def test_doctor_as_a_record(self, place: Surroundings) -> None:
        done = visit(place, "doctor", "--json")
        assert done.returncode == 0, done.text
        assert isinstance(json.loads(done.out), dict)

    def test_list_lists(self, place: Surroundings) -> None:
        done = visit(place, "list")
        assert done.returncode == 0, done.text
        assert "pipe" in done.out

    def test_nothing_is_there_to_clean(self, place: Surroundings) -> None:
        done = visit(place, "clean", "--dry-run")
        assert done.returncode == 0, done.text


def demo_runs(place: Surroundings, *names: str, timeout_s: float = 60.0) -> list[dict[str, Any]]:
    """Run demos there; the records of their runs, each checked for what holds everywhere."""
    done = visit(place, "demo", "--json", *names, timeout_s=timeout_s)
    runs: list[dict[str, Any]] = json.loads(done.out)["runs"]
    assert "FAILED" not in done.err, done.err
    for run in runs:
        assert run["status"] in {"passed", "not here"}, f"{run}\n{done.err}"
        assert run["verdict"], "a demo ends with one line of verdict"
        assert (run["orphans"], run["leftovers"]) == (0, []), f"{run}\n{done.err}"
    return runs


@pytest.mark.parametrize(
    ("place", "demo"),
    [pytest.param(place, demo, id=f"{place.name}-{demo}") for place, demos in PLACES for demo in demos],
)
def test_a_demo_comes_to_its_verdict(place: Surroundings, demo: str) -> None:
    (run,) = demo_runs(place, demo)
    assert run["status"] == "passed", run["verdict"]


@pytest.mark.parametrize("place", HARDEST, ids=by_name)
def test_all_demos_in_the_hardest_places(place: Surroundings) -> None:
    runs = demo_runs(place, timeout_s=200)
    absent = [run for run in runs if run["status"] == "not here"]
    assert len(absent) < len(runs) / 4, f"most demos need nothing a container lacks: {absent}"

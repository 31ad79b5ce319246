"""The doctor's facts: right where they can be read, and never an error where they cannot."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from ipclab.machine import cgroups, facts


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of our own with an empty self."""
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path / "proc"


def hierarchy(proc: Path, point: Path, kind: str, options: str, root: str = "/") -> None:
    """Mount a hierarchy in the imitated /proc."""
    point.mkdir(parents=True, exist_ok=True)
    shown = str(point).replace(" ", "\\040")
    with open(proc / "self/mountinfo", "a") as file:
        file.write(f"31 23 0:28 {root} {shown} rw,relatime shared:9 - {kind} {kind} {options}\n")


def belongs(proc: Path, *lines: str) -> None:
    (proc / "self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_version_2_the_smallest_on_the_way_up_holds(proc: Path, tmp_path: Path) -> None:
    point = tmp_path / "sys fs/cgroup"
    hierarchy(proc, point, "cgroup2", "rw,nsdelegate")
    belongs(proc, "0::/user/slice/mine")
    write(point / "user/slice/mine/cpu.max", "max 100000\n")
    write(point / "user/slice/cpu.max", "150000 100000\n")
    write(point / "user/cpu.max", "400000 100000\n")
    write(point / "user/pids.max", "33\n")
    assert cgroups.cpu_quota(proc) == (1.5, str(point / "user/slice/cpu.max"))
    assert cgroups.pids_max(proc) == (33, str(point / "user/pids.max"))


def test_version_1(proc: Path, tmp_path: Path) -> None:
    cpu, pids = tmp_path / "cpu", tmp_path / "pids"
    hierarchy(proc, cpu, "cgroup", "rw,cpu,cpuacct")
    hierarchy(proc, pids, "cgroup", "rw,pids")
    belongs(proc, "4:cpu,cpuacct:/docker/1", "3:pids:/docker/1", "0::/")
    write(cpu / "docker/1/cpu.cfs_quota_us", "50000\n")
    write(cpu / "docker/1/cpu.cfs_period_us", "100000\n")
    write(cpu / "cpu.cfs_quota_us", "-1\n")
    write(cpu / "cpu.cfs_period_us", "100000\n")
    write(pids / "docker/1/pids.max", "max\n")
    assert cgroups.cpu_quota(proc) == (0.5, str(cpu / "docker/1/cpu.cfs_quota_us"))
    assert cgroups.pids_max(proc).value is None


def test_in_a_container_the_mount_shows_only_our_part(proc: Path, tmp_path: Path) -> None:
    point = tmp_path / "cgroup"
    hierarchy(proc, point, "cgroup2", "rw", root="/docker/1")
    belongs(proc, "0::/docker/1")
    write(point / "cpu.max", "200000 100000\n")
    assert cgroups.cpu_quota(proc) == (2.0, str(point / "cpu.max"))


def test_a_group_outside_of_the_namespace(proc: Path, tmp_path: Path) -> None:
    point = tmp_path / "cgroup"
    hierarchy(proc, point, "cgroup2", "rw")
    belongs(proc, "0::/../../elsewhere")
    write(point / "cpu.max", "100000 100000\n")
    write(tmp_path / "elsewhere/cpu.max", "1000 100000\n")
    assert cgroups.cpu_quota(proc) == (1.0, str(point / "cpu.max"))


@pytest.mark.parametrize("text", ["", "max\n", "max 100000\n", "\xff\xfe\n"])
def test_no_quota_and_garbage(proc: Path, tmp_path: Path, text: str) -> None:
    point = tmp_path / "cgroup"
    hierarchy(proc, point, "cgroup2", "rw")
    belongs(proc, "0::/")
    write(point / "cpu.max", text)
    assert cgroups.cpu_quota(proc).value is None


def test_nothing_readable(tmp_path: Path) -> None:
    assert cgroups.cpu_quota(tmp_path).value is None
    assert cgroups.pids_max(tmp_path).value is None


def test_every_fact_has_a_source_and_a_value_or_a_reason() -> None:
    gathered = facts.gather()
    assert len({fact.name for fact in gathered}) >= 15
    for fact in gathered:
        assert fact.source, fact
        assert fact.value is not None or fact.note, fact


def test_without_proc_and_sys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_text", lambda _path: None)
    gathered = facts.gather()
    values = {fact.name: fact.value for fact in gathered}
    assert all(fact.value is not None or fact.note for fact in gathered)
    assert values["kernel"] == os.uname().release
    for name in ("capabilities", "seccomp", "ptrace_scope", "/dev/mqueue", "user namespaces", "perf_event_paranoid"):
        assert values[name] is None


def test_limits_are_those_of_this_process() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    values = {limit.name: limit.value for limit in facts.limits()}
    assert (values["nofile"], values["nofile (hard)"]) == (soft, hard)
    assert {"nproc", "msgqueue", "memlock", "sigpending"} <= values.keys()


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        ("0", "none"),
        (f"{(1 << 41) - 1:x}", "all"),
        (f"{((1 << 41) - 1) & ~(1 << 19):x}", "all but CAP_SYS_PTRACE"),
        (f"{1 << 19 | 1:x}", "CAP_CHOWN, CAP_SYS_PTRACE"),
        ("garbage", None),
    ],
)
def test_capabilities_by_name(monkeypatch: pytest.MonkeyPatch, bits: str, told: str | None) -> None:
    monkeypatch.setattr(facts, "_text", lambda path: f"CapEff:\t{bits}\n" if path.endswith("status") else None)
    values = {fact.name: fact.value for fact in facts.gather()}
    assert values["capabilities"] == told


def test_packages_come_from_the_installation() -> None:
    found = {package.name: package for package in facts.packages()}
    assert found["click"].version
    assert found["sysv_ipc"].extra == "sysv"
    for package in found.values():
        assert bool(package.version) != bool(package.remedy)


@pytest.mark.parametrize(
    ("cpus", "text"), [({0}, "0"), ({0, 1}, "0-1"), ({0, 2, 3, 4, 7}, "0,2-4,7"), (set(), "")], ids=str
)
def test_ranges(cpus: set[int], text: str) -> None:
    assert facts._ranges(cpus) == text

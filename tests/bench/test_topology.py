"""Placements of machines made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipclab.bench import clusters, topology
from ipclab.errors import Unavailable, UsageError
from ipclab.records import PlacementName


def machine(root: Path, cores: int, sockets: int = 2) -> Path:
    """Two threads a core, one cache for each two cores, one node a socket."""
    per_socket = 2 * cores // sockets
    for number in range(2 * cores):
        cpu = root / f"devices/system/cpu/cpu{number}"
        for folder in ("topology", "cache/index3"):
            (cpu / folder).mkdir(parents=True)
        socket, first = number // per_socket, number // 4 * 4
        (cpu / f"node{socket}").mkdir()
        (cpu / "topology/core_cpus_list").write_text(f"{number // 2 * 2}-{number // 2 * 2 + 1}\n")
        (cpu / "topology/physical_package_id").write_text(f"{socket}\n")
        (cpu / "cache/index3/level").write_text("3\n")
        (cpu / "cache/index3/shared_cpu_list").write_text(f"{first}-{first + 3}\n")
    return root


@pytest.mark.parametrize(
    ("name", "cpus"),
    [("cpu", (0, 0)), ("smt", (0, 1)), ("llc", (0, 2)), ("node", (0, 4)), ("socket", (0, 8)), ("any", (0, 2))],
)
def test_each_placement(
    name: PlacementName, cpus: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    assert topology.resolve(name, 1, 1, sys=machine(tmp_path, 8)).cpus == cpus


def test_pairs_take_cpus_of_their_own_as_long_as_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    found = topology.resolve("smt", 1, 1, 3, sys=machine(tmp_path, 8))
    assert found.cpus == (0, 1, 2, 3, 0, 1)
    with pytest.raises(Unavailable, match="two sockets"):
        topology.resolve("socket", 1, 1, sys=tmp_path)
    with pytest.raises(UsageError, match="CPU 5 is not allowed"):
        topology.named((0, 5), 1, 1, sys=tmp_path)


def test_clusters_are_cut_in_the_gap() -> None:
    cuts = clusters.borders([30, 40, 100, 110, 400])
    assert [clusters.cluster(ns, cuts) for ns in (0, 40, 100, 400, None)] == ["same", "fast", "middle", "slow", "?"]
    assert clusters.agree(30, 55, cuts)
    assert not clusters.agree(40, 100, cuts)
    assert not clusters.agree(None, 40, cuts)
    one = clusters.borders([66, 68, 70, 72, 74])
    assert len({clusters.cluster(ns, one) for ns in (66, 70, 74)}) == 1

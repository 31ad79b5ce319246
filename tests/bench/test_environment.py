"""The machine's state, from files that are there and files that are not."""

from __future__ import annotations

from pathlib import Path

from ipclab.bench import environment
from ipclab.machine import cgroups


def test_this_machine_is_described() -> None:
    found = environment.gather()
    assert found.kernel
    assert found.cpus_allowed
    assert found.facts


def test_an_empty_machine_raises_nothing(tmp_path: Path) -> None:
    found = environment.gather(tmp_path)
    assert found.governor is None
    assert found.mitigations == {}
    assert found.throttled_ns is None


def test_throttled_time_of_both_versions(tmp_path: Path) -> None:
    for name, text in (("v2", "nr_throttled 3\nthrottled_usec 12\n"), ("v1", "throttled_time 34\n")):
        (tmp_path / name).write_text(text)
    assert cgroups._read_throttled(tmp_path / "v2") == 12_000
    assert cgroups._read_throttled(tmp_path / "v1") == 34

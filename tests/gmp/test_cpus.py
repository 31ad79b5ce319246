"""How many Ps there are when nobody says: the CPUs of the affinity mask, but no more than the quota, rounded up."""

from __future__ import annotations

import json
import math
import os
import sys

import pytest
from surroundings import Surroundings

from ipclab import gmp
from ipclab.machine import cgroups

PRINT = (
    "import json, os, sys; from ipclab import gmp; from ipclab.machine import cgroups; "
    "work = gmp.Workload(jobs=[gmp.Job('one', ['yield'])]); sim = gmp.Simulation(work); "
    "print(json.dumps([gmp.cpus(), len(os.sched_getaffinity(0)), cgroups.cpu_quota().value, "
    "sim.snapshot(0).sched['gomaxprocs'] if sim.__enter__().wait(60) else None])); sim.close()"
)


def told(place: Surroundings) -> tuple[int, int, float | None, int]:
    """gmp.cpus(), CPUs in the mask, the quota as the machine room reads it, and the Ps of a run that was not told."""
    if why := place.obstacle():
        pytest.skip(why)
    visit = place.run(sys.executable, "-c", PRINT)
    assert visit.returncode == 0, visit.text
    cpus, mask, quota, procs = json.loads(visit.out)
    return cpus, mask, quota, procs


def test_here() -> None:
    quota = cgroups.cpu_quota().value
    most = len(os.sched_getaffinity(0))
    assert gmp.cpus() == min(most, most if quota is None else math.ceil(quota))


def test_the_affinity_mask_counts() -> None:
    cpus, mask, _quota, procs = told(Surroundings(name="one cpu", one_cpu=True))
    assert (cpus, mask, procs) == (1, 1, 1)


@pytest.mark.parametrize("quota", [0.5, 1.0, 1.5])
def test_the_quota_of_our_group_counts_rounded_up(quota: float) -> None:
    cpus, mask, seen, procs = told(Surroundings(name="quota", cpu_quota=quota))
    assert seen == quota
    assert cpus == procs == min(mask, math.ceil(quota))

"""GMP: Go's scheduler with processes as Ms and all of its state in shared memory.

    gmp.run(workload)                      runs script Gs to their end, returns a SimResult
    gmp.Simulation(workload)               the same, held open: a context manager to look at it, resize and kill
    gmp.Workload, gmp.Job, gmp.Block       what runs; gmp.load(path or name) reads one from TOML
    gmp.snapshot(pid=None)                 every field and list of a scheduler that runs, also another process's
    gmp.cpus()                             the default number of Ps

ipclab.gmp.sim has the whole API in its docstring, docs/gmp.md the method, ipclab/core/gmp/proc.c the essay.
"""

from __future__ import annotations

#: As typing has it, which would cost half of the 10 ms that `import ipclab` may take.
TYPE_CHECKING = False

__all__ = ["Block", "Job", "Simulation", "Workload", "cpus", "load", "run", "snapshot"]

if TYPE_CHECKING:
    from ipclab.gmp.load import load
    from ipclab.gmp.observer import snapshot
    from ipclab.gmp.sim import Simulation, cpus, run
    from ipclab.gmp.workload import Block, Job, Workload

_HOME = {
    "Block": "workload",
    "Job": "workload",
    "Simulation": "sim",
    "Workload": "workload",
    "cpus": "sim",
    "load": "load",
    "run": "sim",
    "snapshot": "observer",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ipclab.gmp' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ipclab.gmp.{home}"), name)
    globals()[name] = value
    return value

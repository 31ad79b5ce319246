"""How a process of ours is born, speaks, is watched, and dies; and which named kernel objects it may leave behind.

    spawn.py        Launcher: the life of roles, from fork to Ending
    process.py      Process: one role
    descriptors.py  a launcher's descriptors, which its roles do not keep
    strays.py       children whose parents died
    child.py        what happens in the new process before and after its target runs
    guardian.py     the small process that ends the roles when their launcher is killed
    logs.py         records and narration on their way to the launcher (multiprocessing-logging)
    book.py         the one ordered stream they end up in
    pump.py         the thread that reads every pipe and turns the book's pages
    interrupts.py   Ctrl-C at an inconvenient moment
    stage.py        Stage: a demo's roles, scenes, checks and verdict
    go.py           a Go program as a role, compiled where there is a Go
    registry.py     named kernel objects, journalled before they are created
    journal.py      the files the registry writes and the folder they are in
    removal.py      is a named object there, and away with it
    procfs.py       tiny readers of /proc

The names are loaded when they are first used: a mechanism that wants the registry alone does not pay for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["Launcher", "Observation", "Process", "Stage", "procfs", "registry", "say"]

if TYPE_CHECKING:
    from ipclab.processes import procfs, registry
    from ipclab.processes.logs import say
    from ipclab.processes.spawn import Launcher, Process
    from ipclab.processes.stage import Observation, Stage

_HOME = {
    "Launcher": "ipclab.processes.spawn",
    "Process": "ipclab.processes.spawn",
    "Observation": "ipclab.processes.stage",
    "Stage": "ipclab.processes.stage",
    "say": "ipclab.processes.logs",
}
_MODULES = ("procfs", "registry")


def __getattr__(name: str) -> object:
    home = f"ipclab.processes.{name}" if name in _MODULES else _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ipclab.processes' has no attribute {name!r}")
    module = _import_whole(home)
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def _import_whole(name: str) -> object:
    """Import, with Ctrl-C waiting meanwhile: one in the middle of a msgspec class crashes the interpreter."""
    import signal
    from importlib import import_module

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return import_module(name)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

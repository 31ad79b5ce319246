"""States: what state real processes are in, over time, and how complete the record of it is.

    states.read(pid)                       one process at one moment
    states.Tracker([pid], rate_hz=1000)    a record of intervals; a context manager
    states.open_recording(path)            a record that was written to a file
    states.zoo                             one real process in each state

docs/states.md has the method; ipclab/core/timeline.h how the sources become one row of intervals.
"""

from __future__ import annotations

#: As typing has it, which would cost half of the 10 ms that `import ipclab` may take.
TYPE_CHECKING = False

__all__ = ["SourceChoice", "Store", "Tracker", "open_recording", "read"]

if TYPE_CHECKING:
    from ipclab.states.glance import read
    from ipclab.states.store import Store, open_recording
    from ipclab.states.tracker import SourceChoice, Tracker

_HOME = {
    "SourceChoice": "tracker",
    "Store": "store",
    "Tracker": "tracker",
    "open_recording": "store",
    "read": "glance",
    "zoo": "",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ipclab.states' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ipclab.states.{home}"), name) if home else import_module(f"ipclab.states.{name}")
    globals()[name] = value
    return value

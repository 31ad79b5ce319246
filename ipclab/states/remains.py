"""What is left of the processes that were named: whether a record has nothing to wait for but their burial."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ipclab.processes import procfs

#: For so long zombies are waited for: a parent that reaps at all has done it by then.
ZOMBIE_S = 1.0


class Remains:
    """Asked again and again. `starts`: pid -> start time, which together are a process."""

    def __init__(self, starts: Mapping[int, int]) -> None:
        self._starts = starts
        self._since_s: float | None = None

    def zombies(self) -> list[int]:
        """The zombies that nobody reaps, once nothing else has been left for a second; empty before."""
        if any(procfs.pid_alive(pid, start) for pid, start in self._starts.items()):
            self._since_s = None
            return []
        now_s = time.monotonic()
        self._since_s = now_s if self._since_s is None else self._since_s
        return [pid for pid in self._starts if procfs.state(pid) == "Z"] if now_s - self._since_s >= ZOMBIE_S else []

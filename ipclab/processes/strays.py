"""Strays: children that the kernel gives to a launcher because their parents died.

A launcher is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so what its roles leave behind comes to it and not to an
init that may be foreign, and is ended with them. A child counts as a stray when it was not there as the launcher was
entered, no launcher has forked it, and it is not in this process's own group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ipclab import _core
from ipclab.processes import procfs
from ipclab.processes.process import forked

#: How long a killed process may take to go before it is given up (state D, a hung file system).
LAST_WAIT_S = 5.0


class Strays:
    """Those of one launcher; from its making on, until it is closed, this process is a subreaper."""

    def __init__(self) -> None:
        self._was_subreaper = _core.is_child_subreaper()
        _core.set_child_subreaper(True)
        try:
            self._strangers = set(procfs.children(os.getpid()))
        except BaseException:
            self.close()
            raise
        #: Those that were ended: pid -> start time.
        self.ended: dict[int, int] = {}

    def close(self) -> None:
        """What this process was before."""
        if not self._was_subreaper:
            _core.set_child_subreaper(False)

    def now(self) -> list[int]:
        """Their pids, zombies included."""
        known, own_group = self._strangers | forked, os.getpgrp()
        children = [pid for pid in procfs.children(os.getpid()) if pid not in known]
        return [pid for pid in children if procfs.group(pid) != own_group]

    def end(self) -> None:
        """Kill and reap them, and who comes to us because of that, until there are none."""
        until = time.monotonic() + LAST_WAIT_S
        pause_s = 0.0005
        while (strays := self.now()) and time.monotonic() < until:
            for pid in strays:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    self.ended[pid] = procfs.start_time(pid)
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.01)

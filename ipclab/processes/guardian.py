"""The guardian: the parent watch. A small process that ends the roles when their launcher is gone.

PR_SET_PDEATHSIG alone is not enough: it follows the thread that forked and not its process, a set-uid exec clears it,
and the children of a role do not have it. A watching thread in every role would make every role multi-threaded. So
each launcher has one guardian, forked before its roles. It waits for either of
  - the launcher's pidfd: readable when the launcher has died, in whatever way
  - the word "bye" on a pipe only the launcher writes
and in the first case kills every role's process group. It holds nothing of its launcher: no descriptor but those two,
so that nobody waits for an end of file because of it; it is in a group of its own, so that a kill of the launcher's
group leaves it to do its work; and it takes no signal but SIGKILL. When it is killed itself, the death signal is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

from ipclab.errors import NoRoom
from ipclab.processes import procfs


class Guardian:
    """The launcher's side. Made by the thread that will make the roles, before them."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as mine, contextlib.ExitStack() as undo:
            try:
                reader, self.fd = os.pipe()
                mine.callback(os.close, reader)
                undo.callback(os.close, self.fd)
                launcher = os.pidfd_open(os.getpid())
                mine.callback(os.close, launcher)
                self.pid = os.fork()
            except OSError as err:
                hint = "see ulimit -n and ulimit -u"
                raise NoRoom("no room for the guardian process", hint=hint, errno=err.errno) from err
            if self.pid == 0:
                _live(reader, launcher)
            undo.pop_all()
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)

    def watch(self, pid: int, start: int) -> None:
        """Kill this group too when the launcher dies."""
        self._tell(f"{pid} {start}\n")

    def close(self) -> None:
        """Dismiss and reap it."""
        self._tell("bye\n")
        os.close(self.fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed it
            os.write(self.fd, line.encode("ascii"))


def _live(reader: int, launcher: int) -> None:
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.setpgid(0, 0)
        _let_go({reader, launcher})
        _watch(reader, launcher)
    finally:
        os._exit(0)


def _let_go(keep: set[int]) -> None:
    """Close every descriptor but these; 0, 1 and 2 become /dev/null."""
    for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in {0, 1, 2} - keep - {null}:
        os.dup2(null, fd)
    procfs.set_name("ipclab-guardian")
    os.chdir("/")


def _watch(reader: int, launcher: int) -> None:
    roles: dict[int, int] = {}
    text = b""
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    poller.register(launcher, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        # What the launcher said comes first: a role it announced before it died is one to kill.
        if reader in ready:
            data = os.read(reader, 65536)
            text += data
            *lines, text = text.split(b"\n")
            if b"bye" in lines:
                return
            for line in lines:
                pid, start = line.split()
                roles[int(pid)] = int(start)
            if data:
                continue
            poller.unregister(reader)
        if launcher in ready:
            kill_groups(roles)
            return


def kill_groups(roles: dict[int, int]) -> None:
    """SIGKILL to the groups of these leaders (pid -> start time), also where only members are left of a group."""
    for pid, start in roles.items():
        with contextlib.suppress(ProcessLookupError):
            if procfs.start_time(pid) != start:
                continue  # the number belongs to somebody else by now
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)

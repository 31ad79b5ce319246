"""The recipes of the zoo: for each state what it means, how a process gets into it, and who ends it.

A recipe's `enter` is the life of a role (see processes/): it brings itself, or a child of its own, into the state, and
has by then written one line to `out`: the pid of whoever is or will be in it. A role that keeps a child (a zombie needs
a parent that does not wait, a tracee its tracer) is that child's keeper. Everything here dies by SIGKILL; the launcher
that made the role, its guardian and the parent-death signals see to it that it does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from ipclab import _core
from ipclab.errors import from_os_error
from ipclab.processes import procfs
from ipclab.records import StateName

#: Time in D after which a vfork's child ends by itself, whatever happens. Above every deadline of a zoo.
LONGEST_D_NS = 3600 * 10**9
#: Delays of reap_watched, one after the other: together they cover the time a look at /proc takes.
_DELAYS_NS = range(0, 2400, 300)


class Recipe(NamedTuple):
    """One state of the zoo."""

    title: str
    state: StateName
    meaning: str
    recipe: str
    ended_by: str
    #: The role; None: nobody is brought into it, who is in it already is watched.
    enter: Callable[[int], object] | None


def tell(out: int, pid: int, *words: str) -> None:
    """The line that says who it is."""
    os.write(out, " ".join([str(pid), *words]).encode("utf-8") + b"\n")


def spin(out: int) -> NoReturn:
    """R."""
    tell(out, os.getpid())
    while True:
        pass


def pause(out: int) -> NoReturn:
    """S."""
    tell(out, os.getpid())
    while True:
        signal.pause()


def vfork(out: int) -> None:
    """D."""
    never, _writer = os.pipe()
    tell(out, os.getpid())
    try:
        _core.sleep_in_d(never, LONGEST_D_NS)
    except OSError as err:
        raise from_os_error(err, "vfork") from err


def stop(out: int) -> None:
    """T."""
    tell(out, os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


def trace(out: int) -> NoReturn:
    """t, of a child. Only the thread that traces may let go: this one."""
    child = _child("zoo-t", _pause_for_ever)
    while procfs.state(child) != "S":
        time.sleep(0.0005)
    try:
        _core.trace_stop(child)
    except OSError as err:
        hint = "kernel.yama.ptrace_scope of 2 or 3, or the container's seccomp filter, forbids it"
        raise from_os_error(err, "tracing a child", hint=hint) from err
    tell(out, child)
    _pause_for_ever()


def do_not_wait(out: int) -> NoReturn:
    """Z, of a child."""
    child = _child("zoo-Z", lambda: os._exit(7))
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # only looks: it stays
    tell(out, child)
    _pause_for_ever()


def reap_until_seen(out: int) -> None:
    """X, of one child after the other; tells the number of tries and the line of /proc/PID/stat, too."""
    tries = 0
    line = b""
    while not line:
        child = _child("zoo-X", lambda: os._exit(0))
        _status, _looks, line = _core.reap_watched(child, _DELAYS_NS[tries % len(_DELAYS_NS)])
        tries += 1
    tell(out, child, str(tries), line.decode("utf-8", "replace").strip())


def _child(name: str, life: Callable[[], object]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _core.set_pdeathsig(signal.SIGKILL)
        procfs.set_name(name)
        if os.getppid() == parent:  # else it died before the death signal was set
            life()
    finally:
        os._exit(1)


def _pause_for_ever() -> NoReturn:
    while True:
        signal.pause()


_SIGNAL = "Any deadly signal, sent by its owner or root"

RECIPES = {
    recipe.title: recipe
    for recipe in (
        Recipe(
            "R running",
            "R",
            "it has a CPU",
            "a loop that never calls the kernel",
            "itself, by sleeping or ending; the scheduler, which makes it runnable. " + _SIGNAL,
            spin,
        ),
        Recipe(
            "R runnable",
            "R",
            "it could run and waits for a CPU: /proc says R here too",
            "sched_setaffinity(2) to one CPU, where a hog spins; setpriority(2) to nice 19: the hog goes first",
            "the scheduler, when a CPU has nothing better to do. " + _SIGNAL,
            spin,
        ),
        Recipe(
            "S",
            "S",
            "it sleeps until something comes, or a signal",
            "pause(2)",
            "what it waits for: here any signal with a handler. " + _SIGNAL,
            pause,
        ),
        Recipe(
            "D",
            "D",
            "it sleeps and no signal handler can run: whoever it waits for must answer",
            "clone(2) with CLONE_VFORK, without CLONE_VM: it waits for its child's end",
            "the one it waits for: here its child, by execve(2) or its end. This kind is killable: a deadly signal "
            "ends it too. One that waits for a disk or a dead file server need not be",
            vfork,
        ),
        Recipe(
            "T",
            "T",
            "a signal has stopped it (Ctrl-Z does)",
            "kill(2) with SIGSTOP, by itself",
            "SIGCONT of its owner, its session or root; SIGKILL. Every other signal waits",
            stop,
        ),
        Recipe(
            "t",
            "t",
            "its tracer has stopped it, as a debugger does",
            "ptrace(2): PTRACE_SEIZE, PTRACE_INTERRUPT, by its parent",
            "its tracer: PTRACE_CONT, PTRACE_DETACH, or the tracer's death (here with PTRACE_O_EXITKILL: it dies too). "
            "SIGKILL; SIGCONT does not",
            trace,
        ),
        Recipe(
            "Z",
            "Z",
            "it has ended; only its exit code and counters are kept for its parent",
            "_exit(2) of a child whose parent does not wait",
            "its parent, by wait(2), or by its own death: then init or a subreaper waits. No signal: it is dead",
            do_not_wait,
        ),
        Recipe(
            "X",
            "X",
            "its parent has just waited; what is left of it is being taken down",
            "wait4(2) by its parent, while another thread reads /proc/PID/stat without pause",
            "the kernel, within microseconds; nobody else",
            reap_until_seen,
        ),
        Recipe(
            "I",
            "I",
            "a thread of the kernel with nothing to do; does not count for the load average, as D would",
            "none: the kernel's own threads are in it",
            "the kernel, when there is work. No signal: it takes none",
            None,
        ),
    )
}

"""The zoo: one real process in each state, held there, without any privilege.

    with zoo.hold("D") as held:
        states.read(held.pid)          # state "D", as often as you ask

    whoever calls hold()            keeper                         who is in the state
    --------------------            ------                         -------------------
    Launcher: guardian, deadline
      fork ---------------------->  the recipe's role  -- t, Z -->  its child
      reads the line  <------------ "PID"
      /proc until the state holds
    with block                                                      held
    SIGTERM, SIGKILL to the group   gone                            gone

Who kills the caller with SIGKILL leaves nothing either: see processes/guardian.py.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import msgspec

from ipclab.errors import IpclabError, TimedOut, Unavailable, UsageError
from ipclab.processes import Launcher, Process, procfs
from ipclab.records import Glance, StateName, ZooEntry
from ipclab.states.recipes import RECIPES, Recipe, spin

#: How long a process may take to get where it is to be, and X to be seen; on a busy machine it takes its time.
SETTLE_S = 20.0
#: Time between two of the reads that `visit` makes: together they watch the state for a while.
_PAUSE_S = 0.0002
_KTHREADD = 2


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A process in a state of the zoo."""

    pid: int
    #: "R running", "R runnable", "S", "D", "T", "t", "Z", "X", "I".
    title: str
    state: StateName
    meaning: str
    recipe: str
    #: Who can end the state, and how.
    ended_by: str
    #: Of X: how many processes had to die until one was seen in it, and its line of /proc/PID/stat. It is gone.
    tries: int = 1
    stat_line: str = ""


def titles() -> tuple[str, ...]:
    """What `hold` takes; "R" is "R running"."""
    return tuple(RECIPES)


@contextlib.contextmanager
def hold(state: str, *, deadline_s: float = 60.0) -> Iterator[Held]:
    """A process in this state for as long as the block runs, `deadline_s` at most: then it is killed.

    `state` is one of `titles()`, or "R". Unprivileged. Of X, which lasts microseconds, what is yielded has been seen in
    it and is gone; an idle kernel thread ("I") is nobody's to hold, only looked at. Unavailable: this machine does not
    allow it (tracing) or show it (kernel threads in a container); TimedOut: it did not get there in time. Blocks until
    the state is reached, some milliseconds as a rule.
    """
    recipe = _recipe(state)
    if recipe.enter is None:
        yield Held(pid=_idle_kernel_thread(), **_told(recipe))
        return
    if recipe.state == "X" and len(os.sched_getaffinity(0)) == 1:
        raise Unavailable("X cannot be met on one CPU", hint="while a parent waits there, nobody else can look")
    with Launcher(deadline_s=deadline_s, sink=_unheard) as launcher:
        yield _settle(launcher, recipe)


def visit(title: str, *, reads: int = 1000) -> ZooEntry:
    """Hold one state and read it back `reads` times, as anybody could. Where it is Unavailable the entry says why."""
    with visiting(title, reads=reads) as entry:
        return entry


@contextlib.contextmanager
def visiting(title: str, *, reads: int = 1000, deadline_s: float = 60.0) -> Iterator[ZooEntry]:
    """The same, and the process stays in its state while the block runs, `deadline_s` at most."""
    with contextlib.ExitStack() as held:
        try:
            entry = watch(held.enter_context(hold(title, deadline_s=deadline_s)), reads=reads)
        except Unavailable as err:
            entry = ZooEntry(seen=None, reads=0, hits=0, reason=str(err), **_told(_recipe(title)))
        yield entry


def watch(held: Held, *, reads: int = 1000) -> ZooEntry:
    """Read a held process back. Of X there is the one read that met it."""
    from ipclab.states import read

    ran_share = None
    if held.state == "X":
        reads = hits = 1
        seen = _dead(held)
    else:
        hits, ran_share = _read_back(held, reads)
        seen = read(held.pid)
    return ZooEntry(seen=seen, reads=reads, hits=hits, tries=held.tries, ran_share=ran_share, **_told(held))


def _told(of: Recipe | Held) -> dict[str, Any]:
    """What a recipe says of its state."""
    return {name: getattr(of, name) for name in ("title", "state", "meaning", "recipe", "ended_by")}


def _recipe(state: str) -> Recipe:
    name = "R running" if state == "R" else state
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise UsageError(f"the zoo has no state {state!r}", hint=f"it has {', '.join(RECIPES)}; did you mean {near!r}?")
    return RECIPES[name]


def _unheard(_line: str) -> None:
    """Roles of the zoo have nothing to say; how they fail the launcher knows."""


# --- getting there ---------------------------------------------------------------------------------------------------


def _settle(launcher: Launcher, recipe: Recipe) -> Held:
    assert recipe.enter is not None
    reader, writer = os.pipe()
    with contextlib.ExitStack() as ends:
        ends.callback(os.close, reader)
        ends.callback(os.close, writer)
        launcher.release()
        role = launcher.spawn(f"zoo-{recipe.title}", recipe.enter, writer)
        line = _line(reader, role)
        if recipe.title == "R runnable":
            hog = launcher.spawn("zoo-hog", spin, writer)
            _line(reader, hog)
            _starve(role.pid, hog.pid)
    pid = int(line[0])
    if recipe.state == "X":
        return Held(pid=pid, tries=int(line[1]), stat_line=line[2], **_told(recipe))
    _wait_settled(pid, recipe.state, role)
    return Held(pid=pid, **_told(recipe))


def _line(reader: int, role: Process) -> list[str]:
    """A line of a recipe: pid, and of X the tries and the line of /proc."""
    text = b""
    until = time.monotonic() + SETTLE_S
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    while not text.endswith(b"\n"):
        if poller.poll(20):
            text += os.read(reader, 1)
        elif not role.alive():
            _fail(role, "said nothing")
        elif time.monotonic() > until:
            raise TimedOut(f"{role.role}[{role.pid}] did not get there within {SETTLE_S:g} s")
    return text.decode("utf-8").rstrip("\n").split(" ", 2)


def _fail(role: Process, otherwise: str) -> None:
    """It has ended, and told why."""
    role.wait(SETTLE_S)  # until what it told has been taken
    if role.unavailable:
        raise Unavailable(role.error)
    raise IpclabError(f"{role.role}[{role.pid}] {role.error or otherwise}")


def _wait_settled(pid: int, state: StateName, role: Process) -> None:
    """Until it has been in the state at three looks, one after the other."""
    until = time.monotonic() + SETTLE_S
    looks = 0
    while looks < 3:
        looks = looks + 1 if procfs.state(pid) == state else 0
        if not looks and not role.alive():
            _fail(role, f"is not in state {state}, but in {procfs.state(pid)}")
        if time.monotonic() > until:
            raise TimedOut(f"{role.role}[{role.pid}]: {pid} is not in state {state}, but in {procfs.state(pid)}")
        time.sleep(0.0005)


def _starve(pid: int, hog: int) -> None:
    """One CPU for both, and for `pid` only what the hog leaves: 1.5 %.

    Not SCHED_IDLE, which leaves 0.3 %: on a busy machine a killed process then takes longer than 5 s to die.
    """
    cpu = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(hog, cpu)
    os.sched_setaffinity(pid, cpu)
    os.setpriority(os.PRIO_PROCESS, pid, 19)


def _idle_kernel_thread() -> int:
    """The one that has slept longest: it will not wake up under our eyes."""
    idle = []
    for pid in procfs.pids():
        fields = procfs.stat(pid)
        if fields and fields[0] == "I" and int(fields[1]) == _KTHREADD:
            idle.append((procfs.voluntary_switches(pid) or 0, pid))
    if not idle:
        raise Unavailable("no kernel thread is to be seen", hint="a container shows none: look outside of it")
    return min(idle)[1]


# --- reading back ----------------------------------------------------------------------------------------------------


def _read_back(held: Held, reads: int) -> tuple[int, float | None]:
    """How many reads showed the state; and of R the share of the time between first and last in which it ran."""
    hits = 0
    fd = os.open(f"/proc/{held.pid}/stat", os.O_RDONLY)  # kept: it is this process and no later one with its number
    try:
        before = _ran(held.pid)
        for _read in range(reads):
            text = os.pread(fd, 512, 0)
            hits += text[text.rindex(b")") + 2 :][:1] == held.state.encode("ascii")
            time.sleep(_PAUSE_S)
        after = _ran(held.pid)
    finally:
        os.close(fd)
    if held.state != "R" or before is None or after is None:
        return hits, None
    return hits, min(1.0, (after[0] - before[0]) / (after[1] - before[1]))


def _ran(pid: int) -> tuple[int, int] | None:
    """Nanoseconds it has run, and when that was asked; None: the kernel was built without schedstat."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]), time.monotonic_ns()
    except (OSError, IndexError):
        return None


def _dead(held: Held) -> Glance:
    name, _, rest = held.stat_line.partition("(")[2].rpartition(") ")
    fields = rest.split()
    return Glance(
        pid=held.pid,
        name=name,
        state="X",
        at_ns=time.monotonic_ns(),
        ppid=int(fields[1]),
        start_ticks=int(fields[19]),
        threads=int(fields[17]),
    )

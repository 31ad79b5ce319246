"""Which CPUs a placement means on this machine, read from /sys/devices/system/cpu and .../node.

How near two CPUs are, nearest first; each pair has exactly one of these:

    cpu      the same logical CPU: the two sides take turns
    smt      two threads of one core: they share everything, execution units too
    llc      two cores that share their last-level cache
    node     two cores of one NUMA node that do not
    socket   two packages

`any` is the first of llc, node, socket, smt, cpu that this machine has: two CPUs that do not share a core, if possible.
The guest of a hypervisor is told what the host likes to tell; that is why every sample has a fingerprint besides.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ipclab.errors import IpclabError, Unavailable, UsageError
from ipclab.records import Placement, PlacementName

SYS = Path("/sys")

_WORDS = {
    "cpu": "one logical CPU",
    "smt": "two threads of one core",
    "llc": "two cores that share their last-level cache",
    "node": "two cores of one NUMA node, each with a last-level cache of its own",
    "socket": "two sockets",
    "far": "one socket, two NUMA nodes",
}
#: In which order `any` takes what there is.
_ANY = ("llc", "node", "far", "socket", "smt", "cpu")

#: set_mempolicy(2) by machine: Python has no call for it.
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
_MPOL_DEFAULT, _MPOL_BIND = 0, 2


class Cpu(NamedTuple):
    """One logical CPU and its neighbours, itself included."""

    number: int
    siblings: frozenset[int]
    #: Those that share the last-level cache; where the machine does not tell, those of the same package.
    llc: frozenset[int]
    node: int | None
    package: int


def read(sys: Path = SYS, allowed: Iterable[int] | None = None) -> tuple[Cpu, ...]:
    """Every CPU this process may use, lowest number first."""
    numbers = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    return tuple(_read_cpu(sys, number) for number in numbers)


def relation(a: Cpu, b: Cpu) -> str:
    """How near they are: a placement's name, or "far" for two nodes of one socket."""
    if a.number == b.number:
        return "cpu"
    if b.number in a.siblings:
        return "smt"
    if a.package != b.package:
        return "socket"
    if b.number in a.llc:
        return "llc"
    return "node" if a.node == b.node else "far"


def resolve(
    name: PlacementName,
    producers: int,
    consumers: int,
    pairs: int = 1,
    *,
    sys: Path = SYS,
    memory_node: int | None = None,
) -> Placement:
    """The CPUs for that many processes: with several pairs, as many different CPUs as there are.

    Raises Unavailable when no two CPUs of ours are placed so.
    """
    here = read(sys)
    found = _pairs(here, name, max(producers, consumers) * pairs)
    if not found:
        raise Unavailable(f"no two CPUs of ours are {_WORDS[name]}", hint=_other_placement(here))
    return _placement(name, found, producers, consumers, pairs, here, memory_node)


def named(
    cpus: tuple[int, ...],
    producers: int,
    consumers: int,
    pairs: int = 1,
    *,
    sys: Path = SYS,
    memory_node: int | None = None,
) -> Placement:
    """The same on CPUs the user named: the first for side a, the second for side b, and so on in turn.

    Raises UsageError for a CPU that does not exist or is not for us.
    """
    here = {cpu.number: cpu for cpu in read(sys)}
    for number in cpus:
        if number not in here:
            exists = (sys / f"devices/system/cpu/cpu{number}").is_dir()
            why = "is not allowed to this process" if exists else "does not exist"
            raise UsageError(f"CPU {number} {why}", hint=f"these are ours: {', '.join(map(str, here))}")
    if not cpus:
        raise UsageError("no CPU is named", hint="--cpus 0,1")
    # One CPU: both sides on it. An odd one out pairs with the first.
    both = cpus if len(cpus) % 2 == 0 else (*cpus, cpus[0])
    found = [(here[a], here[b]) for a, b in zip(both[::2], both[1::2], strict=True)]
    return _placement("cpus", found, producers, consumers, pairs, tuple(here.values()), memory_node)


def _placement(
    name: PlacementName,
    found: list[tuple[Cpu, Cpu]],
    producers: int,
    consumers: int,
    pairs: int,
    here: tuple[Cpu, ...],
    memory_node: int | None,
) -> Placement:
    if (producers, consumers) == (1, 1):
        cpus = [cpu for pair in range(pairs) for cpu in found[pair % len(found)]]
    else:
        cpus = [found[i % len(found)][0] for i in range(producers)] + [
            found[i % len(found)][1] for i in range(consumers)
        ]
    a, b = found[0]
    nodes = {cpu.node for cpu in here if cpu.node is not None}
    if memory_node is not None and nodes and memory_node not in nodes:
        known = ", ".join(map(str, sorted(nodes)))
        raise UsageError(f"NUMA node {memory_node} does not exist", hint=f"there is {known}")
    words = f"CPU {a.number}" if a.number == b.number else f"CPU {a.number} and CPU {b.number}"
    words += f": {_WORDS[relation(a, b)]}"
    if (more := len({cpu.number for cpu in cpus} - {a.number, b.number})) > 0:
        words += f"; {len(cpus)} processes on {more + len({a.number, b.number})} CPUs"
    return Placement(
        name=name,
        cpus=tuple(cpu.number for cpu in cpus),
        description=words,
        memory_node=a.node if memory_node is None else memory_node,
        memory_node_set=memory_node is not None,
    )


def _pairs(here: tuple[Cpu, ...], name: PlacementName, wanted: int) -> list[tuple[Cpu, Cpu]]:
    """Pairs of that placement, no CPU in two of them, at most as many as wanted."""
    kinds = _ANY if name == "any" else (name,)
    for kind in kinds:
        found: list[tuple[Cpu, Cpu]] = []
        taken: set[int] = set()
        for a in here:
            partner = next((b for b in here if {a.number, b.number}.isdisjoint(taken) and relation(a, b) == kind), None)
            if partner is not None and len(found) < wanted:
                found.append((a, partner))
                taken |= {a.number, partner.number}
        if found:
            return found
    return []


def _other_placement(here: tuple[Cpu, ...]) -> str:
    there = {relation(a, b) for a in here for b in here} & {"cpu", "smt", "llc", "node", "socket"}
    return f"here there is --placement {','.join(kind for kind in _WORDS if kind in there)}"


# --- memory ----------------------------------------------------------------------------------------------------------


@contextmanager
def memory_on(node: int | None) -> Iterator[None]:
    """Inside the block this thread, and what it forks, takes new pages from that node only (set_mempolicy(2)).

    None changes nothing. Raises Unavailable where the kernel or a container forbids it.
    """
    if node is None:
        yield
        return
    _set_mempolicy(_MPOL_BIND, node)
    try:
        yield
    finally:
        _set_mempolicy(_MPOL_DEFAULT, None)


def _set_mempolicy(mode: int, node: int | None) -> None:
    number = _SET_MEMPOLICY.get(platform.machine())
    if number is None:
        raise Unavailable(
            f"setting the memory's node is not known on {platform.machine()}", hint="leave --memory-node out"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    words = (ctypes.c_ulong * 16)()
    bits = ctypes.sizeof(words) * 8
    if node is not None:
        words[node // 64] = 1 << node % 64
    mask, most = (None, 0) if node is None else (words, bits)
    if libc.syscall(ctypes.c_long(number), ctypes.c_int(mode), mask, ctypes.c_ulong(most)) == 0:
        return
    number = ctypes.get_errno()
    kind = Unavailable if number in (errno.EPERM, errno.ENOSYS) else IpclabError
    hint = "containers forbid it without CAP_SYS_NICE; numactl --membind outside of it does the same"
    raise kind(f"memory cannot be bound to node {node}", hint=hint, errno=number, syscall="set_mempolicy")


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_cpu(sys: Path, number: int) -> Cpu:
    cpu = sys / f"devices/system/cpu/cpu{number}"
    package = _list(cpu / "topology/package_cpus_list") or _list(cpu / "topology/core_siblings_list")
    siblings = _list(cpu / "topology/core_cpus_list") or _list(cpu / "topology/thread_siblings_list")
    own = frozenset({number})
    return Cpu(
        number=number,
        siblings=siblings or own,
        llc=_last_level(cpu) or package or own,
        node=next((int(path.name[4:]) for path in cpu.glob("node[0-9]*")), None),
        package=_number(cpu / "topology/physical_package_id"),
    )


def _last_level(cpu: Path) -> frozenset[int]:
    """The CPUs that share the cache of the highest level."""
    levels = [(_number(index / "level"), _list(index / "shared_cpu_list")) for index in cpu.glob("cache/index[0-9]*")]
    return max(levels, key=lambda level: level[0], default=(0, frozenset[int]()))[1]


def _list(path: Path) -> frozenset[int]:
    """ "0-2,5" as {0, 1, 2, 5}; empty when it cannot be read."""
    try:
        return parse(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return frozenset()


def parse(text: str) -> frozenset[int]:
    """A list of CPUs as the kernel writes it.

    >>> sorted(parse("0-2,5"))
    [0, 1, 2, 5]
    """
    found: set[int] = set()
    for part in re.split(r"[,\s]+", text.strip()):
        if part:
            low, _, high = part.partition("-")
            found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0

"""What is to be measured: options become cases, and what cannot be measured is refused with its reason.

A mistake in the options (a size of 0, a mechanism nobody knows, a CPU that does not exist) is a UsageError and nothing
runs. What is a fair wish that this machine or this mechanism does not grant is a `Refusal`: that row says so, the rest
runs. Who asks for all mechanisms is not told of each semaphore that it carries no data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple, cast, get_args

from ipclab.bench import environment, fan, links, topology
from ipclab.bench.driver import Driver
from ipclab.errors import IpclabError, UsageError
from ipclab.mechanisms import CATALOGUE, load
from ipclab.records import Case, DriverName, Options, Pattern, Placement, PlacementName, Refusal

__all__ = ["Options", "check", "driver", "expand", "peers", "placements"]

#: Mechanisms whose ends spin before they sleep: beside latency they cost a CPU, and need one each.
SPINNING = frozenset({"ring", "iceoryx2"})
#: Mechanisms in /dev/shm, which may be as small as 64 MB.
IN_DEV_SHM = frozenset({"posix-shm"})
_LARGEST_BYTES = 1 << 30


class _Kind(NamedTuple):
    """What can be done with a mechanism."""

    carries_data: bool
    takes_turns: bool


@functools.cache
def driver(name: DriverName) -> Driver:
    """The driver of that name."""
    return cast("Driver", import_module(f"ipclab.bench.{name}_driver").DRIVER)


def peers() -> tuple[str, ...]:
    """The names of channels that are not ours: --peers."""
    from ipclab.bench import peers as module

    return tuple(module.PEERS)


def expand(options: Options) -> tuple[tuple[Case, ...], tuple[Refusal, ...]]:
    """Every case, in the order in which a round measures them, and what is refused. Raises UsageError."""
    check(options)
    cases: list[Case] = []
    refusals: dict[tuple[str, ...], Refusal] = {}
    for case in _wishes(options):
        reason = _obstacle(case, options)
        if reason is None:
            cases.append(case)
        elif reason:
            # What has nothing to do with the size is said once.
            refusals.setdefault((case.mechanism, case.driver, reason), Refusal(case=case, reason=reason))
    return tuple(cases), (*_unplaced(options), *refusals.values())


def check(options: Options) -> None:
    """Raise UsageError for what can never be meant."""
    for name in options.mechanisms:
        if name not in CATALOGUE and name not in peers():
            near = get_close_matches(name, [*CATALOGUE, *peers()], n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}? `ipclab list` has them all"
            raise UsageError(f"no mechanism is called {name!r}", hint=hint)
    for what, given, known in (
        ("driver", options.drivers, get_args(DriverName)),
        ("pattern", options.patterns, get_args(Pattern)),
        ("placement", options.placements, get_args(PlacementName)[:-1]),
    ):
        for word in given:
            if word not in known:
                raise UsageError(f"no {what} is called {word!r}", hint=f"there is {', '.join(known)}")
    for size in options.sizes_bytes:
        if not 0 < size <= _LARGEST_BYTES:
            raise UsageError(f"a message of {size} bytes cannot be measured", hint=f"1 to {_LARGEST_BYTES}")
    _check_counts(options)
    _check_rate(options)
    if options.cpus:
        topology.named(options.cpus, 1, 1, memory_node=options.memory_node)


def _check_counts(options: Options) -> None:
    counts = {"pairs": min(options.pairs, default=1), "producers": options.producers, "consumers": options.consumers}
    if options.depth is not None:
        counts["depth"] = options.depth
    if options.rounds is not None:
        counts["rounds"] = options.rounds
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"--{name} {count} is too few", hint="1 or more")
    for name, given in (("sample-ms", options.sample_ms), ("budget-s", options.budget_s)):
        if given is not None and not given > 0:
            raise UsageError(f"--{name} {given:g} is no time", hint="more than 0")
    if (options.producers, options.consumers) != (1, 1) and options.pairs != (1,):
        raise UsageError("--pairs and --producers/--consumers exclude each other", hint="leave one of them out")


def _check_rate(options: Options) -> None:
    if options.rate_per_s is not None and not 0 < options.rate_per_s <= 1e8:
        raise UsageError(f"--rate {options.rate_per_s:g} cannot be kept", hint="messages per second, 1e8 at most")
    if "openloop" in options.patterns and options.rate_per_s is None:
        raise UsageError("an open loop needs a schedule", hint="--rate 10000 (messages per second)")
    if options.rate_per_s is not None and "openloop" not in options.patterns:
        raise UsageError("--rate is of the open loop alone", hint="--pattern openloop")


def placements(options: Options) -> tuple[Placement, ...]:
    """What the placements mean here; those that do not exist here are left out."""
    return tuple(place for _wish, place in _places(options) if isinstance(place, Placement))


def _places(options: Options) -> Iterator[tuple[tuple[PlacementName, int], Placement | str]]:
    """Placement and number of pairs -> the CPUs, or why there are none."""
    shape = options.producers, options.consumers
    for pairs in dict.fromkeys(options.pairs):
        if options.cpus:
            yield ("cpus", pairs), topology.named(options.cpus, *shape, pairs, memory_node=options.memory_node)
            continue
        for name in dict.fromkeys(options.placements):
            try:
                yield (name, pairs), topology.resolve(name, *shape, pairs, memory_node=options.memory_node)
            except UsageError:
                raise
            except IpclabError as err:
                yield (name, pairs), str(err)


def _names(options: Options) -> tuple[str, ...]:
    if options.mechanisms:
        extra = peers() if options.peers else ()
        return tuple(dict.fromkeys((*options.mechanisms, *extra)))
    return (*CATALOGUE, *(peers() if options.peers else ()))


def _wishes(options: Options) -> Iterator[Case]:
    """Every combination that makes sense; whether it can be is another matter."""
    for (name, pairs), place in _places(options):
        if not isinstance(place, Placement):
            continue
        for pattern in dict.fromkeys(options.patterns):
            for mechanism in _names(options):
                yield from _of_one(options, mechanism, pattern, name, place.cpus, pairs)


def _of_one(
    options: Options, mechanism: str, pattern: Pattern, name: PlacementName, cpus: tuple[int, ...], pairs: int
) -> Iterator[Case]:
    kind = _kind(mechanism)
    sizes = tuple(dict.fromkeys(options.sizes_bytes)) if kind.carries_data else (0,)
    for size in sizes:
        for driver_name in dict.fromkeys(options.drivers):
            if mechanism in peers() and driver_name == "native" and "python" in options.drivers:
                continue  # a library of Python's: its only driver runs anyway
            yield Case(
                mechanism=mechanism,
                driver=driver_name,
                pattern=pattern,
                size_bytes=size,
                placement=name,
                cpus=cpus,
                pairs=pairs,
                producers=options.producers,
                consumers=options.consumers,
                rate_per_s=options.rate_per_s if pattern == "openloop" else None,
                depth=options.depth,
                spins=_spins(mechanism, cpus),
            )


def _spins(mechanism: str, cpus: tuple[int, ...]) -> bool:
    """Whether it will: the ring knows when both its sides are confined to one CPU (core/ring_wait.c)."""
    together = cpus[::2] == cpus[1::2]
    return mechanism in SPINNING and not (mechanism == "ring" and together)


def _unplaced(options: Options) -> Iterator[Refusal]:
    """One for each placement that this machine does not have, with the first case as the example."""
    for (name, pairs), place in _places(options):
        if isinstance(place, str):
            first = next(_of_one(options, _names(options)[0], options.patterns[0], name, (), pairs))
            yield Refusal(case=first, reason=place)


def _obstacle(case: Case, options: Options) -> str | None:
    """Why a case cannot be measured: a sentence; "" when nobody needs to be told; None: it can."""
    asked_for = case.mechanism in options.mechanisms
    kind = _kind(case.mechanism)
    if not kind.carries_data:
        if not kind.takes_turns:
            return "it carries no data and two processes do not take turns by it" if asked_for else ""
        if case.pattern != "pingpong":
            alone = asked_for and "pingpong" not in options.patterns
            return "it carries no data: --pattern pingpong is what it can do" if alone else ""
    return fan.obstacle(case) or _room_obstacle(case) or driver(case.driver).cost_free_reason(case)


def _room_obstacle(case: Case) -> str | None:
    """Whether /dev/shm, which a container may have 64 MB of, has the room."""
    if case.mechanism not in IN_DEV_SHM:
        return None
    free = environment.dev_shm_free()
    needed = 2 * case.pairs * (case.depth or links.default_depth(case.size_bytes)) * case.size_bytes
    if free is None or needed <= free:
        return None
    return f"needs {needed >> 20} MB of /dev/shm, where {free >> 20} are free: a smaller --size, --depth or --pairs"


@functools.cache
def _kind(mechanism: str) -> _Kind:
    if mechanism in peers():
        return _Kind(carries_data=True, takes_turns=True)
    module = load(mechanism)
    return _Kind(module.LINK is not None, hasattr(module, "PING_PONG"))

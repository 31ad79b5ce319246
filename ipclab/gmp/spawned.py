"""Which job a G is of: found from the events, which say who made whom, and the workload, which says in what order.

An event names a G and its maker, no job. But scripts have no conditions: the Gs that one G makes come in the order of
its program's spawns, so the maker's n-th creation is the n-th spawn. Where creations may be missing from the events,
only that is said which no missing one could make untrue. The programs of one job differ in what was drawn, not in whom
they spawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat

from ipclab.gmp.compile import Program
from ipclab.gmp.script import Op, Step
from ipclab.records.gmp import SchedEvent

#: The caller makes it, who writes no events; its program is the first.
_MAIN_GOID = 1


def jobs_of(programs: Sequence[Program], events: Iterable[SchedEvent], whole: bool) -> dict[int, str]:
    """goid -> job, where that is certain. `whole`: no creation from the start on is missing from the events."""
    made: dict[int, list[int]] = defaultdict(list)
    for event in events:
        if event.kind == "create":
            made[event.arg].append(event.goid)
    found = {_MAIN_GOID: 0}
    makers = [_MAIN_GOID]
    while makers:
        maker = makers.pop()
        children = made.pop(maker, [])
        for child, number in zip(children, _numbers(programs, found[maker], len(children), whole), strict=False):
            found[child] = number
            if child in made:
                makers.append(child)
    return {goid: programs[number].job for goid, number in found.items()}


def _numbers(programs: Sequence[Program], maker: int, seen: int, whole: bool) -> Iterator[int]:
    """The programs of the Gs that a G of program `maker` makes; `seen` of its creations are known."""
    steps = programs[maker].steps
    if whole or sum(1 for _number in islice(_spawned(steps), seen + 1)) == seen:
        return _spawned(steps)
    of_job = {programs[number].job: number for number in _spawns(steps)}
    return repeat(next(iter(of_job.values()))) if len(of_job) == 1 else iter(())


def _spawns(steps: list[Step]) -> Iterator[int]:
    return (number for op, number, times in steps if op == Op.SPAWN and times)


def _spawned(steps: list[Step]) -> Iterator[int]:
    """The program of each G that these steps make, in order; loops as doLoop of core/gmp/script.c has them."""
    counts = [0] * 256
    at = 0
    while at < len(steps):
        op, a, b = steps[at]
        at += 1
        if op == Op.EXIT:
            return
        if op == Op.SPAWN:
            yield from repeat(a, b)
        elif op == Op.LOOP and any(True for _number in _spawns(steps[a & 0xFFFFFF : at])):
            counts[a >> 24] += 1
            if counts[a >> 24] < b:
                at = a & 0xFFFFFF
            else:
                counts[a >> 24] = 0

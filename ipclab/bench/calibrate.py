"""How many messages make a sample long enough.

A sample that is too short measures the clock and the scheduler. So the count is doubled (or more, when it was far too
short) until a raw sample lasts a good part of what is wanted, and is then scaled to it. Every attempt runs in fresh
processes as a sample does, so that what is calibrated is what will be measured.
"""

from __future__ import annotations

from collections.abc import Callable

from ipclab.records import Case, Sample

#: A sample this near to the target is long enough to be scaled from.
_NEAR = 0.2
#: Most that one attempt is longer than the last: the first messages of a pair are slow, a guess from them is short.
_MOST_FACTOR = 64
_MOST_ATTEMPTS = 12
#: Fewer than these tell nothing: of a ping-pong's percentiles above all.
LEAST = {"throughput": 32, "pingpong": 100, "openloop": 50}
_FIRST = {"throughput": 256, "pingpong": 100, "openloop": 50}
_MOST_WARM_UP = 2000


def warm_up(messages: int) -> int:
    """How many come before the timed part: a tenth, so that caches, buffers and both processes are there."""
    return max(8, min(messages // 10, _MOST_WARM_UP))


def first_count(case: Case, target_ns: int) -> int:
    """Where to begin. Of an open loop the schedule says it all."""
    if case.rate_per_s is not None:
        return max(LEAST["openloop"], int(case.rate_per_s * target_ns / 1e9))
    if case.pattern == "throughput":
        return max(LEAST["throughput"], min(_FIRST["throughput"], (4 << 20) // max(1, case.size_bytes)))
    return _FIRST[case.pattern]


def far_too_short(case: Case, duration_ns: int, target_ns: int) -> bool:
    """Whether a sample was so short that it says little. Of an open loop the schedule says how long it is."""
    return case.rate_per_s is None and duration_ns < target_ns * _NEAR


def next_count(case: Case, messages: int, duration_ns: int, target_ns: int) -> tuple[int, bool]:
    """The count to go on with after a sample of `messages` that took `duration_ns`, and whether it is the final one."""
    if case.rate_per_s is not None:
        return messages, True
    ratio = target_ns / max(1, duration_ns)
    if not far_too_short(case, duration_ns, target_ns):
        return max(LEAST[case.pattern], round(messages * ratio)), True
    return round(messages * max(2.0, min(float(_MOST_FACTOR), ratio))), False


def calibrate(case: Case, target_ns: int, take: Callable[[int], Sample]) -> tuple[int, Sample]:
    """The count for samples of `target_ns`, and the last sample taken on the way (a failed one ends it).

    `take(messages)` takes one sample.
    """
    messages = first_count(case, target_ns)
    for _ in range(_MOST_ATTEMPTS):
        sample = take(messages)
        if sample.failure:
            return messages, sample
        messages, final = next_count(case, messages, sample.duration_ns, target_ns)
        if final:
            break
    return messages, sample

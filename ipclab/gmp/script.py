"""The core's operations, and times as a workload writes them."""

from __future__ import annotations

import random
import re
from enum import IntEnum

_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_TIME = re.compile(r"(-?\d+(?:\.\d+)?)(ns|us|ms|s)")
_LONGEST_NS = 3_600 * 1_000_000_000 * 24

#: (op, a, b): struct step of core/gmp/runtime2.h.
Step = tuple[int, int, int]


class Op(IntEnum):
    """enum op of core/gmp/script.h."""

    EXIT = 0
    COMPUTE = 1
    SLEEP = 2
    BLOCK = 3
    BLOCKING = 4
    SEND = 5
    RECV = 6
    CLOSE = 7
    SELECT = 8
    LOCK = 9
    UNLOCK = 10
    ACQUIRE = 11
    RELEASE = 12
    WG_ADD = 13
    WG_WAIT = 14
    SPAWN = 15
    YIELD = 16
    LOOP = 17
    LOCKM = 18
    UNLOCKM = 19
    STOPWORLD = 20


def parse_time(text: str, rng: random.Random | None = None) -> int:
    """Nanoseconds of "10ms", or drawn from "5ms..20ms". ValueError says what is wrong.

    >>> parse_time("1.5ms"), parse_time("2s")
    (1500000, 2000000000)
    """
    low, dots, high = text.partition("..")
    first = _ns(low)
    if not dots:
        return first
    last = _ns(high)
    if last < first:
        raise ValueError(f"the range {text} ends before it begins")
    return (rng or random.Random(0)).randint(first, last)


def _ns(text: str) -> int:
    found = _TIME.fullmatch(text)
    if not found:
        number = re.fullmatch(r"-?\d+(\.\d+)?", text)
        raise ValueError(f"{text!r} has no unit, as in {text}ms" if number else f"{text!r} is no time, as in 10ms")
    value = float(found[1]) * _NS[found[2]]
    if value < 0:
        raise ValueError(f"the time {text} is negative")
    if value > _LONGEST_NS:  # also what is too large for a float: it is infinite then
        raise ValueError(f"the time {text} is longer than a day")
    return round(value)

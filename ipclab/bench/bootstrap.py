"""How sure one may be of a median: bootstrap intervals, computed instead of drawn.

A bootstrap draws n of the n values, with replacement, takes their median, does so thousands of times and cuts off both
tails. Of a median all that drawing can be left out: which value is the median of a draw depends on nothing but how many
of the n drawn lie at or below each value, and that is binomial (B. Efron, "Bootstrap methods: another look at the
jackknife", 1979, section 3). So the distribution that drawing only approaches is written down here exactly: no seed, no
noise of its own, no package, the same interval on every machine. scipy and numpy are what the tests hold it against.

What it cannot do: n values never show more than their own range, and below `FEWEST` the true median lies outside that
range more often than one time in twenty. An interval from fewer values is given, for the eye; no verdict rests on it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import NamedTuple

#: How sure an interval is.
CONFIDENCE = 0.95
#: Fewest values whose range holds the median with CONFIDENCE: 1 - 2 / 2**6 = 0.97, with five it would be 0.94.
FEWEST = 6
#: What is less likely than this in a draw is left out: far below anything an interval could show.
_NEVER = 1e-12


class Interval(NamedTuple):
    """A median (or a ratio of medians) and where the true one lies with CONFIDENCE."""

    middle: float
    low: float
    high: float
    #: How many values (or pairs) it rests on: of two groups the smaller number.
    size: int


def of_median(values: Sequence[float]) -> Interval:
    """The median of values, with its interval. Raises ValueError when there are none."""
    spread = _Medians(values)
    tail = (1 - CONFIDENCE) / 2
    return Interval(median(values), spread.at(tail), spread.at(1 - tail), len(values))


def of_ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Interval:
    """The ratio of the medians of two groups that were not measured pair by pair; all values above 0."""
    top, bottom = _Medians(tops), _Medians(bottoms)
    tail = (1 - CONFIDENCE) / 2
    return Interval(
        median(tops) / median(bottoms),
        _ratio_at(top, bottom, tail),
        _ratio_at(top, bottom, 1 - tail),
        min(len(tops), len(bottoms)),
    )


class _Medians:
    """Every median a draw can have, smallest first, and how likely a median at or below each is."""

    def __init__(self, values: Sequence[float]) -> None:
        if not values:
            raise ValueError("no values")
        ordered = sorted(values)
        masses = _odd(ordered) if len(ordered) % 2 else _even(ordered)
        points = sorted((value, mass) for value, mass in masses if mass > _NEVER)
        self.values = [value for value, _mass in points]
        self.masses = [mass for _value, mass in points]
        self.below = list(accumulate(self.masses))

    def at(self, share: float) -> float:
        """The least median such that `share` of all draws lie at or below it."""
        return self.values[min(bisect_left(self.below, share), len(self.values) - 1)]

    def up_to(self, value: float) -> float:
        """Which share of all draws lies at or below a value."""
        position = bisect_right(self.values, value)
        return self.below[position - 1] if position else 0.0


def _odd(ordered: list[float]) -> list[tuple[float, float]]:
    """The middle one of a draw is one of the values: which, and how likely."""
    n = len(ordered)
    tails = [_at_least(n, k / n, (n + 1) // 2) for k in range(n + 1)]
    return [(value, tails[k + 1] - tails[k]) for k, value in enumerate(ordered)]


def _even(ordered: list[float]) -> list[tuple[float, float]]:
    """The two middle ones of a draw of n = 2m are value i and value j, i <= j.

    i < j: m draws are at most i, one of them i; the other m are at least j, one of them j. What remains of the chance
    that the lower of the two is i belongs to i = j.
    """
    n, m = len(ordered), len(ordered) // 2
    ways = _log_choose(n, m)
    # Seen from below for i and from above for j; the two are mirror images.
    edges = [_log((k / n) ** m - ((k - 1) / n) ** m) for k in range(1, n + 1)]
    lower_at_most = [_at_least(n, k / n, m) for k in range(n + 1)]
    masses = []
    for i in range(n):
        rest = lower_at_most[i + 1] - lower_at_most[i]
        for j in range(i + 1, n):
            mass = math.exp(ways + edges[i] + edges[n - 1 - j])
            rest -= mass
            masses.append(((ordered[i] + ordered[j]) / 2, mass))
        masses.append((ordered[i], rest))
    return masses


def _at_least(n: int, p: float, k: int) -> float:
    """The chance of k or more successes in n tries of chance p."""
    if p <= 0 or p >= 1:
        return float(p >= 1)
    yes, no = math.log(p), math.log1p(-p)
    return math.fsum(math.exp(_log_choose(n, i) + i * yes + (n - i) * no) for i in range(k, n + 1))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _ratio_at(top: _Medians, bottom: _Medians, share: float) -> float:
    """The ratio at or below which `share` of all ratios of a median of `top` to one of `bottom` lie, by bisection."""
    low, high = top.values[0] / bottom.values[-1], top.values[-1] / bottom.values[0]
    while high - low > 1e-9 * high:
        guess = (low + high) / 2
        reached = math.fsum(
            mass * top.up_to(guess * value) for value, mass in zip(bottom.values, bottom.masses, strict=True)
        )
        low, high = (low, guess) if reached >= share else (guess, high)
    return high

"""Placement clusters: which samples were taken with the two CPUs equally far apart.

The fingerprint (core/fingerprint.h) says how long a cache line's way there and back takes. It falls into clusters with
wide gaps between them: within a core or a fast cache, within a socket, between sockets. Their places differ a little
from machine to machine, so the borders are not fixed: each lies in the widest gap, within the window below, that this
run's own fingerprints leave. A machine all of whose fingerprints lie within one window is thus not cut in two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

#: Windows for the borders in ns, from the clusters seen (20-60, 80-120, 380-480 ns on one machine in one hour).
_FAST_MIDDLE = (55.0, 90.0)
_MIDDLE_SLOW = (130.0, 370.0)
#: Two fingerprints this near to each other agree wherever the border lies. Chosen: noise of the median on quiet CPUs
#: is below 10 %.
_NEAR = 1.15


class Borders(NamedTuple):
    """Between fast and middle, and between middle and slow, in ns."""

    fast: float
    slow: float


def borders(fingerprints_ns: Iterable[int]) -> Borders:
    """The borders these fingerprints suggest."""
    values = sorted(value for value in fingerprints_ns if value > 0)
    return Borders(_widest(values, *_FAST_MIDDLE), _widest(values, *_MIDDLE_SLOW))


def cluster(ns: int | None, cuts: Borders) -> str:
    """The cluster's name: "same", "fast", "middle", "slow"; "?" when it is not known."""
    if ns is None:
        return "?"
    if ns == 0:
        return "same"
    return "fast" if ns < cuts.fast else "middle" if ns < cuts.slow else "slow"


def agree(before_ns: int | None, after_ns: int | None, cuts: Borders) -> bool:
    """Whether nothing has moved between the two."""
    if before_ns is None or after_ns is None:
        return False
    if cluster(before_ns, cuts) == cluster(after_ns, cuts):
        return True
    low, high = sorted((before_ns, after_ns))
    return low > 0 and high <= low * _NEAR


def _widest(values: list[int], low: float, high: float) -> float:
    """The middle (geometric) of the widest gap between neighbours within a window, whose own ends count as values."""
    inside = [low, *(value for value in values if low < value < high), high]
    gaps = [(b / a, math.sqrt(a * b)) for a, b in itertools.pairwise(inside)]
    return max(gaps)[1]

"""What the harness itself costs, measured in the run whose figures it is part of."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ipclab import _core
from ipclab.bench import python_driver
from ipclab.records import Overheads

NONE = Overheads()
_LOOKS = 2000


def measure(sizes_bytes: Iterable[int]) -> Overheads:
    """Verification by message size, the python driver's loop, a look at the clock; some 50 ms."""
    return Overheads(
        verification_ns_per_message={size: round(_core.verification_cost(size), 1) for size in sorted(sizes_bytes)},
        python_loop_ns=python_driver.overhead_ns(),
        clock_ns=_clock(),
    )


def _clock() -> float:
    """One time.monotonic_ns(), the least of a few turns."""
    now = time.monotonic_ns
    best = float("inf")
    for _ in range(5):
        began = now()
        for _ in range(_LOOKS):
            now()
        best = min(best, (now() - began) / _LOOKS)
    return round(best, 1)

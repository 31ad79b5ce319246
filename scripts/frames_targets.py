"""What it costs to capture a suspended coroutine and to restore it, against the targets of issue 6.

    python scripts/frames_targets.py [--rounds N] [--json]

Two coroutines: one two deep with ten small locals (target: at most 2 us each way), and its leaf alone. Each is captured
and restored many times; the minimum of many rounds is what it costs, the rest is what else the machine did. Once with
the names of ipclab.gmp.names, and once with numbers in their place, as the scheduler's table of functions gives them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from ipclab.gmp import frames, names

TARGET_US = 2.0
#: Captures in one timed round: chosen, so that a round is some hundred microseconds, and most see no interruption.
PER_ROUND = 200


async def leaf(count: int, factor: float, name: str) -> float:
    total, found = 0.0, True
    for step in range(count):
        total += factor * await frames.Suspension(step)
    return total if found else len(name)


async def root(count: int, name: str) -> float:
    one, two, limit, ratio, done = 1, 2, 1000, 0.5, False
    got = await leaf(count, ratio, name)
    return got + one + two + limit if not done else 0.0


def numbered() -> frames.Codec:
    table: list[Any] = []

    def name_of(thing: Any, scope: Any) -> int | None:
        if names.name_of(thing, scope) is None:
            return None
        table.append(thing)
        return len(table) - 1

    return frames.Codec(name_of, table.__getitem__, names.reduce)


def cost_us(call: Callable[[Any], Any], argument: object, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        kept = [None] * PER_ROUND
        start = time.perf_counter_ns()
        for index in range(PER_ROUND):
            kept[index] = call(argument)
        best = min(best, (time.perf_counter_ns() - start) / PER_ROUND / 1000)
        for thing in kept:
            if not isinstance(thing, bytes):
                frames.abandon(thing)
    return best


def measure(rounds: int) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    for what, coroutine in (("two deep", root(3, "a name")), ("leaf", leaf(3, 0.5, "a name"))):
        coroutine.send(None)
        for how, codec in (("names", frames.codec()), ("numbers", numbered())):
            captured = codec.dump(coroutine)
            results.append(
                {
                    "coroutine": what,
                    "names": how,
                    "bytes": len(captured),
                    "capture_us": round(cost_us(codec.dump, coroutine, rounds), 3),
                    "restore_us": round(cost_us(codec.load, captured, rounds), 3),
                }
            )
        frames.abandon(coroutine)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not frames.available():
        sys.exit(f"no portable coroutines here: {frames.reason()}")
    results = measure(options.rounds)
    if options.json:
        print(json.dumps({"python": sys.version.split()[0], "target_us": TARGET_US, "results": results}))
        return 0
    print(f"Python {sys.version.split()[0]}, target {TARGET_US} us each way, minimum of {options.rounds} rounds")
    for row in results:
        print(
            f"{row['coroutine']:9} {row['names']:8} capture {row['capture_us']:6} us   restore {row['restore_us']:6} us"
            f"   {row['bytes']} bytes"
        )
    missed = [row for row in results if max(float(str(row["capture_us"])), float(str(row["restore_us"]))) > TARGET_US]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Damaged captures, for tests/gmp/test_frames_robust.py: load must raise, and never crash. Run as a process of its own.

    python -X faulthandler tests/frames_fuzz.py SEED COUNT [sealed]

Bits flipped, bytes changed, pieces cut out, put in and doubled. With "sealed" the checksum is made right again after
the damage, so that everything behind it is tried too; then a coroutine may come out that must not be gone on with, and
is not.
Prints how often it was refused, and how often something came out.
"""

from __future__ import annotations

import collections
import gc
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from ipclab.gmp import frames

MASK = (1 << 64) - 1
ODD = 0x9E3779B97F4A7C15


class Harmless:
    """An object that may be called with anything, has any state, and takes any item."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __reduce__(self) -> Any:
        return Harmless, (1, "a"), {"state": [1]}, iter([1, 2]), iter([("k", 1)])

    def extend(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...


def numbers(limit: int) -> Iterator[int]:
    with_state = [limit]
    for number in range(limit):
        yield number + len(with_state)


async def inner(table: dict[str, object], *more: object) -> None:
    cell = [1]

    def closure() -> list[int]:
        return cell

    waiting = numbers(3)
    next(waiting)
    for key in more:
        for item in table.items():
            try:
                await frames.Suspension((key, item, closure))
            finally:
                del key


async def outer() -> None:
    loop: list[object] = [1.5, -1, 10**30, "text", b"bytes", "s" * 70, b"b" * 70, bytearray(b"x"), None, True, ...]
    loop += [
        loop,
        (loop, ()),
        {1, 2},
        frozenset({3}),
        {"k": loop},
        Harmless(),
        collections.OrderedDict(a=1),
        numbers(1),
    ]
    loop += [iter([1]), iter((1,)), {}.keys(), reversed({1: 2}), lambda: loop, [].append, frames.Suspension(1)]
    await inner({"a": loop, "b": 2}, "x", "y")


class Harmlessly:
    """Names that lead to a few harmless things; any other is not there."""

    def __init__(self) -> None:
        self.things: dict[bytes, object] = {}

    def name_of(self, thing: object, _: object) -> bytes:
        name = b"%d" % len(self.things)
        self.things[name] = thing
        return name

    def find(self, name: object) -> object:
        if isinstance(name, bytes) and name in self.things:
            return self.things[name]
        raise LookupError(name)


def seal_of(body: bytes, start: int) -> bytes:
    """As seal_of in _frames_read.c; start: what it begins with, apart from the length."""

    def fold(value: int, piece: int) -> int:
        product = (value ^ piece ^ ODD) * ODD
        return (product ^ product >> 64) & MASK

    def words(piece: bytes) -> list[int]:
        return [int.from_bytes(piece[at : at + 8], "little") for at in range(0, len(piece), 8)]

    value, much = (start ^ len(body) << 32) & MASK, len(body) // 32 * 32 if len(body) >= 64 else 0
    lanes = [value + lane for lane in range(4)]
    for index, word in enumerate(words(body[:much])):
        lanes[index % 4] = fold(lanes[index % 4], word)
    rest = body[much:]
    for word in [*(lanes if much else ()), *words(rest), *([] if len(rest) % 8 else [0])]:
        value = fold(value, word)
    return ((value ^ value >> 32) & 0xFFFFFFFF).to_bytes(4, "little")


def start_of(captured: bytes) -> int:
    """Which number of tags this build has: tried, as no name tells it."""
    for tags in range(256):
        start = (sys.hexversion >> 16) << 8 ^ tags
        if seal_of(captured[:-4], start) == captured[-4:]:
            return start
    raise SystemExit("the seal is not what this script takes it for")


def damage(captured: bytes, dice: random.Random) -> bytes:
    data = bytearray(captured)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        at, to = dice.randrange(len(data)), dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0 | 1:
                data[at] ^= 1 << dice.randrange(8)
            case 2:
                data[at] = dice.randrange(256)
            case 3:
                del data[at : at + dice.randrange(1, 9)]
            case 4:
                data[at:at] = data[to : to + dice.randrange(1, 20)]
            case _:
                data[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
        if not data:
            return b""
    return bytes(data)


def main() -> None:
    dice, count, sealed = random.Random(int(sys.argv[1])), int(sys.argv[2]), "sealed" in sys.argv
    finder = Harmlessly()
    codec = frames.Codec(finder.name_of, finder.find)
    coroutine = outer()
    coroutine.send(None)
    captured = codec.dump(coroutine)
    codec.abandon(codec.load(captured))
    start = start_of(captured)
    for cut in range(len(captured)):
        try:
            codec.load(captured[:cut])
        except ValueError:
            continue
        raise SystemExit(f"the first {cut} bytes of a capture passed for one")
    refused, came, kept = 0, 0, []
    for number in range(count):
        body = damage(captured[:-4] if sealed else captured, dice)
        if body == captured:
            continue
        try:
            got = codec.load(body + seal_of(body, start) if sealed else body)
        except Exception:
            refused += 1
        else:
            came += 1
            try:
                codec.abandon(got)
            except Exception:
                kept.append(got)  # its end would run what the damage has made of it
        if number % 500 == 0:
            gc.collect()
    print(refused, came)
    sys.stdout.flush()
    os._exit(0)  # what was kept must not end


if __name__ == "__main__":
    main()

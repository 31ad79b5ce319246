"""Portable coroutines, if this interpreter has them: whoever wants to move one asks here, and nowhere else.

    available(), reason()      whether, and if not, why not
    dump(coroutine) -> bytes   every await on the way captured, nothing changed; NotPortable: it must stay
    load(bytes) -> coroutine   the same, here, ready to go on
    abandon(coroutine)         it goes on elsewhere: it ends here without running its finally blocks
    Suspension(request)        what the innermost await waits for

The extension reads structures of the interpreter that no promise covers. So before anybody is told that it is
available, it is held against what the interpreter says of itself, and then a coroutine is moved at each of its awaits
and compared with one that stayed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from ipclab.errors import NotPortable
from ipclab.gmp import names

__all__ = ["Codec", "NotPortable", "Suspension", "abandon", "available", "codec", "dump", "load", "reason"]

try:
    from ipclab._frames import Codec, Suspension, describe
except ImportError as error:
    _reason: str | None = f"the extension for Python {sys.version_info[0]}.{sys.version_info[1]} is not there: {error}"
else:
    _reason = None


def available() -> bool:
    """Whether a suspended coroutine can be captured here."""
    return _reason is None


def reason() -> str:
    """Why not; empty if it can."""
    return _reason or ""


def codec() -> Codec:
    """A codec of one's own, which names things as ipclab.gmp.names does. NotPortable: `reason()`."""
    if _reason is not None:
        raise NotPortable(_reason, hint="run it under CPython 3.11, 3.12 or 3.13")
    return Codec(names.name_of, names.find, names.reduce)


def dump(thing: object) -> bytes:
    """Objects, and the suspended coroutines and generators in them, as bytes. Changes nothing.

    NotPortable names the function, the local and the reason: the coroutine can then go on only where it is.
    """
    return (_codec or codec()).dump(thing)


def load(captured: bytes | bytearray | memoryview) -> Any:
    """A copy of what was dumped, in any process with the same modules; its coroutines are ready to go on.

    ValueError: the bytes are damaged, or of another Python. LookupError: something they name is not in this process.
    They must come from `dump`: they may call anything.
    """
    return (_codec or codec()).load(captured)


def abandon(thing: object) -> None:
    """What `dump` captured goes on elsewhere: its coroutines end here, and neither finally nor __exit__ runs."""
    (_codec or codec()).abandon(thing)


# --- the self-test ---------------------------------------------------------------------------------------------------


async def _leaf(steps: int, *, factor: int = 3) -> int:
    total = 0
    try:
        for step in range(steps):
            total += factor * await Suspension(step)
        return total
    finally:
        total = -1


async def _root(table: dict[str, int], *more: int) -> list[object]:
    shared = [0]

    def count() -> int:
        shared[0] += 1
        return shared[0]

    found: list[object] = []
    for iterator in (iter(more), iter(list(more)), iter(table), iter(table.values()), iter(table.items())):
        for item in iterator:
            got = await _leaf(2)
            found.append((item, got, count()))
    for item in reversed(table.items()):
        got = await _leaf(1)
        found.append((item, got, count()))
    return found


def _run(move: Callable[[Any], Any]) -> list[object]:
    coroutine: Coroutine[Any, Any, list[object]] = _root({"a": 1, "b": 2}, 7, 8)
    told = None
    while True:
        try:
            asked = coroutine.send(told)
        except StopIteration as end:
            result: list[object] = end.value
            return result
        told = asked + 1
        coroutine = move(coroutine)


def _resting() -> Generator[int, int, None]:
    for step in range(3):
        yield step + 1


def _check_layout() -> None:
    """Reads only: what the extension takes a frame for, against what the interpreter says."""
    resting: Any = _resting()
    for _ in range(2):
        next(resting)
        state, code, scope, offset, values = describe(resting)
        frame = resting.gi_frame
        locals_and_stack = (1, 1 + code.co_stacksize)
        if (code, id(scope), 2 * offset) != (frame.f_code, id(frame.f_globals), frame.f_lasti):
            raise RuntimeError("a frame's code, globals or instruction is not where it should be")
        if state not in (1, 2) or not locals_and_stack[0] < values <= locals_and_stack[1]:
            raise RuntimeError("a frame's state or number of values is not where it should be")
    resting.close()
    if describe(resting) != (3,):
        raise RuntimeError("the state of a generator that has ended is not where it should be")


def _self_test() -> None:
    _check_layout()
    own = codec()

    def move(coroutine: Any) -> Any:
        captured = own.dump(coroutine)
        own.abandon(coroutine)
        return own.load(captured)

    if _run(move) != _run(lambda coroutine: coroutine):
        raise RuntimeError("a coroutine that moved came to another result")


_codec: Codec | None = None
if _reason is None:
    try:
        _self_test()
    except Exception as error:
        _reason = f"the self-test failed: {type(error).__name__}: {error}"
    else:
        _codec = codec()

"""Coroutines that use the language, for tests/gmp/test_frames.py: each is run where it is, and moved at every await.

    python tests/frames_cases.py drive     every case, unmoved and through two spawned processes; the outcomes as JSON
    python tests/frames_cases.py worker    one such process: goes on with a coroutine up to its next await

A case is an async function without arguments. It awaits `tick(x)`, which is worth x, says what it does with `say`, and
returns something whose repr tells whether all is well. What one process says the others do not see: the driver
collects it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
import struct
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import IO, Any, NamedTuple

from ipclab.gmp import frames

Case = Callable[[], Coroutine[Any, Any, object]]
CASES: dict[str, Case] = {}
#: What the coroutines said in this process since somebody looked.
SAID: list[object] = []


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def say(thing: object) -> None:
    SAID.append(thing)


async def tick(thing: Any) -> Any:
    return await frames.Suspension(thing)


# --- loops -----------------------------------------------------------------------------------------------------------


class Countdown:
    """An iterator of the user's."""

    def __init__(self, start: int) -> None:
        self.left = start

    def __iter__(self) -> Countdown:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


class Old:
    """Iterated by __getitem__."""

    def __getitem__(self, index: int) -> int:
        if index == 3:
            raise IndexError
        return index


def numbers() -> Iterator[int]:
    yield 1
    yield from (2, 3)


def twice(number: int) -> int:
    return 2 * number


ITERABLES: dict[str, Callable[[], Any]] = {
    "range": lambda: range(4),
    "range_back": lambda: range(10, -10, -5),
    "range_empty": lambda: range(0),
    "range_long": lambda: range(10**20, 10**20 + 3),
    "list": lambda: [1, "two", [3]],
    "list_empty": list,
    "tuple": lambda: (1, (2,), None),
    "dict": lambda: {"a": 1, "b": 2},
    "keys": {"a": 1, "b": 2}.keys,
    "values": lambda: {"a": 1, "b": 2}.values(),
    "items": lambda: {"a": 1, "b": 2}.items(),
    "dict_back": lambda: reversed({"a": 1, "b": 2}),
    "items_back": lambda: reversed({"a": 1, "b": 2, "c": 3}.items()),
    "set": lambda: {5},
    "frozenset": lambda: frozenset({7}),
    "str": lambda: "abc",
    "str_wide": lambda: "aäß\N{SNOWMAN}",
    "bytes": lambda: b"\0\xff",
    "bytearray": lambda: bytearray(b"xy"),
    "enumerate": lambda: enumerate(["a", "b"], 5),
    "zip": lambda: zip([1, 2, 3], "abc", strict=True),
    "reversed": lambda: reversed([1, 2, 3]),
    "reversed_range": lambda: reversed(range(3)),
    "map": lambda: map(twice, [1, 2, 3]),
    "filter": lambda: filter(None, [0, 1, 2]),
    "countdown": lambda: Countdown(3),
    "getitem": Old,
    "generator": numbers,
    "genexp": lambda: (one + 1 for one in range(3)),
    "nested": lambda: enumerate(zip(range(3), reversed("abc"), strict=False)),
}


async def loop(name: str) -> object:
    found = []
    for item in ITERABLES[name]():
        got = await tick(item)
        found.append(got)
        say(got)
    return found


for _name in ITERABLES:
    CASES[f"for_{_name}"] = functools.partial(loop, _name)


@case
async def while_else() -> object:
    count = 0
    while count < 4:
        count += 1
        if count == 2:
            await tick(None)
            continue
        say(await tick(count))
    else:
        say("else")
    while True:
        if await tick(True):
            break
    return count


@case
async def loops_within_loops() -> object:
    found = []
    for first in range(2):
        for second in (10, 20):
            for key, value in {"k": first, "l": second}.items():
                got = await tick((first, second, key, value))
                found.append(got)
    return found


@case
async def list_grows_in_its_loop() -> object:
    growing = [1, 2]
    for item in growing:
        if await tick(item) < 3 and len(growing) < 5:
            growing.append(item + 2)
    return growing


@case
async def dict_changes_in_its_loop() -> object:
    table = {"gone": 0, "a": 1, "b": 2, "c": 3}
    del table["gone"]
    seen = []
    for key, value in table.items():
        seen.append((key, value))
        await tick(key)
        table["c"] = 30
    try:
        for key in table:
            await tick(key)
            table[key + key] = 0
    except RuntimeError as error:
        return seen, str(error)
    return seen


# --- comprehensions --------------------------------------------------------------------------------------------------


@case
async def comprehensions() -> object:
    one = [await tick(x) for x in range(3) if x != 1]
    two = {x: await tick(y) for x, y in zip("ab", (1, 2), strict=True)}
    three = {await tick(x) for x in (3,)}
    four = [x async for x in Slow(3)]
    five = [[await tick(x * y) async for x in Slow(2)] for y in (1, 2)]
    six = [await tick(x) for x in [await tick(y) for y in (1, 2)]]
    x = 5
    return one, two, three, four, five, six, x


@case
async def comprehension_keeps_an_outer_name() -> object:
    inner = "outer"
    found = [inner for inner in range(2) if await tick(inner) is not None]
    return found, inner


# --- try, with, exceptions -------------------------------------------------------------------------------------------


@case
async def try_finally() -> object:
    try:
        say(await tick("in try"))
        try:
            return await tick("result")
        finally:
            say("inner finally")
    finally:
        say("outer finally")


@case
async def try_except_else() -> object:
    try:
        await tick("before")
        await raise_later(2)
    except KeyError as error:
        say(repr(error))
    else:
        say("not reached")
    try:
        await tick(1)
    except KeyError:
        say("not reached")
    else:
        say(await tick("else"))
    finally:
        say("finally")
    await tick("after except")
    return "done"


async def raise_later(steps: int) -> None:
    for step in range(steps):
        await tick(step)
    raise KeyError(steps)


class Within:
    """A context manager of both kinds that says what it does."""

    def __init__(self, name: str, swallows: bool = False) -> None:
        self.name, self.swallows = name, swallows

    def __enter__(self) -> Within:
        say(("enter", self.name))
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        say(("exit", self.name, repr(value)))
        return self.swallows

    async def __aenter__(self) -> Within:
        say(("aenter", await tick(self.name)))
        return self

    async def __aexit__(self, kind: Any, value: Any, trace: Any) -> bool:
        if value is None:  # an exception on its way cannot travel, and nothing here tries
            say(("aexit", await tick(self.name)))
        return self.swallows


@contextlib.contextmanager
def written(name: str) -> Iterator[str]:
    say(("begin", name))
    try:
        yield name
    finally:
        say(("end", name))


@case
async def with_statements() -> object:
    with Within("one") as one, Within("two", swallows=True):
        await tick(one.name)
        with written("three") as three:
            await tick(three)
        raise ValueError("swallowed")
    with contextlib.suppress(KeyError):
        await raise_later(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Within("four"))
        stack.callback(say, "five")
        await tick("stacked")
    return one.name


@case
async def async_with() -> object:
    async with Within("one") as one, Within("two"):
        await tick("inside")
    return one.name


# --- async for, awaitables -------------------------------------------------------------------------------------------


class Slow:
    """An async iterator that waits before each item."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        if not self.count:
            raise StopAsyncIteration
        self.count -= 1
        return int(await tick(self.count))


class SlowEnd(Slow):
    def __init__(self) -> None:
        super().__init__(0)

    async def __anext__(self) -> int:
        await tick("before the end")
        return await super().__anext__()


@case
async def async_for() -> object:
    found = []
    async for item in Slow(3):
        got = await tick(item)
        found.append(got)
    else:
        say("else")
    found.append(await anext(Slow(1)))
    found.append(await anext(Slow(1), "default"))
    found.append(await anext(SlowEnd(), "default"))
    return found


class Answer:
    """Awaited by a generator of its own."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __await__(self) -> Generator[Any, Any, int]:
        total = 0
        for step in range(self.steps):
            total += yield step
        return total


class Passed:
    """Awaited by the __await__ of a coroutine."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return tick("passed").__await__()


@types.coroutine
def by_generator(thing: Any) -> Generator[Any, Any, Any]:
    got = yield thing
    return got


@case
async def awaitables() -> object:
    waiting = tick("made before")
    begun = Answer(2)
    return await Answer(3), await Passed(), await by_generator("old"), await waiting, await begun


@case
async def generators_in_locals() -> object:
    fresh, begun, ended = numbers(), numbers(), numbers()
    found = [next(begun), list(ended)]
    await tick("paused")
    found += [next(begun), list(fresh), list(ended), list(begun)]
    await tick("and on")
    return found


async def deep(left: int) -> int:
    if not left:
        return int(await tick(1)) + int(await tick(2))
    mine = left * 10
    below = await deep(left - 1)
    return below + mine - left * 10 + 1


for _depth in (1, 2, 3, 5, 8, 13, 20):
    CASES[f"deep_{_depth}"] = functools.partial(deep, _depth)


# --- functions -------------------------------------------------------------------------------------------------------


async def arguments(a: Any, /, b: Any = 2, *args: Any, c: Any, d: Any = (4,), **more: Any) -> object:
    await tick(a)
    b = await tick(b)
    return a, b, args, c, d, more


@case
async def all_kinds_of_arguments() -> object:
    first = await arguments(1, c=3)
    second = await arguments(1, 2, 3, 4, c=5, e=6)
    return first, second, await arguments(*range(3), **{"c": 1, "zz": 2})


@case
async def closures() -> object:
    count = 0

    async def add(much: int) -> None:
        nonlocal count
        for _ in range(much):
            count += await tick(1)
            say(count)

    def peek() -> int:
        return count

    async def twice() -> Callable[[], int]:
        await add(2)
        say(("peek", peek()))
        return lambda: count + 100

    later = await twice()
    count += 10
    await tick("between")
    await add(1)
    return count, peek(), later(), (await tick(lambda: count))()


@case
async def a_local_function_calls_itself() -> object:
    def fib(n: int, /, *, more: list[int] | None = None) -> int:
        """Counts rabbits."""
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    fib.note = "kept"  # type: ignore[attr-defined]
    await tick(0)
    said = fib.__name__, fib.__qualname__, fib.__doc__, fib.__module__, fib.__kwdefaults__, fib.__annotations__
    return fib(10), fib.note, said  # type: ignore[attr-defined]


def doubled(function: Callable[..., Awaitable[int]]) -> Callable[..., Coroutine[Any, Any, int]]:
    @functools.wraps(function)
    async def wrapper(*args: Any) -> int:
        await tick("wrapped")
        return 2 * await function(*args)

    return wrapper


@doubled
async def decorated(n: int) -> int:
    return int(await tick(n))


at_top: Callable[[Any], Any] = lambda thing: tick((thing, "lambda"))  # noqa: E731


class Base:
    async def greet(self, name: str) -> str:
        return f"base {await tick(name)}"


class Derived(Base):
    kind = "derived"

    async def greet(self, name: str) -> str:
        above = await super().greet(name)
        return f"{self.kind} {above} {await tick(__class__.__name__)}"  # type: ignore[name-defined]

    @classmethod
    async def made(cls) -> str:
        return f"{await tick(cls.kind)}{cls.__name__}"

    @staticmethod
    async def plain(thing: Any) -> Any:
        return await tick(thing)

    @property
    async def later(self) -> Any:
        return await tick("property")


@case
async def functions_of_all_kinds() -> object:
    it = Derived()
    bound, plain, partial = it.greet, Derived.plain, functools.partial(arguments, 1, c=2)
    found = [await decorated(4), await at_top(5), await bound("x"), await Derived.made(), await plain(6)]
    found += [await it.later, await partial(b=3)]
    coroutine: Any = decorated(1)
    found += [coroutine.__name__, await coroutine]
    return found


# --- names -----------------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    x: int
    y: int


@case
async def match_statement() -> object:
    found: list[object] = []
    for thing in ({"k": [1, 2, 3]}, Point(1, 2), [4, 5], "text", None):
        match await tick(thing):
            case {"k": [first, *rest]}:
                found.append((await tick(first), rest))
            case Point(x=1, y=y):
                found.append(await tick(y))
            case [a, b] if await tick(a) < b:
                found.append(b)
            case str() as text:
                found.append(await tick(text))
            case _:
                found.append("none")
    return found


@case
async def walrus() -> object:
    found: list[object] = []
    while (got := await tick(len(found))) < 3:
        found.append(got)
    return found, got, (last := await tick("w")), last


@case
async def deleted_local() -> object:
    gone = await tick("soon gone")
    del gone
    await tick("it is empty, not None")
    try:
        return gone  # noqa: F821
    except UnboundLocalError as error:
        return str(error)


@case
async def deleted_cell() -> object:
    gone = 1

    def use() -> int:
        return gone  # noqa: F821

    del gone
    await tick("the cell is empty")
    try:
        return use()
    except NameError as error:
        return str(error)


counted = 0


@case
async def global_counter() -> object:
    global counted
    counted = 0
    for _ in range(3):
        counted += await tick(1)
    return counted


@case
async def half_evaluated() -> object:
    def add(*numbers: int, **more: int) -> int:
        return sum(numbers) + sum(more.values())

    found = [1, add(1, await tick(2), 3, k=await tick(4)), f"{await tick('f')}-{1 + await tick(1)}"]
    return found, {"k": await tick(0)}


@case
async def locals_called() -> object:
    first = 1
    before = sorted(locals())
    await tick(first)
    return before, sorted(locals())


#: The globals of a module belong to a process; these are compared within one only.
HERE_ONLY = {"global_counter"}

# --- driving ---------------------------------------------------------------------------------------------------------


def outcome_of(coroutine: Any, move: Callable[[Any], Any]) -> tuple[str, int]:
    """Drives one to its end; what it came to, and how often it waited."""
    SAID.clear()
    told, moves, now = None, 0, coroutine
    while True:
        try:
            told = now.send(told)
        except StopIteration as end:
            return repr(("returned", end.value, SAID)), moves
        except Exception as error:
            return repr(("raised", error, SAID)), moves
        moves += 1
        now = move(now)


def unmoved(name: str) -> tuple[str, int]:
    return outcome_of(CASES[name](), lambda now: now)


def moved_here(coroutine: Any) -> Any:
    captured = frames.dump(coroutine)
    frames.abandon(coroutine)
    return frames.load(captured)


def write(file: IO[bytes], *things: object) -> None:
    data = pickle.dumps(things)
    file.write(struct.pack("<I", len(data)) + data)
    file.flush()


def read(file: IO[bytes]) -> Any:
    (size,) = struct.unpack("<I", file.read(4))
    return pickle.loads(file.read(size))


def work(source: IO[bytes], sink: IO[bytes]) -> None:
    """Goes on with each coroutine that comes, up to its next await; what it asked goes back as it would travel on."""
    while True:
        captured, told = read(source)
        if captured is None:
            return
        coroutine, told = frames.load(captured), frames.load(told)
        SAID.clear()
        try:
            asked = coroutine.send(told)
        except StopIteration as end:
            write(sink, "returned", None, None, (repr(end.value), list(map(repr, SAID))))
        except Exception as error:
            write(sink, "raised", None, None, (repr(error), list(map(repr, SAID))))
        else:
            write(sink, "waits", frames.dump((coroutine, asked)), None, (None, list(map(repr, SAID))))
            frames.abandon(coroutine)


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def through(workers: list[subprocess.Popen[bytes]], name: str) -> tuple[str, int]:
    """Runs a case so that each step is made by another process than the one before."""
    said: list[str] = []
    first = CASES[name]()
    now, told, moves = frames.dump(first), frames.dump(None), 0
    frames.abandon(first)
    while True:
        worker = workers[moves % len(workers)]
        assert worker.stdin is not None
        assert worker.stdout is not None
        write(worker.stdin, now, told)
        how, both, _, (result, more) = read(worker.stdout)
        said += more
        if how != "waits":
            return f"({how!r}, {result}, [{', '.join(said)}])", moves
        coroutine, asked = frames.load(both)
        now, told = frames.dump(coroutine), frames.dump(asked)
        frames.abandon(coroutine)
        moves += 1


def drive() -> None:
    workers = [start(), start()]
    for worker in workers:
        assert worker.stdin is not None
    results = {}
    for name in CASES:
        if name not in HERE_ONLY:
            results[name] = (unmoved(name), through(workers, name))
    for worker in workers:
        assert worker.stdin is not None
        write(worker.stdin, None, None)
        worker.wait(10)
    print(json.dumps(results))


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        drive()
    else:
        work(sys.stdin.buffer, sys.stdout.buffer)

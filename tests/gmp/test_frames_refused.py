"""What cannot leave its process says so, with function, local and reason, and the coroutine goes on where it is."""

from __future__ import annotations

import builtins
import contextlib
import io
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest

from ipclab.errors import IpclabError
from ipclab.gmp import frames
from ipclab.gmp.frames import NotPortable, Suspension, dump, load

pytestmark = pytest.mark.skipif(not frames.available(), reason=frames.reason())


async def tick(thing: object = None) -> Any:
    return await Suspension(thing)


async def within_except() -> str:
    try:
        raise KeyError("k")
    except KeyError as error:
        await tick()
        return repr(error)


async def within_finally_of_an_exception() -> str:
    try:
        try:
            raise KeyError("k")
        finally:
            await tick()
    except KeyError as error:
        return repr(error)


class Asks:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> bool:
        await tick()
        return True


async def within_aexit_of_an_exception() -> str:
    async with Asks():
        raise KeyError("k")
    return "swallowed"


async def agen() -> AsyncIterator[int]:
    yield 1
    await tick()
    yield 2


async def over_an_async_generator() -> list[int]:
    found = []
    async for item in agen():
        found.append(item)
    return found


async def async_generator_in_a_local() -> str:
    waiting = agen()
    await tick()
    return type(waiting).__name__


async def an_open_file() -> str:
    with open(__file__) as file:
        await tick()
        return file.readline()[:3]


async def a_lock() -> bool:
    lock = threading.Lock()
    await tick()
    return lock.acquire()


async def a_lock_that_is_held() -> str:
    with threading.Lock():
        await tick()
        return "held"


async def a_socket() -> int:
    with socket.socket() as unconnected:
        await tick()
        return unconnected.fileno() and 0


async def a_memoryview() -> int:
    view = memoryview(b"abc")
    await tick()
    return view[0]


async def a_generator_with_a_lock() -> int:
    def locked() -> Generator[int, None, None]:
        mine = threading.Lock()
        yield 1
        with mine:
            yield 2

    numbers = locked()
    next(numbers)
    await tick()
    return next(numbers)


async def deep_down() -> int:
    async def middle() -> int:
        return await a_generator_with_a_lock()

    return await middle()


async def half_evaluated() -> str:
    return f"{type(threading.Lock()).__name__}" + str([threading.Lock(), await tick()])[:1]


def made_by_exec() -> Any:
    space: dict[str, Any] = {}
    exec("async def inner(tick):\n    return (await tick()) or 3", space)
    return space["inner"]


async def a_function_of_no_module() -> int:
    return int(await made_by_exec()(tick))


REFUSED: list[tuple[Callable[[], Coroutine[Any, Any, object]], str, object]] = [
    (within_except, "within_except: suspended while it handles an exception", "KeyError('k')"),
    (within_finally_of_an_exception, "within_finally_of_an_exception: suspended while", "KeyError('k')"),
    (within_aexit_of_an_exception, "within_aexit_of_an_exception: suspended while", "swallowed"),
    (over_an_async_generator, "over_an_async_generator: a value of the expression.*an async generator", [1, 2]),
    (async_generator_in_a_local, "async_generator_in_a_local: local 'waiting': an async generator", "async_generator"),
    (an_open_file, "an_open_file: local 'file': cannot pickle .*TextIOWrapper", '"""'),
    (a_lock, "a_lock: local 'lock': cannot pickle '_thread.lock'", True),
    (a_lock_that_is_held, "a_lock_that_is_held: a value of the expression.*cannot pickle '_thread.lock'", "held"),
    (a_socket, "a_socket: local 'unconnected': cannot pickle 'socket'", 0),
    (a_memoryview, "a_memoryview: local 'view': cannot pickle .*memoryview", 97),
    (a_generator_with_a_lock, "locked: local 'mine': cannot pickle", 2),
    (deep_down, "locked: local 'mine': cannot pickle", 2),
    (half_evaluated, "half_evaluated: a value of the expression.*cannot pickle", "lock["),
    (a_function_of_no_module, "inner: its globals are those of no module", 3),
]


def drive(coroutine: Coroutine[Any, Any, Any], at_each_await: Callable[[], object]) -> Any:
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        at_each_await()


@pytest.mark.parametrize(("function", "why", "result"), REFUSED, ids=[row[0].__name__ for row in REFUSED])
def test_it_stays_and_goes_on(function: Callable[[], Coroutine[Any, Any, object]], why: str, result: object) -> None:
    coroutine = function()

    def refused() -> None:
        for attempt in (dump, frames.abandon):
            with pytest.raises(NotPortable, match=why):
                attempt(coroutine)

    assert drive(coroutine, refused) == result


def test_one_that_runs() -> None:
    async def dumps_itself() -> str:
        try:
            dump(coroutine)
        except NotPortable as error:
            return str(error)
        return "?"

    coroutine = dumps_itself()
    assert drive(coroutine, lambda: None).endswith("dumps_itself: it is running")


def test_one_that_runs_in_another() -> None:
    def generator() -> Generator[bytes, None, None]:
        yield dump(outer())

    def outer() -> Generator[object, None, None]:
        yield mine

    mine = generator()
    with pytest.raises(NotPortable, match="generator: it is running"):
        next(mine)


def test_a_namespace_of_no_module_travels_where_it_is_a_value() -> None:
    async def work() -> int:
        inner = made_by_exec()
        space = inner.__globals__
        space["more"] = 1
        await inner(tick)
        return int(space["more"]) + len(inner.__globals__["__builtins__"])

    coroutine = begun(work())
    again = load(dump(coroutine))
    frames.abandon(coroutine)
    assert drive(again, lambda: None) == 1 + len(vars(builtins))


def test_after_except_it_travels_again() -> None:
    async def work() -> str:
        try:
            raise KeyError
        except KeyError:
            pass
        await tick()
        return "moved"

    coroutine = work()
    coroutine.send(None)
    again = load(dump(coroutine))
    frames.abandon(coroutine)
    assert drive(again, lambda: None) == "moved"


class Refuses:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


async def hold(thing: object) -> object:
    await tick()
    return thing


def begun(coroutine: Any) -> Any:
    coroutine.send(None)
    return coroutine


def test_any_error_of_the_users_is_a_refusal_with_its_cause() -> None:
    error = ZeroDivisionError("mine")
    coroutine = begun(hold(Refuses(error)))
    with pytest.raises(NotPortable, match="hold: local 'thing': mine") as caught:
        dump(coroutine)
    assert caught.value.__cause__ is error
    assert isinstance(caught.value, IpclabError)
    coroutine.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit(3)], ids=repr)
def test_what_is_no_refusal_passes(error: BaseException) -> None:
    coroutine = begun(hold(Refuses(error)))
    with pytest.raises(type(error)):
        dump(coroutine)
    coroutine.close()


def test_nothing_outside_a_frame_either() -> None:
    with pytest.raises(NotPortable, match="cannot pickle"):
        dump([threading.Lock()])


class GoesOn:
    """Whose reduction lets the coroutine that holds it go on."""

    coroutine: Any = None

    def __reduce__(self) -> Any:
        with contextlib.suppress(StopIteration):
            self.coroutine.send(None)
        return GoesOn, ()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_that_goes_on_while_it_is_captured(steps: int) -> None:
    async def work() -> int:
        mischief = GoesOn()
        mischief.coroutine = coroutine
        for _ in range(steps):
            await tick()
        del mischief
        await tick(bytes(1000))
        return 1

    coroutine = work()
    coroutine.send(None)
    with pytest.raises(NotPortable, match="already executing"):
        dump(coroutine)
    coroutine.close()


class Grows:
    def __init__(self, into: Any) -> None:
        self.into = into

    def __reduce__(self) -> Any:
        if isinstance(self.into, list):
            self.into.clear()
        else:
            self.into[len(self.into)] = 1
        return Grows, ([],)


@pytest.mark.parametrize("container", [[1, 2], {"a": 1}], ids=["list", "dict"])
def test_a_container_that_changes_while_it_is_captured(container: Any) -> None:
    if isinstance(container, list):
        container.insert(0, Grows(container))
    else:
        container["grows"] = Grows(container)
    with pytest.raises(NotPortable, match="changed size while it was captured"):
        dump(container)


def test_a_dump_changes_no_reference_count() -> None:
    value, lock = object(), threading.Lock()
    good, bad = begun(hold([value, 1])), begun(hold([value, lock]))
    before = sys.getrefcount(value), sys.getrefcount(lock)
    with pytest.raises(NotPortable):
        dump(bad)
    dump(good)
    assert (sys.getrefcount(value), sys.getrefcount(lock)) == before
    good.close()
    bad.close()


@pytest.mark.parametrize("bad", [1, None, "text"])
def test_load_takes_bytes(bad: Any) -> None:
    with pytest.raises(TypeError):
        load(bad)


def test_abandoned_means_ended_and_nothing_has_run() -> None:
    ran: list[str] = []

    class Says:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            ran.append("exit")

    async def inner() -> None:
        try:
            await tick()
        finally:
            ran.append("finally")

    async def outer() -> None:
        with Says():
            await inner()

    coroutine = begun(outer())
    frames.abandon(coroutine)
    assert coroutine.cr_await is None
    with pytest.raises(RuntimeError, match="already awaited"):
        coroutine.send(None)
    coroutine.close()
    del coroutine
    assert ran == []


def test_a_coroutine_that_has_not_begun_travels_and_one_that_has_ended() -> None:
    fresh = hold("fresh")
    again = load(dump(fresh))
    frames.abandon(fresh)
    assert drive(again, lambda: None) == "fresh"
    ended = load(dump(again))
    with pytest.raises(RuntimeError, match="already awaited"):
        ended.send(None)


def test_without_the_extension_it_says_so(tmp_path: Any) -> None:
    script = (
        "import sys\n"
        "sys.modules['ipclab._frames'] = None\n"
        "from ipclab.gmp import frames\n"
        "print(frames.available(), frames.reason())\n"
        "try:\n    frames.dump(1)\nexcept frames.NotPortable as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    first, second = done.stdout.splitlines()
    assert first.startswith("False the extension for Python")
    assert "is not there" in second


def test_stringio_is_a_value() -> None:
    # Beside what is refused: pickle copies it, position and all, and so does a capture.
    file = io.StringIO("abc")
    file.read(1)
    assert load(dump(file)).read() == "bc"

"""The names under which another process finds code, functions, classes, modules and globals: ipclab.gmp.names."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from ipclab.gmp import frames, names

needs_frames = pytest.mark.skipif(not frames.available(), reason=frames.reason())

top = lambda: 1  # noqa: E731


def plain() -> Callable[[], Any]:
    def nested() -> Any:
        return [lambda: (one for one in (1,))]

    return nested


@functools.cache
def cached() -> int:
    return 1


@contextlib.contextmanager
def managed() -> Any:
    yield


def renames(function: Any) -> Any:
    def other() -> Any:
        return function()

    return other


@renames
def lost() -> int:
    return 1


class Outer:
    key = staticmethod(lambda: 3)

    class Inner:
        def method(self) -> Callable[[], int]:
            return lambda: 2

        @classmethod
        def made(cls) -> None: ...

        @staticmethod
        def loose() -> None: ...

        @property
        def both(self) -> int:
            return 1

        @both.setter
        def both(self, value: int) -> None: ...

        @functools.cached_property
        def once(self) -> int:
            return 1


def nested_of(code: types.CodeType, *path: str) -> types.CodeType:
    for name in path:
        (code,) = [one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == name]
    return code


INNER: Any = vars(Outer.Inner)

CODES: dict[str, types.CodeType] = {
    "plain": plain.__code__,
    "top_lambda": top.__code__,
    "nested": nested_of(plain.__code__, "nested"),
    "lambda": nested_of(plain.__code__, "nested", "<lambda>"),
    "genexpr": nested_of(plain.__code__, "nested", "<lambda>", "<genexpr>"),
    "cached": cached.__wrapped__.__code__,
    "managed": managed.__wrapped__.__code__,  # type: ignore[attr-defined]
    "method": INNER["method"].__code__,
    "lambda_in_method": nested_of(INNER["method"].__code__, "<lambda>"),
    "classmethod": INNER["made"].__func__.__code__,
    "staticmethod": INNER["loose"].__func__.__code__,
    "getter": INNER["both"].fget.__code__,
    "setter": INNER["both"].fset.__code__,
    "cached_property": INNER["once"].func.__code__,
    "lambda_in_class": vars(Outer)["key"].__func__.__code__,
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_code_has_a_name_that_leads_back(code: types.CodeType) -> None:
    name = names.name_of(code, globals())
    assert name is not None
    assert name[:1] == b"c"
    assert names.find(name) is code


def test_code_that_no_name_leads_to_goes_by_value_and_comes_home() -> None:
    code = lost.__closure__[0].cell_contents.__code__
    name = names.name_of(code, globals())
    assert name is not None
    assert name[:1] == b"v"
    assert names.find(name) is code
    assert names.name_of(code, globals()) == name


THINGS: list[Any] = [
    plain,
    Outer,
    Outer.Inner,
    Outer.Inner.method,
    cached,
    cached.__wrapped__,
    managed.__wrapped__,  # type: ignore[attr-defined]
    INNER["both"].fset,
    INNER["once"].func,
    INNER["made"].__func__,
    top.__globals__,
    collections,
    os.path,
    collections.OrderedDict,
    len,
    os.getpid,
    int,
    types.FunctionType,
    type(None),
    type(...),
    vars(collections),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: getattr(thing, "__name__", type(thing).__name__))
def test_a_thing_has_a_name_that_leads_back(thing: Any) -> None:
    name = names.name_of(thing)
    assert name is not None
    assert names.find(name) is thing


@pytest.mark.parametrize(
    "thing",
    [top, plain(), lost.__closure__[0].cell_contents, {}, {"__name__": "os"}, object()],
    ids=lambda thing: getattr(thing, "__name__", type(thing).__name__),
)
def test_what_no_name_leads_to_has_none(thing: Any) -> None:
    assert names.name_of(thing) is None


@pytest.mark.parametrize(
    "name",
    [
        *(b"", b"x", b"m", b"mno_such_module", b"pos\0no_such", b"p", b"pos", b"c", b"cos\0getpid\0000\0\0001", b"v"),
        *(b"fos\0getpid\x000", b"fjson\0dumps\x001", b"fjson\0dumps"),
        *(b"vrubbish", b"v\xe9\x01\0\0\0", b"\xff\xff", b"p\xff\0a"),
        *(b"cjson\0dumps\x0099\0\0001", b"cjson\0dumps\0000\x0099\0001"),
    ],
)
def test_what_is_not_here_is_a_lookup_error(name: bytes) -> None:
    with pytest.raises(LookupError):
        names.find(name)


def module(source: str, name: str) -> types.ModuleType:
    made = types.ModuleType(name)
    exec(source, vars(made))
    sys.modules[name] = made
    return made


def test_code_that_has_changed_is_not_found() -> None:
    before = module("async def work(wait):\n    await wait\n    return 1", "frames_changing")
    name = names.name_of(before.work.__code__, vars(before))
    assert name is not None
    try:
        module("async def work(wait):\n    x = 1\n    await wait\n    return 2", "frames_changing")
        with pytest.raises(LookupError, match="work of frames_changing is not what it was"):
            names.find(name)
    finally:
        del sys.modules["frames_changing"]


@needs_frames
def test_a_redefined_function_travels_by_value() -> None:
    one = module("def function():\n    return 1", "frames_redefined")
    try:
        first = one.function
        exec("def function():\n    return 2", vars(one))
        codec = frames.codec()
        got, now = codec.load(codec.dump([first, one.function]))
        assert (got(), now()) == (1, 2)
        assert now is one.function
        assert got is not now
    finally:
        del sys.modules["frames_redefined"]


def run(*command: str, data: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *command], input=data, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DEFINES_AND_DUMPS = """
from ipclab.gmp import frames
class Shape:
    sides = 4
async def work(n, shape=Shape):
    double = lambda one: 2 * one
    for step in range(n):
        got = await frames.Suspension(step)
        n += double(got)
    return n * shape.sides + shape.sides
coroutine = work(3)
coroutine.send(None)
print(frames.dump(coroutine).hex())
"""
LOADS_AND_ENDS = """
import sys
from ipclab.gmp import frames
coroutine = frames.load(bytes.fromhex(sys.stdin.read()))
told = 0
try:
    while True:
        told = coroutine.send(told) + 0
except StopIteration as end:
    print(end.value)
"""


@needs_frames
def test_what_was_typed_at_the_prompt_goes_by_value_even_where_it_was_not_typed() -> None:
    pytest.importorskip("cloudpickle")
    source = DEFINES_AND_DUMPS.replace("shape=Shape", "shape=None").replace("shape.sides", "4")
    captured = run("-c", source)
    assert run("-c", LOADS_AND_ENDS, data=captured) == "40\n"


@needs_frames
def test_a_script_is_found_under_main(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nif sys.argv[1] == 'dump':\n"
        + "".join(f"    {line}\n" for line in DEFINES_AND_DUMPS.strip().splitlines())
        + "else:\n"
        + "".join(f"    {line}\n" for line in (DEFINES_AND_DUMPS.split("coroutine =")[0] + LOADS_AND_ENDS).splitlines())
    )
    captured = run(str(script), "dump")
    assert len(captured) < 1000
    assert run(str(script), "load", data=captured) == "40\n"


@needs_frames
def test_a_spawned_child_of_multiprocessing_finds_main_under_its_other_name(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from ipclab.gmp import frames\n"
        "async def work(n):\n"
        "    return await frames.Suspension(n) + n\n"
        "def child(captured):\n"
        "    coroutine = frames.load(captured)\n"
        "    again = frames.load(frames.dump(coroutine))\n"
        "    frames.abandon(coroutine)\n"
        "    return frames.dump(again)\n"
        "if __name__ == '__main__':\n"
        "    coroutine = work(2)\n"
        "    coroutine.send(None)\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        again = frames.load(pool.apply(child, (frames.dump(coroutine),)))\n"
        "    try:\n"
        "        again.send(40)\n"
        "    except StopIteration as end:\n"
        "        print(end.value)\n"
    )
    assert run(str(script)) == "42\n"


@needs_frames
def test_the_self_test_is_quick() -> None:
    script = (
        "import json, time, ipclab.errors\n"
        "start = time.perf_counter()\n"
        "from ipclab.gmp import frames\n"
        "print(json.dumps([frames.available(), time.perf_counter() - start]))\n"
    )
    available, seconds = json.loads(run("-c", script))
    assert available
    assert seconds < 0.5  # some milliseconds; the rest is for a busy machine

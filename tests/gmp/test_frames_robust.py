"""Portable coroutines under damage, repetition, a hurried garbage collector, tracers and threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from frames_cases import CASES, moved_here, outcome_of, unmoved
from frames_fuzz import seal_of, start_of

from ipclab.gmp import frames
from ipclab.gmp.frames import Suspension, dump, load

pytestmark = pytest.mark.skipif(not frames.available(), reason=frames.reason())

FUZZ = Path(__file__).parents[1] / "frames_fuzz.py"


@pytest.mark.parametrize("sealed", [[], ["sealed"]], ids=["plain", "sealed"])
@pytest.mark.parametrize("seed", range(3))
def test_damage_is_refused_and_never_crashes(seed: int, sealed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-X", "faulthandler", FUZZ, str(seed), "5000", *sealed],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    refused, came = map(int, done.stdout.split())
    assert refused + came > 4900
    if not sealed:
        assert came == 0


def test_bytes_of_another_python_are_refused() -> None:
    # The version is in what the seal begins with; here one that differs in nothing else is made with the fuzzer's seal.
    captured = dump([1, 2])
    start = start_of(captured)
    assert load(captured[:-4] + seal_of(captured[:-4], start)) == [1, 2]
    with pytest.raises(ValueError, match="another version of Python"):
        load(captured[:-4] + seal_of(captured[:-4], start + (1 << 8)))


def test_numbers_that_were_mixed_up_are_noticed() -> None:
    async def other() -> None:
        await Suspension(1)
        await Suspension(2)

    table: list[Any] = []

    def name_of(thing: object, _: object) -> int:
        table.append(thing)
        return len(table) - 1

    codec = frames.Codec(name_of, lambda number: other.__code__ if table[number] is root.__code__ else table[number])
    coroutine = root()
    coroutine.send(None)
    captured = codec.dump(coroutine)
    with pytest.raises(ValueError, match="a frame whose code is not what it was there"):
        codec.load(captured)
    codec.abandon(coroutine)


class Value:
    def __init__(self) -> None:
        self.loop = self
        self.text = "t" * 100


async def leaf(*things: object) -> object:
    with memory() as inner:
        for key, item in {"a": things, "b": Value()}.items():
            await Suspension((key, item))
            yielded = lambda: (item, inner)  # noqa: E731,B023
            await Suspension(yielded)
    return things


class memory:  # noqa: N801
    def __enter__(self) -> memory:
        return self

    def __exit__(self, *_: object) -> None: ...


async def root() -> object:
    total = [object, 10**40, "é" * 50]
    return await leaf(total, total)


def blocks_after(rounds: int, once: Callable[[], object]) -> int:
    """How many more blocks of memory are in use; the least of some tries, as the interpreter fills its own caches."""
    least = sys.maxsize
    for _ in range(5):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(rounds):
            once()
        gc.collect()
        least = min(least, sys.getallocatedblocks() - before)
    return least


def round_trip() -> None:
    coroutine = root()
    coroutine.send(None)
    for _ in range(2):
        captured = dump(coroutine)
        frames.abandon(coroutine)
        coroutine = load(captured)
        coroutine.send(None)
    frames.abandon(coroutine)


def refused_round() -> None:
    async def work(lock: Any) -> None:
        await root()

    coroutine = work(threading.Lock())
    coroutine.send(None)
    with pytest.raises(frames.NotPortable):
        dump(coroutine)
    coroutine.close()


def damaged_round() -> None:
    coroutine = root()
    coroutine.send(None)
    captured = dump(coroutine)
    frames.abandon(coroutine)
    with pytest.raises(ValueError, match="no capture"):
        load(captured[:-6])


@pytest.mark.parametrize(("once", "rounds"), [(round_trip, 2000), (refused_round, 300), (damaged_round, 300)])
def test_nothing_is_left_behind(once: Callable[[], None], rounds: int) -> None:
    assert blocks_after(rounds, once) < rounds / 10


def test_a_codec_can_be_freed() -> None:
    def once() -> None:
        codec = frames.codec()
        coroutine = root()
        coroutine.send(None)
        codec.abandon(codec.load(codec.dump(coroutine)))
        codec.abandon(coroutine)

    assert blocks_after(200, once) < 100


def test_the_reference_counts_of_what_travels_by_name_stay() -> None:
    things = (Value, leaf.__code__, globals(), sys, len)

    async def hold(values: object) -> None:
        await Suspension(values)

    def once() -> None:
        coroutine = hold(list(things))
        coroutine.send(None)
        captured = dump(coroutine)
        frames.abandon(load(captured))
        frames.abandon(coroutine)

    once()
    before = [sys.getrefcount(thing) for thing in things]
    for _ in range(100):
        once()
    assert [sys.getrefcount(thing) for thing in things] == before


@pytest.fixture
def hurried_gc() -> Iterator[None]:
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("hurried_gc")
def test_every_case_while_the_garbage_collector_is_always_there() -> None:
    for name in CASES:
        assert outcome_of(CASES[name](), moved_here) == unmoved(name), name


def test_every_case_while_it_is_traced() -> None:
    seen: set[str] = set()

    def trace(frame: Any, event: str, _: object) -> Any:
        seen.add(event)
        return trace

    before = sys.gettrace()
    for name in CASES:
        sys.settrace(trace)
        try:
            outcome = outcome_of(CASES[name](), moved_here)
        finally:
            sys.settrace(before)
        if name != "locals_called":
            assert outcome == unmoved(name), name
    assert {"call", "line", "return"} <= seen


def test_every_case_while_it_is_profiled() -> None:
    calls: list[str] = []
    before = sys.getprofile()
    for name in CASES:
        sys.setprofile(lambda frame, event, _: calls.append(event))
        try:
            outcome = outcome_of(CASES[name](), moved_here)
        finally:
            sys.setprofile(before)
        assert outcome == unmoved(name), name
    assert "c_call" in calls


def test_after_somebody_looked_at_its_frame() -> None:
    coroutine: Any = root()
    coroutine.send(None)
    assert "total" in coroutine.cr_frame.f_locals
    again = load(dump(coroutine))
    frames.abandon(coroutine)
    assert again.cr_frame.f_locals["total"][1] == 10**40
    assert again.cr_await.cr_frame.f_lineno > again.cr_await.cr_code.co_firstlineno
    frames.abandon(again)


def test_a_frame_that_is_looked_at_outlives_the_end() -> None:
    coroutine: Any = root()
    coroutine.send(None)
    frame = coroutine.cr_frame
    frames.abandon(coroutine)
    del coroutine
    assert frame.f_locals == {}
    assert frame.f_code.co_name == "root"


def test_an_exception_thrown_in_shows_the_frames_it_came_through() -> None:
    coroutine = root()
    coroutine.send(None)
    again = load(dump(coroutine))
    frames.abandon(coroutine)
    with pytest.raises(KeyError) as caught:
        again.throw(KeyError("in"))
    assert [entry.name for entry in caught.traceback[1:]] == ["root", "leaf"]


async def catches() -> str:
    try:
        await Suspension(1)
    except KeyError as error:
        return f"caught {error}"
    return "nothing came"


async def around() -> tuple[str, object]:
    got = await catches()
    return got, await Suspension(2)


def test_an_exception_thrown_in_is_caught_where_it_belongs() -> None:
    coroutine = around()
    coroutine.send(None)
    again = load(dump(coroutine))
    frames.abandon(coroutine)
    assert again.throw(KeyError("in")) == 2
    last = load(dump(again))
    frames.abandon(again)
    with pytest.raises(StopIteration) as end:
        last.send("then")
    assert end.value.value == ("caught 'in'", "then")


closed: list[str] = []


async def says_so() -> None:
    try:
        await Suspension(1)
    finally:
        closed.append("finally")  # a global of this process: the original and the copy share it


def test_closing_a_restored_one_runs_its_finally_once() -> None:
    closed.clear()
    coroutine = says_so()
    coroutine.send(None)
    again = load(dump(coroutine))
    frames.abandon(coroutine)
    del coroutine
    assert closed == []
    again.close()
    assert closed == ["finally"]


def test_threads_share_a_codec() -> None:
    codec, errors = frames.codec(), []

    def work() -> None:
        try:
            for _ in range(200):
                coroutine = root()
                coroutine.send(None)
                codec.abandon(codec.load(codec.dump(coroutine)))
                codec.abandon(coroutine)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []

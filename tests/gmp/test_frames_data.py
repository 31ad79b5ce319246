"""What a portable coroutine holds: every kind of value comes back as it was, and what was one object is one again."""

from __future__ import annotations

import array
import dataclasses
import datetime
import enum
import functools
import gc
import math
import operator
import pathlib
import pickle
import re
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Coroutine
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclab.gmp import frames
from ipclab.gmp.frames import Suspension, dump, load

pytestmark = pytest.mark.skipif(not frames.available(), reason=frames.reason())


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Rights(enum.IntFlag):
    READ = 4
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int
    b: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    b: object = None


class Slots:
    __slots__ = ("__dict__", "left", "right")

    def __init__(self, left: object) -> None:
        self.left = left  # and right stays empty

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slots) and self.left == other.left and not hasattr(other, "right")

    __hash__ = None  # type: ignore[assignment]


class Plain:
    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def method(self) -> Plain:
        return self


class Text(str):
    __slots__ = ("note",)


class WithState(Plain):
    def __getstate__(self) -> object:
        return ("state", self.__dict__)

    def __setstate__(self, state: tuple[str, dict[str, object]]) -> None:
        assert state[0] == "state"
        self.__dict__.update(state[1])


class NewArguments:
    def __new__(cls, a: int, *, b: int) -> NewArguments:
        self = super().__new__(cls)
        self.both = (a, b)
        return self

    both: tuple[int, int]

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        return (self.both[0],), {"b": self.both[1]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NewArguments) and self.both == other.both

    __hash__ = None  # type: ignore[assignment]


class Appended:
    """A list of the user's with append, but no extend."""

    def __init__(self) -> None:
        self.items: list[object] = []

    def append(self, item: object) -> None:
        self.items.append(item)

    def __reduce__(self) -> tuple[Any, ...]:
        return Appended, (), None, iter(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Appended) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]


class OnlyOne:
    def __reduce__(self) -> str:
        return "ONLY_ONE"


ONLY_ONE = OnlyOne()


class Error(Exception):
    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message, code)
        self.code = code


VALUES: list[object] = [
    *[
        sign * (1 << bits) + more
        for bits in (0, 5, 6, 13, 30, 31, 32, 62, 63, 64, 65, 100)
        for sign in (1, -1)
        for more in (-1, 0, 1)
    ],
    7**500,
    -(7**500),
    0.0,
    1e308,
    math.inf,
    -math.inf,
    1 + 2j,
    "",
    "ascii",
    "é",
    "\N{SNOWMAN}" * 40,
    "\U0001f40d",
    "\ud800 and \udfff",
    "\0",
    "x" * 63,
    "x" * 64,
    "é" * 32,
    "n" * 5000,
    b"",
    b"\xff" * 63,
    b"\xff" * 64,
    bytearray(b"changes"),
    True,
    None,
    ...,
    NotImplemented,
    (),
    ((),),
    [],
    {},
    set(),
    {1, 2, "three"},
    frozenset({1, (2,)}),
    {"k": [1, {2: 3}], (1, 2): None, None: 1},
    range(3, 100, 7),
    slice(1, None, 2),
    Colour.RED,
    Rights.READ | Rights.WRITE,
    Point(1, [2]),
    Frozen(1, [2]),
    Slotted(1, (2,)),
    Slots([1]),
    Plain(a=1, b=[2]),
    WithState(a=1),
    NewArguments(1, b=2),
    OrderedDict(a=1, b=2),
    defaultdict(list, {"a": [1]}),
    deque([1, 2], maxlen=3),
    Counter("abca"),
    Decimal("1.50"),
    Fraction(2, 3),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    pathlib.PurePosixPath("/a/b"),
    array.array("d", [1.5, 2.5]),
    re.compile("a+"),
    types.SimpleNamespace(a=1),
    Appended(),
    int,
    type(None),
    types.FunctionType,
    types.ModuleType,
    Colour,
    list[int],
    int | None,
    len,
    math,
    math.sin,
    dict.keys,
    str.join,
    Plain.method,
    functools.lru_cache,
    Any,
    ONLY_ONE,
    {"a": 1}.keys(),
    {"a": 1}.items(),
]


async def hold(value: object, others: object = None) -> tuple[object, object]:
    await Suspension("held")
    return value, others


def moved(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Begun, moved once, and gone on with to the end."""
    coroutine.send(None)
    captured = dump(coroutine)
    frames.abandon(coroutine)
    again = load(captured)
    with pytest.raises(StopIteration) as end:
        again.send(None)
    return end.value.value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back(value: object) -> None:
    (first, second), third = moved(hold((value, [value]), (value,)))
    assert first == value
    assert type(first) is type(value)
    if type(value) not in (int, float, str, bytes, complex):
        assert second[0] is first
        assert third[0] is first


def test_floats_that_no_comparison_tells_apart() -> None:
    nan, minus = moved(hold(math.nan, -0.0))
    assert math.isnan(nan)
    assert math.copysign(1, minus) == -1


def test_callables_that_no_comparison_knows() -> None:
    join, get = moved(hold("x".join, operator.itemgetter(1)))
    assert join("ab") == "axb"
    assert get("ab") == "b"


def test_the_views_are_of_the_dict_that_came_along() -> None:
    table = {"a": 1, "b": 2}
    mine, (keys, values) = moved(hold(table, (table.keys(), table.values())))
    mine["c"] = 3
    assert (list(keys), list(values)) == (["a", "b", "c"], [1, 2, 3])


def test_exceptions_as_values() -> None:
    errors, group = moved(
        hold([Error("no", 3), KeyError("k"), OSError(2, "gone")], ExceptionGroup("g", [ValueError(1)]))
    )
    assert [repr(error) for error in errors] == ["Error('no', 3)", "KeyError('k')", "FileNotFoundError(2, 'gone')"]
    assert errors[0].code == 3
    assert errors[2].errno == 2
    assert repr(group.exceptions) == "(ValueError(1),)"


def test_an_exception_keeps_its_notes() -> None:
    error = ValueError("v")
    error.add_note("why")
    got, _ = moved(hold(error))
    assert got.__notes__ == ["why"]


def test_a_list_that_contains_itself() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    got, _ = moved(hold(loop))
    assert got[1] is got


def test_containers_that_lead_back_to_themselves() -> None:
    inner: list[object] = []
    pair = (inner, "pair")
    inner.append(pair)
    table: dict[object, object] = {}
    table["self"] = table
    table["frozen"] = frozenset({Hashed(table)})
    thing = Plain()
    thing.me = thing  # type: ignore[attr-defined]
    thing.bound = thing.method  # type: ignore[attr-defined]
    (got, name), (got_table, got_thing) = moved(hold(pair, (table, thing)))
    assert got[0][0] is got
    assert got[0][1] is name
    assert got_table["self"] is got_table
    (hashed,) = got_table["frozen"]
    assert hashed.to is got_table
    assert got_thing.me is got_thing
    assert got_thing.bound() is got_thing


class Hashed:
    def __init__(self, to: object) -> None:
        self.to = to


def test_a_tuple_within_itself_stays_one() -> None:
    inner: list[object] = []
    pair = (inner,)
    inner += [pair, pair]
    got, again = moved(hold(pair, [pair, inner]))
    assert got[0][0] is got
    assert got[0][1] is got
    assert again[0] is got
    assert again[1] is got[0]


class Back:
    """Its arguments lead back to it."""

    def __init__(self, holder: list[object]) -> None:
        self.holder = holder

    def __reduce__(self) -> tuple[Any, ...]:
        return Back, (self.holder,)


def test_an_object_whose_arguments_lead_back_to_it() -> None:
    holder: list[object] = []
    back = Back(holder)
    holder.append(back)
    got, (again, mine) = moved(hold(back, (back, holder)))
    assert again is got
    assert got.holder is mine
    assert mine[0] is got


def test_what_two_frames_share_is_shared() -> None:
    async def outer() -> object:
        shared = [0]
        long = "s" * 100
        got = await inner(shared, long)
        shared.append(1)
        return got is shared, shared, long

    async def inner(mine: list[int], long: str) -> list[int]:
        await Suspension("here")
        mine.append(len(long))
        return mine

    assert moved(outer()) == (True, [0, 100, 1], "s" * 100)


def test_a_dropped_argument_is_not_kept_alive() -> None:
    class Big:
        pass

    async def work(big: object, data: bytes) -> int:
        size = len(data)
        del big, data
        await Suspension("it is gone")
        return size

    big = Big()
    gone = weakref.ref(big)
    coroutine = work(big, bytes(1_000_000))
    del big
    coroutine.send(None)
    captured = dump(coroutine)
    assert gone() is None
    assert len(captured) < 1000
    again = load(captured)
    frames.abandon(coroutine)
    with pytest.raises(StopIteration, match="1000000"):
        again.send(None)


def test_a_restored_coroutine_keeps_nothing_else() -> None:
    coroutine = hold(Plain(a=1))
    coroutine.send(None)
    again = load(dump(coroutine))
    value = weakref.ref(again.cr_frame.f_locals["value"])
    assert value() is not None
    frames.abandon(again)
    gc.collect()
    assert value() is None
    coroutine.close()


def test_a_class_of_a_function_travels_by_value() -> None:
    pytest.importorskip("cloudpickle")

    class Local:
        def __init__(self, a: int) -> None:
            self.a = a

        @property
        def double(self) -> int:
            return 2 * self.a

        def me(self) -> type:
            return __class__  # type: ignore[name-defined,no-any-return]

    got, other = moved(hold(Local(4), Local))
    assert got.double == 8
    assert type(got) is other
    assert got.me() is other


def test_a_buffer_of_protocol_5_travels_in_band() -> None:
    writable, constant = pickle.PickleBuffer(bytearray(b"x" * 100)), pickle.PickleBuffer(b"y" * 100)
    value, readonly = moved(hold(writable, [constant, b"z" * 90]))
    assert value == bytearray(b"x" * 100)
    assert readonly == [b"y" * 100, b"z" * 90]


def test_the_globals_of_a_module_are_those_of_the_process() -> None:
    got, _ = moved(hold(globals()))
    assert got is globals()


def test_many_objects() -> None:
    many = [[number, str(number)] for number in range(5000)]
    got, last = moved(hold(many, many[-1]))
    assert got == many
    assert last is got[-1]


def test_deep_data_is_refused_or_travels() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(frames.NotPortable, match="recursion"):
        dump(deep)


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=100) | st.just("s" * 70),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(trees)
def test_any_tree(tree: object) -> None:
    got, again = moved(hold(tree, [tree]))
    assert repr(got) == repr(tree)
    assert repr(again) == repr([tree])

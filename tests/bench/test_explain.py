"""Three sentences, and nothing in them that was not measured."""

from __future__ import annotations

from made import a_case, a_run, a_side, samples

from ipclab.bench.explain import sentences


def test_three_sentences_from_the_counts() -> None:
    pipe, ring = a_case("pipe"), a_case("ring", spins=True)
    measured = [
        (pipe, samples(pipe, [1e6] * 3, messages=1_000_000, sides=(a_side(calls=2_000_000, cpu_ns=900_000_000),))),
        (ring, samples(ring, [5e6] * 3, messages=1_000_000, sides=(a_side(calls=10_000, cpu_ns=400_000_000),))),
    ]
    fastest, slowest, price = sentences(a_run("x", measured).rows)
    assert "ring is fastest (5 M messages/s, 5.0 times pipe): 0.01 against 2 system calls" in fastest
    assert "pipe is slowest" in slowest
    assert "2 system calls" in slowest
    assert "ring is also the cheapest" in price.lower()


def test_what_was_not_counted_is_not_claimed() -> None:
    pipe, zmq = a_case("pipe"), a_case("zmq-ipc")
    measured = [
        (pipe, samples(pipe, [5e6] * 3)),
        (zmq, samples(zmq, [1e6] * 3, sides=(a_side(calls=None, reason="only through pyzmq"),))),
    ]
    said = sentences(a_run("x", measured).rows)
    assert len(said) == 3
    assert "not counted" in said[1]
    assert "no count of its own is smaller" in said[0]


def test_native_rows_are_explained_where_there_are_any_to_compare() -> None:
    native = [a_case(name) for name in ("pipe", "ring")]
    python = [a_case(name, driver="python") for name in ("pipe", "ring", "zmq-ipc")]
    rows = a_run("x", [(case, samples(case, [1e6] * 3)) for case in (*python, *native)]).rows
    assert sentences(rows)[0].startswith("One way with the native driver")
    alone = a_run("x", [(case, samples(case, [1e6] * 3)) for case in (*python, native[0])]).rows
    assert sentences(alone)[0].startswith("One way with the python driver")


def test_what_rests_on_unstable_rows_says_so() -> None:
    pipe, ring = a_case("pipe"), a_case("ring")
    steady = a_run("x", [(pipe, samples(pipe, [1e6] * 3)), (ring, samples(ring, [5e6] * 3))])
    shaky = a_run("x", [(pipe, samples(pipe, [1e6] * 3)), (ring, samples(ring, [5e6]))])
    assert "unstable" not in sentences(steady.rows)[0]
    assert "5.0 times pipe, as far as unstable rows tell" in sentences(shaky.rows)[0]


def test_nothing_measured_is_not_explained() -> None:
    assert sentences(()) == ()

"""Workloads as a user writes them: what each mistake is called, what the steps become, what is drawn from a seed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipclab.errors import UsageError
from ipclab.gmp import Block, Job, Workload
from ipclab.gmp.compile import compile_workload
from ipclab.gmp.load import load, names, parse
from ipclab.gmp.script import Op, parse_time


def job(steps: str, more: str = "", name: str = "a") -> str:
    return f'[[job]]\nname = "{name}"\nsteps = [{steps}]\n{more}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (job('"comput 1ms"'), "job 'a', step 1 \"comput 1ms\": unknown step 'comput'; did you mean 'compute'?"),
        (job('"yield", "frobnicate"'), "step 2 \"frobnicate\": unknown step 'frobnicate'"),
        (job('"send c"'), "step 1 \"send c\": no channel is called 'c'; there is none; [channels] makes one"),
        ("[channels]\nb = 1\n" + job('"recv c"'), "no channel is called 'c'; there are b; [channels] makes one"),
        (job('"compute -1ms"'), 'step 1 "compute -1ms": the time -1ms is negative'),
        (job('"sleep 5"'), "'5' has no unit, as in 5ms"),
        (job('"sleep soon"'), "'soon' is no time"),
        (job('"compute 5ms..2ms"'), "the range 5ms..2ms ends before it begins"),
        (job('"compute"'), "compute is written 'compute TIME'"),
        (job('"lock m"'), "no mutex is called 'm'"),
        ('mutexes = ["m"]\n' + job('"acquire m"'), "no semaphore is called 'm'"),
        (job('"spawn b"'), "no job is called 'b'; there are a"),
        (job('"spawn a"'), "a spawn bomb: a -> a never ends"),
        (job('"spawn b"') + job('"spawn a 2"', name="b"), "a spawn bomb: a -> b -> a never ends"),
        (job('"spawn b 1000000"', "repeat = 1000") + job('"yield"', "count = 0", name="b"), "1000000002 Gs in all"),
        (job('"yield"', 'at = "-3ms"'), "job 'a', at: the time -3ms is negative"),
        (job('"yield"', "count = -1"), "job 'a': count -1 is not between 0"),
        (job('"yield"', f"count = {1 << 24}"), "count 16777216 is not between 0 and 16777215; so many Gs the segment"),
        (job('"yield"', "count = 9000000") + job('"yield"', "count = 9000000", name="b"),
         "18000000 Gs arrive in all, 16777215 are what the segment holds beside main"),
        (job('"spawn b 20000000"') + job('"yield"', "count = 0", name="b"),
         "job 'a', step 1 \"spawn b 20000000\": 20000000 Gs at once, 16777215 are what the segment holds"),
        (job('"yield"', "repeat = 0"), "job 'a': repeat 0 is not between 1 and"),
        (job('"yield"', f"repeat = {(1 << 31) + 1}"), "repeat 2147483649 is not between 1 and 2147483648"),
        (job(f'"sleep {"9" * 400}s"'), "9s is longer than a day"),
        (job('"yield"', f'at = "{"9" * 400}s"'), "9s is longer than a day"),
        (job('"yield"', f"count = {'9' * 5000}"), "it is not TOML: Exceeds the limit"),
        (job("{ steps = [" * 1000 + '"yield"' + "] }" * 1000), "its brackets are nested too deep"),
        ("[channels]\n" + "".join(f"c{i} = {1 << 24}\n" for i in range(300)) + job('"yield"'),
         "the channels hold 5033164800 values in all, over the limit of 2147483648"),
        ("".join(job(f'"spawn j{i + 1} 2000000000"', f"repeat = {1 << 31}", name=f"j{i}") for i in range(300))
         + job('"yield"', name="j300"), "over 10^18 Gs in all, over 10^18 of job 'j300'"),
        (job('"yield"', 'count = "x"'), "job 1 'a', count: expected `int`, got `str`"),
        (job('"yield"', "counts = 3"), "object contains unknown field `counts`"),
        (job('{ repeat = 2, steps = ["yield", "nope"] }'), "job 'a', step 1.2 \"nope\": unknown step"),
        (job('{ repeat = 2 }'), "job 'a', step 1: neither steps nor a select"),
        (job('{ select = ["yield"] }'), "a case of a select is send or recv"),
        (job('{ default = true, steps = ["yield"] }'), "only a select has a default"),
        (job('"yield"') + job('"yield"'), "two jobs are called 'a'"),
        (job('"yield"', name="main"), "'main' is no name"),
        ("", "object missing required field `job`"),
        ("job = []", "it has no job"),
        ("[[job]\n", "it is not TOML"),
        ("[channels]\nc = -1\n" + job('"yield"'), "channel 'c': -1 is not between 0"),
        ('[channels]\n"a b" = 1\n' + job('"yield"'), "channel 'a b': no step can name it; a name is one word"),
        ('mutexes = [""]\n' + job('"yield"'), "mutex '': no step can name it"),
        ('waitgroups = ["w\\n"]\n' + job('"yield"'), r"wait group 'w\n': no step can name it"),
        ('[semaphores]\n" s" = 1\n' + job('"yield"'), "semaphore ' s': no step can name it"),
        (job('"stopworld 1ms 300"'), "300 is not between 1 and 256"),
        ("[channels]\nc = 1\n" + job(f'"send c {1 << 63}"'), "9223372036854775808 is not between -4611686018427387904"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_place_and_a_way_out(text: str, words: str) -> None:
    with pytest.raises(UsageError) as told:
        compile_workload(parse(text, "work.toml"), 0, "work.toml")
    line = str(told.value)
    assert line.startswith("work.toml: ")
    assert words in line
    assert told.value.hint
    assert "\n" not in line


def test_a_chain_of_jobs_may_be_longer_than_the_stack_is_deep() -> None:
    links = [Job(f"j{i}", [f"spawn j{i + 1}"], count=int(not i)) for i in range(3000)]
    made = compile_workload(Workload([*links, Job("j3000", ["yield"], count=0)]), 0)
    assert made.goroutines == 3002
    with pytest.raises(UsageError, match=r"a spawn bomb: j0 -> j1 -> .*j3000 -> j0 never ends"):
        compile_workload(Workload([*links, Job("j3000", ["spawn j0"], count=0)]), 0)


def test_steps_in_code_that_are_nested_without_end_are_refused() -> None:
    block: Block | str = "yield"
    for _each in range(2000):
        block = Block(steps=[block])
    with pytest.raises(UsageError, match="its steps are nested too deep"):
        compile_workload(Workload([Job("a", [block])]), 0)


def test_a_file_whose_name_is_no_utf8_gives_a_record(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"w\xffrk.toml")
    path.write_text(job('"yield"'))
    assert load(path).title == r"w\udcffrk"


def test_steps_become_the_cores() -> None:
    work = Workload(
        [
            Job("a", ["send c -5", Block(repeat=3, steps=["lock m", "unlock m"]), "add w 2", "done w"], repeat=2),
            Job("b", [Block(select=["recv c", "send c"], default=True), "stopworld 1ms 3", "spawn a 4"], at="2ms"),
        ],
        channels={"c": 7},
        mutexes=["m"],
        semaphores={"s": 4},
        waitgroups=["w"],
    )
    main, a, b = compile_workload(work, 0).programs
    assert a.steps == [
        (Op.SEND, 0, -5),
        (Op.LOCK, 0, 0),
        (Op.UNLOCK, 0, 0),
        (Op.LOOP, 1 | 1 << 24, 3),
        (Op.WG_ADD, 2, 2),
        (Op.WG_ADD, 2, -1),
        (Op.LOOP, 0, 2),
    ]
    assert b.steps == [
        (Op.SELECT, 2, 1),
        (Op.RECV, 0, 0),
        (Op.SEND, 0, 1),
        (Op.STOPWORLD, 3, 1_000_000),
        (Op.SPAWN, 1, 4),
    ]
    assert main.steps == [(Op.SPAWN, 1, 1), (Op.SLEEP, 0, 2_000_000), (Op.SPAWN, 2, 1)]
    plan = compile_workload(work, 0)
    assert (plan.channels, plan.semaphores, plan.goroutines) == ([7], [0, 4, 0], 1 + 1 + 4 + 1)
    assert all(len(program.steps) == len(program.texts) for program in plan.programs)


def test_a_repeat_with_a_range_draws_anew_in_each_pass() -> None:
    (_main, short) = compile_workload(Workload([Job("a", ["compute 1ms..9ms"], repeat=50)]), 1).programs
    assert len(short.steps) == 50
    assert len({ns for _op, _a, ns in short.steps}) > 40
    (_main, long) = compile_workload(Workload([Job("a", ["compute 1ms..9ms"], repeat=5000)]), 1).programs
    assert [op for op, _a, _b in long.steps] == [Op.COMPUTE, Op.LOOP]


def test_one_job_draws_whatever_stands_beside_it() -> None:
    ranged = Job("a", ["sleep 1ms..9ms"], count=5)
    alone = compile_workload(Workload([ranged]), 3).programs
    beside = compile_workload(Workload([Job("b", ["sleep 1ms..9ms"]), ranged]), 3).programs
    assert [one.steps for one in alone if one.job == "a"] == [one.steps for one in beside if one.job == "a"]


def test_as_many_are_spawned_as_were_asked_for() -> None:
    for count in (1, 63, 64, 65, 1000):
        plan = compile_workload(Workload([Job("a", ["sleep 1ms..9ms"], count=count)]), 0)
        assert sum(b for op, _a, b in plan.programs[0].steps if op == Op.SPAWN) == count
        assert len(plan.programs) == 1 + min(count, 64)


@pytest.mark.parametrize("name", names())
def test_those_that_ship_say_what_they_show(name: str) -> None:
    workload = load(name)
    assert workload.about
    assert workload.title == name
    assert compile_workload(workload, 0).goroutines > 1


def test_times() -> None:
    assert [parse_time(text) for text in ("3ns", "2us", "1.5ms", "0s")] == [3, 2000, 1_500_000, 0]
    for text in ("", "5", "ms", "5 ms", "1e3ms", "-1s", "25h", "2s..1s", "100000s"):
        with pytest.raises(ValueError, match=r"time|unit|range"):
            parse_time(text)

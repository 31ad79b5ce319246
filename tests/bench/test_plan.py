"""What is asked becomes cases; mistakes are one line, wishes nobody can grant are refused with their reason."""

from __future__ import annotations

import pytest

from ipclab.bench import environment, plan
from ipclab.errors import UsageError
from ipclab.records import Options


def test_every_combination_is_a_case() -> None:
    cases, refusals = plan.expand(
        Options(mechanisms=("pipe", "ring"), sizes_bytes=(64, 1024), placements=("cpu",), pairs=(1, 2))
    )
    assert len(cases) == 2 * 2 * 2 * 2 * 2
    assert len({case.key for case in cases}) == len(cases)
    assert refusals == ()
    assert all(len(case.cpus) == 2 * case.pairs and len(set(case.cpus[:2])) == 1 for case in cases)
    assert not any(case.spins for case in cases), "a ring does not spin when both sides have one CPU"


def test_what_spins_is_marked() -> None:
    cases, _refusals = plan.expand(Options(mechanisms=("pipe", "ring"), sizes_bytes=(64,), placements=("any",)))
    assert all(case.spins == (case.mechanism == "ring" and case.cpus[0] != case.cpus[1]) for case in cases)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(mechanisms=("pip",)), "did you mean 'pipe'"),
        (Options(sizes_bytes=(0,)), "0 bytes"),
        (Options(sizes_bytes=(-1,)), "-1 bytes"),
        (Options(pairs=(0,)), "pairs"),
        (Options(patterns=("openloop",)), "--rate"),
        (Options(rate_per_s=10.0), "openloop"),
        (Options(cpus=(99999,)), "CPU 99999 does not exist"),
        (Options(producers=2, pairs=(2,)), "exclude"),
    ],
)
def test_a_mistake_is_one_clear_line(options: Options, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan.expand(options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_beyond_the_limit_refuses_that_row_alone() -> None:
    options = Options(mechanisms=("udp",), sizes_bytes=(64, 1 << 20), patterns=("pingpong",), drivers=("python",))
    cases, refusals = plan.expand(options)
    assert [case.size_bytes for case in cases] == [64]
    assert [refusal.case.size_bytes for refusal in refusals] == [1 << 20]


def test_the_ring_says_it_is_one_to_one() -> None:
    options = Options(mechanisms=("ring",), producers=2, patterns=("throughput",), sizes_bytes=(64,))
    cases, refusals = plan.expand(options)
    assert cases == ()
    assert all("one to one" in refusal.reason for refusal in refusals)


def test_what_carries_no_data_plays_ping_pong_only() -> None:
    cases, refusals = plan.expand(Options(mechanisms=("eventfd", "flock")))
    assert {(case.mechanism, case.pattern, case.size_bytes) for case in cases} == {("eventfd", "pingpong", 0)}
    assert {refusal.case.mechanism for refusal in refusals} == {"flock"}


def test_a_small_dev_shm_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "dev_shm_free", lambda: 64 << 20)
    options = Options(mechanisms=("posix-shm",), sizes_bytes=(65536,), pairs=(1, 128), drivers=("python",))
    cases, refusals = plan.expand(options)
    assert {case.pairs for case in cases} == {1}
    assert "/dev/shm" in refusals[0].reason

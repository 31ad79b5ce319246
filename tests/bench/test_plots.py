"""Plots: what they show, and what is said when they cannot be drawn. The pictures are looked at by people."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree

import pytest
from made import a_case, a_run, samples

from ipclab.errors import Unavailable, UsageError
from ipclab.records import Run
from ipclab.views import plots


@pytest.fixture(autouse=True, scope="module")
def fonts() -> None:
    """matplotlib keeps the fonts it has drawn with open: before the first test, which is to leave nothing."""
    pytest.importorskip("matplotlib")
    plots.bench_plot([some_run()], "png")


def some_run() -> Run:
    return a_run(
        "20260101-000000-abcdef",
        [
            (case, samples(case, [1e6 / size, 1.1e6 / size, 0.9e6 / size]))
            for mechanism in ("pipe", "ring")
            for driver in ("native", "python")
            for pattern in ("throughput", "pingpong")
            for size in (64, 65536)
            for case in [a_case(mechanism, driver=driver, pattern=pattern, size_bytes=size)]
        ],
    )


@pytest.mark.parametrize("form", ["png", "svg"])
def test_every_mechanism_driver_pattern_and_size_is_drawn(form: plots.Form) -> None:
    data = plots.bench_plot([some_run()], form)
    if form == "png":
        assert data.startswith(b"\x89PNG")
        return
    words = " ".join(ElementTree.fromstring(data).itertext())
    titles = ("native, one way", "python, one way", "native, there and back", "python, there and back")
    for text in ("pipe", "ring", *titles, "64 B", "64 KiB", "20260101-000000-abcdef", "A CPU"):
        assert text in words
    assert data == plots.bench_plot([some_run()], form), "the same record gives the same picture"


def test_only_one_cluster_is_drawn_and_the_rest_is_told() -> None:
    here, there = a_case("pipe"), a_case("ring")
    run = a_run("r", [(here, samples(here, [1e6] * 3)), (there, samples(there, [1e6] * 3, cluster="slow"))])
    words = " ".join(ElementTree.fromstring(plots.bench_plot([run], "svg")).itertext())
    assert "1 rows of other placement clusters are left out" in words


def test_nothing_to_draw() -> None:
    with pytest.raises(UsageError, match="nothing to plot"):
        plots.bench_plot([a_run("r", [])], "png")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Unavailable, match=r"ipclab\[plots\]"):
        plots.bench_plot([some_run()], "png")

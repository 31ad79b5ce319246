"""What the doctor says of the sources: of `trace` what `auto` finds when it wants to lead with it. Nothing is left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ipclab import _core
from ipclab.errors import Unavailable
from ipclab.processes import registry
from ipclab.records import Leftover, SourceStatus
from ipclab.states import sources, tracing

DUMB = "on CPU 1 this kernel told of 5 switches away from a thread and of 0 to it"


def status_of_trace() -> SourceStatus:
    if why := tracing.why_not()[0]:
        pytest.skip(why)
    (status,) = [one for one in sources.statuses() if one.source == "trace"]
    return status


def instances() -> list[Leftover]:
    """Of tracefs, that nobody uses; other sessions leave other things for a while."""
    return [one for one in registry.leftovers() if one.kind == registry.TRACE_KIND]


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_kernel_that_does_not_tell_all_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing.Trace, "lacking", lambda _trace: DUMB)
    before = open_files()
    status = status_of_trace()
    assert (status.standing, status.reason) == ("reduced", DUMB)
    assert "--source trace" in status.remedy
    assert open_files() == before
    assert instances() == []


def test_one_that_tells_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing.Trace, "lacking", lambda _trace: "")
    status = status_of_trace()
    assert (status.standing, status.reason) == ("runs", "")


def test_the_test_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    truly = tracing.Trace.lacking
    monkeypatch.setattr(tracing.Trace, "lacking", lambda trace: said.append(truly(trace)) or said[-1])
    status = status_of_trace()
    assert status.standing == ("reduced" if said[0] else "runs")
    assert status.reason == said[0]


def test_a_kernel_that_refuses_in_the_middle_is_one_reason_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_trace: tracing.Trace) -> str:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "set_event_pid")

    monkeypatch.setattr(tracing.Trace, "_lacking", refuse)
    before = open_files()
    status = status_of_trace()
    assert (status.standing, status.reason) == ("not here", "Device or resource busy (set_event_pid)")
    assert open_files() == before
    assert instances() == []
    layers = sources.Layers(_core.Tracker(0, False, 16))
    with pytest.raises(Unavailable, match="set_event_pid"):
        layers.lead("trace")
    layers.lead("auto")
    assert layers.leader != "trace"
    del layers
    assert instances() == []

"""What works here: every mechanism asked, every demo judged by what it needs, and all of it together for the doctor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import cleandoc
from typing import TypedDict

from ipclab.demos import catalogue
from ipclab.errors import IpclabError
from ipclab.gmp import frames
from ipclab.machine import facts, programs
from ipclab.mechanisms import CATALOGUE, load
from ipclab.processes import journal, registry
from ipclab.records import (
    CleanReport,
    Demo,
    DemoStatus,
    DoctorReport,
    Instrument,
    Leftover,
    MechanismStatus,
    Probe,
    Standing,
)
from ipclab.states import sources


def mechanisms(names: Iterable[str] = (), *, limits: bool = False, pages: bool = False) -> tuple[MechanismStatus, ...]:
    """The status of each named mechanism, of all when none is named. Raises UsageError on an unknown name.

    With `limits` its limits are read too, with `pages` its text is taken along.
    """
    return tuple(_status(name, limits=limits, page=pages) for name in names or CATALOGUE)


def _status(name: str, *, limits: bool, page: bool) -> MechanismStatus:
    module = load(name)
    return MechanismStatus(
        mechanism=module.MECHANISM,
        probe=_asked(name),
        limits=module.limits() if limits else (),
        page=cleandoc(module.__doc__ or "") if page else "",
    )


def demo_statuses(found: Iterable[Demo], known: Mapping[str, Probe] | None = None) -> tuple[DemoStatus, ...]:
    """What each demo can show here. `known` has the mechanisms that were asked already."""
    probes = dict(known or {})
    return tuple(_demo_status(demo, probes) for demo in found)


def doctor() -> DoctorReport:
    """Everything about this machine that decides what ipclab can do here. Leaves nothing behind."""
    known = mechanisms()
    tracked = sources.statuses()
    try:
        shown = demo_statuses(catalogue.find_all(), {status.mechanism.name: status.probe for status in known})
        without_demos = ""
    except IpclabError as err:
        shown, without_demos = (), str(err)
    return DoctorReport(
        version=facts.version(),
        facts=facts.gather(),
        limits=facts.limits(),
        packages=facts.packages(),
        **_leftovers(),
        instruments=(
            _instrument("mechanisms", [_standing(status.probe) for status in known], ""),
            _instrument(
                "bench", [_standing(status.probe) for status in known if _measurable(status.mechanism.name)], ""
            ),
            _instrument("states", [status.standing for status in tracked], ""),
            _instrument("demos", [status.standing for status in shown], without_demos),
            _instrument("portable coroutines", ["runs" if frames.available() else "not here"], frames.reason()),
        ),
        sources=tracked,
        mechanisms=known,
        demos=shown,
    )


def clean(*, dry_run: bool) -> CleanReport:
    """Remove the named objects whose owner is dead; with `dry_run` only find them."""
    return CleanReport(dry_run=dry_run, leftovers=tuple(registry.clean(dry_run=dry_run)))


def _asked(name: str) -> Probe:
    """A mechanism's probe's answer, or a program's. One that fails says no: a list must not stop at its first line."""
    if name in programs.PROGRAMS:
        return programs.ready(name)
    try:
        return load(name).probe()
    except IpclabError as err:
        return Probe(works=False, reason=err.message, remedy=err.hint or "")
    except (OSError, ImportError) as err:
        return Probe(works=False, reason=f"{name} cannot be tried: {err}")


def _measurable(name: str) -> bool:
    """Whether the bench has something to measure: it carries data, or two processes take turns by it."""
    module = load(name)
    return module.LINK is not None or hasattr(module, "PING_PONG")


def _standing(probe: Probe) -> Standing:
    return "not here" if not probe.works else "reduced" if probe.reason else "runs"


def _demo_status(demo: Demo, probes: dict[str, Probe]) -> DemoStatus:
    for name in (*demo.needs, *demo.better_with):
        if name not in probes:
            probes[name] = _asked(name)
    lacking = [name for name in demo.needs if not probes[name].works]
    weak = [name for name in demo.needs if probes[name].reason]
    missed = [name for name in demo.better_with if not probes[name].works]
    if not (lacking or weak or missed):
        return DemoStatus(demo=demo, standing="runs")
    cause, verb = (lacking[0], "needs") if lacking else (missed[0], "goes without") if missed else (weak[0], "uses")
    return DemoStatus(
        demo=demo,
        standing="not here" if lacking else "reduced",
        reason=f"{verb} {cause}: {probes[cause].reason}",
        remedy=probes[cause].remedy,
    )


def _instrument(name: str, standings: Sequence[Standing], reason: str) -> Instrument:
    """It runs when all of its parts do, and is not here when none does."""
    working = sum(standing != "not here" for standing in standings)
    whole = bool(standings) and all(standing == "runs" for standing in standings)
    return Instrument(
        name=name,
        standing="runs" if whole else "reduced" if working else "not here",
        working=working,
        total=len(standings),
        reason=reason,
    )


class _Leftovers(TypedDict):
    runtime_dir: str
    leftovers: tuple[Leftover, ...]


def _leftovers() -> _Leftovers:
    """Where the runtime folder is or would be, and what dead owners left; that it cannot be had is a fact too."""
    try:
        return {"runtime_dir": str(journal.folder_path()), "leftovers": tuple(registry.leftovers())}
    except (IpclabError, OSError) as err:
        return {"runtime_dir": f"none: {err}", "leftovers": ()}

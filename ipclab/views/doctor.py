"""The doctor's report as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ipclab.records import DoctorReport, Fact, Limit, Package
from ipclab.views.medium import Medium, about, quantity, wrap
from ipclab.views.tree import STYLES, why, word_of

_NAME_COLUMNS = 25


def doctor_table(report: DoctorReport, medium: Medium) -> str:
    """Facts first, then what they mean for each instrument and each demo."""
    lines = [medium.paint(f"ipclab {report.version}", "head")]
    for group in dict.fromkeys(fact.group for fact in report.facts):
        lines += ["", medium.paint(group, "head")]
        for fact in report.facts:
            if fact.group == group:
                lines += _row(fact.name, _fact(fact), medium)
        if group == "python":
            for package in report.packages:
                lines += _row(package.name, _package(package), medium)
    lines += ["", medium.paint("limits of this process", "head"), *_limits(report.limits, medium)]
    lines += ["", medium.paint("named objects", "head"), *_row("runtime folder", report.runtime_dir, medium)]
    lines += _row("leftovers", _leftovers(report), medium)
    lines += ["", medium.paint("instruments", "head")]
    for instrument in report.instruments:
        text = f"{instrument.working} of {instrument.total} work here" if instrument.total else ""
        lines += _standing(instrument.name, instrument.standing, text, why(instrument.reason, ""), medium)
    lines += ["", medium.paint("sources of states, best first", "head")]
    for source in report.sources:
        below = [f"remedy: {source.remedy}"] if source.remedy else []
        lines += _standing(source.source, source.standing, source.reason, below, medium)
    lines += ["", medium.paint("mechanisms that do not work whole", "head")]
    weak = [status for status in report.mechanisms if word_of(status.probe) != "works"]
    for status in weak:
        below = [f"remedy: {status.probe.remedy}"] if status.probe.remedy else []
        lines += _standing(status.mechanism.name, word_of(status.probe), status.probe.reason, below, medium)
    lines += [] if weak else ["  none"]
    lines += ["", medium.paint("demos", "head")]
    for demo in report.demos:
        below = [f"remedy: {demo.remedy}"] if demo.remedy else []
        lines += _standing(demo.demo.name, demo.standing, demo.reason, below, medium)
    return "\n".join([*lines, ""])


def _row(name: str, text: str, medium: Medium) -> list[str]:
    return wrap(text, medium, f"  {name:<{_NAME_COLUMNS}}", " " * (_NAME_COLUMNS + 2))


def _standing(name: str, word: str, text: str, below: Sequence[str], medium: Medium) -> list[str]:
    margin = " " * (_NAME_COLUMNS + 11)
    lines = wrap(
        text, medium, f"  {name:<{_NAME_COLUMNS}}{medium.paint(word, STYLES[word])}{' ' * (9 - len(word))}", margin
    )
    for line in below:
        lines += wrap(line, medium, margin, margin + "  ")
    return lines


def _fact(fact: Fact) -> str:
    if fact.value is None:
        return fact.note or "unknown"
    if isinstance(fact.value, bool):
        shown = "yes" if fact.value else "no"
    elif isinstance(fact.value, str):
        shown = fact.value
    else:
        shown = about(fact.value, fact.unit)
    return f"{shown} ({fact.note})" if fact.note else shown


def _package(package: Package) -> str:
    if package.version is not None:
        return package.version
    needed = f"missing, only needed for the extra {package.extra}" if package.extra else "missing"
    return f"{needed}: {package.remedy}"


def _limits(limits: Sequence[Limit], medium: Medium) -> list[str]:
    """Soft and hard on one line."""
    shown = {limit.name: "unlimited" if limit.value is None else quantity(limit.value, limit.unit) for limit in limits}
    lines = []
    for name, soft in shown.items():
        if not name.endswith(" (hard)"):
            hard = shown.get(f"{name} (hard)", soft)
            lines += _row(name, soft if hard == soft else f"{soft}, can be raised to {hard}", medium)
    return lines


def _leftovers(report: DoctorReport) -> str:
    count = len(report.leftovers)
    return f"{count} of dead owners: `ipclab clean` removes them" if count else "none"

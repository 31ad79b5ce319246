"""Mechanisms and demos as trees by family, and one mechanism as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ipclab.records import (
    DemoFamily,
    DemoList,
    DemoStatus,
    Family,
    Limit,
    MechanismList,
    MechanismStatus,
    Probe,
    Standing,
)
from ipclab.views.medium import Medium, quantity, wrap

#: How each family is called in full.
TITLES: dict[str, str] = {
    "data transfer": "communication by data transfer",
    "shared memory": "communication by shared memory",
    "signals": "signals",
    "synchronisation": "synchronisation",
    "scheduler": "scheduler: Go's GMP, with processes as Ms",
    "processes": "processes",
    "comparison": "comparisons",
}
#: The words a status is told in, and how each is painted.
STYLES = {"works": "good", "runs": "good", "reduced": "warn", "not here": "bad"}

#: Room for the longest of "works", "reduced", "not here" and a space.
_WORD_COLUMNS = 9


def mechanism_tree(found: MechanismList, medium: Medium) -> str:
    """Every mechanism below its family: works here or why not, what Go calls it, its limits where they were read."""
    lines: list[str] = []
    width = max((len(status.mechanism.name) for status in found.mechanisms), default=0)
    for family in get_args(Family):
        members = [status for status in found.mechanisms if status.mechanism.family == family]
        if not members:
            continue
        lines += [*([""] if lines else []), medium.paint(TITLES[family], "head")]
        for status in members:
            below = [f"Go: {status.mechanism.go}"] if status.mechanism.go else []
            lines += _item(
                medium,
                last=status is members[-1],
                name=status.mechanism.name.ljust(width),
                word=word_of(status.probe),
                text=status.mechanism.summary,
                below=[*why(status.probe.reason, status.probe.remedy), *below, *limit_lines(status.limits)],
            )
    working = sum(status.probe.works for status in found.mechanisms)
    in_go = sum(bool(status.mechanism.go) for status in found.mechanisms)
    return _text([*lines, "", f"{working} of {len(found.mechanisms)} work here; Go's standard library offers {in_go}"])


def demo_tree(found: DemoList, medium: Medium) -> str:
    """Every demo below its family: runs, reduced or not here, and why."""
    lines: list[str] = []
    width = max((len(status.demo.name) for status in found.demos), default=0)
    for family in get_args(DemoFamily):
        members = [status for status in found.demos if status.demo.family == family]
        if not members:
            continue
        lines += [*([""] if lines else []), medium.paint(TITLES[family], "head")]
        for status in members:
            lines += _item(
                medium,
                last=status is members[-1],
                name=status.demo.name.ljust(width),
                word=status.standing,
                text=status.demo.summary,
                below=why(status.reason, status.remedy),
            )
    return _text([*lines, "", summary_of(found.demos)])


def mechanism_pages(found: MechanismList, medium: Medium) -> str:
    """One page after the other."""
    return "\n".join(mechanism_page(status, medium) for status in found.mechanisms)


def mechanism_page(status: MechanismStatus, medium: Medium) -> str:
    """The page a student learns from: the facts of this machine first, then the mechanism's own text."""
    mechanism = status.mechanism
    word = word_of(status.probe)
    rows = [
        ("family", TITLES[mechanism.family]),
        ("here", "; ".join([word, *why(status.probe.reason, status.probe.remedy)])),
        ("lifetime", mechanism.lifetime),
        ("boundaries", _yes_no(mechanism.boundaries, "kept: messages", "none: a stream of bytes", "carries no data")),
        ("both ways", _yes_no(mechanism.duplex, "yes", "no", "carries no data")),
        ("in Go", mechanism.go or "no"),
        ("manual", ", ".join(mechanism.man_pages)),
    ]
    lines = wrap(f"{mechanism.name}: {mechanism.summary}", medium, "", "    ")
    lines[0] = medium.paint(lines[0], "head")
    for name, value in rows:
        shown = medium.paint(word, STYLES[word]) + value[len(word) :] if name == "here" else value
        lines += wrap(shown, medium, f"  {name:<12}", " " * 14)
    for limit in limit_lines(status.limits):
        lines += wrap(limit.removeprefix("limit: "), medium, f"  {'limit':<12}", " " * 14)
    return _text([*lines, "", *_paragraphs(status.page, medium)])


def word_of(probe: Probe) -> str:
    """A probe's answer in a word."""
    return "not here" if not probe.works else "reduced" if probe.reason else "works"


def why(reason: str, remedy: str) -> list[str]:
    """The lines that give a reason and the way out, none when there is none."""
    return [f"why: {reason}"] * bool(reason) + [f"remedy: {remedy}"] * bool(remedy)


def limit_lines(limits: Sequence[Limit]) -> list[str]:
    """One line for each limit: name, value, where it was read."""
    return [
        f"limit: {limit.name}: {'none' if limit.value is None else quantity(limit.value, limit.unit)} ({limit.source})"
        for limit in limits
    ]


def summary_of(statuses: Sequence[DemoStatus]) -> str:
    """How many demos run, are reduced, are not here."""
    counts = {word: sum(status.standing == word for status in statuses) for word in get_args(Standing)}
    noun = "demo" if len(statuses) == 1 else "demos"
    told = ", ".join(f"{count} {'run' if word == 'runs' else word}" for word, count in counts.items() if count)
    return f"{len(statuses)} {noun}: {told}" if statuses else "no demos"


def _item(medium: Medium, *, last: bool, name: str, word: str, text: str, below: Sequence[str]) -> list[str]:
    """One branch: name, word and text in columns, and what stands below it under the text."""
    item, last_item, through, nothing = medium.branches()
    margin = (nothing if last else through) + " " * (len(name) + 2)
    mark = medium.paint(word, STYLES[word]) + " " * (_WORD_COLUMNS - len(word))
    head = f"{last_item if last else item}{name}  "
    rest = margin + " " * _WORD_COLUMNS
    lines = wrap(text, medium, f"{head}{mark}", rest)
    for line in below:
        lines += wrap(line, medium, rest, rest + "  ")
    return lines


def _paragraphs(page: str, medium: Medium) -> list[str]:
    """The page's text. Paragraphs are filled anew where the medium is narrower; drawings and lists stay as they are."""
    lines: list[str] = []
    for block in page.strip().split("\n\n"):
        own = block.splitlines()
        is_prose = not any(line.startswith((" ", "-", "*", "|")) for line in own)
        if is_prose and any(len(line) > medium.columns for line in own):
            own = wrap(" ".join(own), medium, "", "")
        lines += [*([""] if lines else []), *own]
    return lines


def _yes_no(value: bool | None, yes: str, no: str, neither: str) -> str:
    return neither if value is None else yes if value else no


def _text(lines: Sequence[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"

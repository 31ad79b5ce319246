"""The zoo as text: each state, who is in it, what /proc says of it, how it got there and how it gets out."""

from __future__ import annotations

from ipclab.records import Glance, Zoo, ZooEntry
from ipclab.views.medium import Medium, wrap

_MARGIN = "            "


def zoo_table(zoo: Zoo, medium: Medium) -> str:
    """A paragraph for each state."""
    return "\n".join("\n".join(_entry(entry, medium)) + "\n" for entry in zoo.entries)


def _entry(entry: ZooEntry, medium: Medium) -> list[str]:
    head = medium.paint(entry.title, "head") + " " * (len(_MARGIN) - len(entry.title))
    lines = wrap(entry.meaning, medium, head, _MARGIN)
    rows = [("recipe", entry.recipe), ("/proc", _seen(entry)), ("reads", _reads(entry)), ("ended by", entry.ended_by)]
    for name, text in rows:
        if text:
            lines += wrap(text, medium, f"  {medium.paint(name, 'faint')}{' ' * (10 - len(name))}", _MARGIN)
    return lines


def _seen(entry: ZooEntry) -> str:
    if entry.seen is None:
        return f"not here: {entry.reason}"
    return told(entry.seen)


def told(seen: Glance) -> str:
    """A glance in one line."""
    parts = [f"{seen.name}[{seen.pid}]" if seen.name else f"[{seen.pid}]", f"state {seen.state}"]
    if seen.syscall:
        parts.append(f"in system call {seen.syscall}")
    if seen.wchan:
        parts.append(f"in kernel function {seen.wchan}")
    if seen.ppid:
        parts.append(f"parent {seen.ppid}")
    parts += [f"{name} -: {why}" for name, why in seen.unreadable.items()]
    return ", ".join(parts)


def _reads(entry: ZooEntry) -> str:
    if entry.seen is None:
        return ""
    if entry.state == "X":
        return f"seen once, at the end of process number {entry.tries}"
    text = f"{entry.hits} of {entry.reads} said {entry.state}"
    if entry.ran_share is not None:
        text += f"; by schedstat it ran {entry.ran_share:.0%} of the time and waited for a CPU the rest"
    return text

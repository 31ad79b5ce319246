"""Where text goes: how wide it is there, whether colours and line-drawing characters may be used."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from typing import TextIO

import msgspec

#: The width where there is no terminal to ask: what a mail, a log or a wide editor window still shows whole.
PIPED_COLUMNS = 100
#: Narrower than this columns cannot be kept apart; such a terminal gets this width and wraps by itself.
LEAST_COLUMNS = 40

_COLOURS = {"good": "32", "warn": "33", "bad": "31", "head": "1", "faint": "2"}
_BINARY = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_TREE = {True: ("├── ", "└── ", "│   ", "    "), False: ("|-- ", "`-- ", "|   ", "    ")}


class Medium(msgspec.Struct, frozen=True):
    """What the place that shows the text can do. The default can do nothing: ASCII, no colour."""

    columns: int = PIPED_COLUMNS
    colour: bool = False
    unicode: bool = False

    def paint(self, text: str, style: str) -> str:
        """The text in a style ("good", "warn", "bad", "head", "faint"), unchanged where there is no colour."""
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if self.colour and text else text

    def branches(self) -> tuple[str, str, str, str]:
        """A tree's item, its last item, what stands below an item, what stands below the last."""
        return _TREE[self.unicode]


def medium_of(stream: TextIO, env: Mapping[str, str]) -> Medium:
    """What `stream` can show. Colour: a terminal that is not dumb, unless NO_COLOR is set (no-color.org)."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    terminal = stream.isatty()
    return Medium(
        columns=_columns(stream, env) if terminal else PIPED_COLUMNS,
        colour=terminal and not env.get("NO_COLOR") and env.get("TERM", "dumb") != "dumb",
        unicode=terminal and encoding.startswith("utf"),
    )


def _columns(stream: TextIO, env: Mapping[str, str]) -> int:
    """The terminal's width; COLUMNS goes first, as in every shell tool."""
    if env.get("COLUMNS", "").isdigit():
        return max(LEAST_COLUMNS, int(env["COLUMNS"]))
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(LEAST_COLUMNS, columns or 80)


def wrap(text: str, medium: Medium, first: str, rest: str) -> list[str]:
    """The text in lines no wider than the medium, `first` before its first line and `rest` before all others.

    Words are never cut: a path or a command that is too long stays whole, so that it can be copied.
    """
    room = max(20, medium.columns - max(len(plain(first)), len(rest)))
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{prefix}{line}".rstrip() for prefix, line in zip([first, *[rest] * (len(lines) - 1)], lines, strict=True)]


def plain(text: str) -> str:
    """The text without colours: what counts for its width."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def quantity(value: int, unit: str) -> str:
    """A number with its unit, exact: bytes in the largest binary unit that divides them.

    >>> quantity(65536, "bytes"), quantity(65535, "bytes"), quantity(1, "files")
    ('64 KiB', '65535 bytes', '1 file')
    """
    if unit == "bytes" and value:
        for size, name in _BINARY:
            if value % size == 0:
                return f"{value // size} {name}"
    return f"{value} {unit.removesuffix('s') if value == 1 else unit}".rstrip()


def about(value: float, unit: str) -> str:
    """A number with its unit, rounded where that reads better: bytes to one decimal of a binary unit.

    >>> about(25276510208, "bytes"), about(1.5, "CPUs")
    ('23.5 GiB', '1.5 CPUs')
    """
    if unit == "bytes":
        for size, name in _BINARY:
            if value >= size:
                return f"{value / size:.1f}".removesuffix(".0") + f" {name}"
    return quantity(value, unit) if isinstance(value, int) else f"{value:g} {unit}".rstrip()

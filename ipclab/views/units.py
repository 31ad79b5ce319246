"""Figures of the bench, each with the unit that suits it."""

from __future__ import annotations

from collections.abc import Sequence


def rate(per_s: float | None, what: str = "msg") -> str:
    """Messages a second.

    >>> rate(1234567.0), rate(940.0), rate(None)
    ('1.23 M msg/s', '940 msg/s', '')
    """
    if per_s is None:
        return ""
    unit = f"{what}/s" if what else "/s"
    return _scaled(per_s, ((1e9, "G"), (1e6, "M"), (1e3, "k")), unit)


def bandwidth(bytes_per_s: float | None) -> str:
    """Bytes a second, in powers of ten.

    >>> bandwidth(2.5e9), bandwidth(None)
    ('2.50 GB/s', '')
    """
    return "" if bytes_per_s is None else _scaled(bytes_per_s, ((1e9, "G"), (1e6, "M"), (1e3, "k")), "B/s")


def span(ns: float | None) -> str:
    """A time.

    >>> span(1830), span(0.5), span(None)
    ('1.83 us', '0.500 ns', '-')
    """
    if ns is None:
        return "-"
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= factor:
            return f"{_digits(ns / factor)} {unit}"
    return f"{_digits(ns)} ns"


def count(value: float | None) -> str:
    """How often something happened for a message; "n/a" when nobody counted."""
    if value is None:
        return "n/a"
    return f"{value:.2f}" if value >= 0.01 or value == 0 else "<0.01"


def size(size_bytes: int) -> str:
    """A message's size in binary units.

    >>> size(65536), size(100), size(0)
    ('64 KiB', '100 B', 'no data')
    """
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B" if size_bytes else "no data"


def _scaled(value: float, steps: Sequence[tuple[float, str]], unit: str) -> str:
    for factor, letter in steps:
        if value >= factor:
            return f"{_digits(value / factor)} {letter}{' ' if unit.startswith(('msg', 'trip')) else ''}{unit}"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    """Three of them.  1.23, 12.3, 123, 1234."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.2f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"

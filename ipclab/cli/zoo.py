"""`ipclab zoo`: a real process in each state."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

from ipclab.cli.output import medium, output_options, say, show
from ipclab.errors import UsageError

#: How long a state that was asked for by its name is held when nobody ends it.
_HOLD_S = 600.0
_LONGEST_S = 3600.0


@click.command(
    "zoo",
    short_help="A real process in each state: R S D T t Z X I.",
    epilog="Example: ipclab zoo, or: ipclab zoo --hold D",
)
@click.option(
    "--hold",
    metavar="S",
    help="Keep what S names until Ctrl-C (10 minutes at most): a state, or all of them for a number of seconds.",
)
@click.option("--reads", metavar="N", type=click.IntRange(1, 1_000_000), default=1000, help="Default: 1000.")
@output_options
def zoo_command(hold: str | None, reads: int, as_json: bool, file: Path | None) -> int:
    """Bring a real process into each state, read it back, and tell the recipe and who can end the state.

    Unprivileged; nothing is left. Exit code 1 when a state that this machine allows was not seen in 99 % of the reads.
    """
    from ipclab.records import Zoo
    from ipclab.states import zoo
    from ipclab.views.zoo import zoo_table

    names, hold_s = _asked(hold, zoo.titles())
    deadline_s = 60.0 + hold_s
    with contextlib.ExitStack() as held:
        entries = []
        for name in names:
            if hold is None:
                entries.append(zoo.visit(name, reads=reads))
            else:
                entries.append(held.enter_context(zoo.visiting(name, reads=reads, deadline_s=deadline_s)))
        found = Zoo(entries=tuple(entries))
        show(found, lambda place: zoo_table(found, place), as_json=as_json, file=file)
        if hold is not None and any(entry.seen for entry in entries):
            _stay(hold_s, as_json)
    return 0 if all(entry.hits >= 0.99 * entry.reads for entry in found.entries) else 1


def _asked(hold: str | None, titles: tuple[str, ...]) -> tuple[tuple[str, ...], float]:
    """Which states, and for how long."""
    if hold is None:
        return titles, 0.0
    try:
        seconds = float(hold)
    except ValueError:
        return (hold,), _HOLD_S
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError(f"--hold {hold} is no time to hold something", hint=f"above 0, up to {_LONGEST_S:g} seconds")
    return titles, seconds


def _stay(hold_s: float, as_json: bool) -> None:
    if not as_json:
        say(medium().paint(f"\nheld for {hold_s:g} s; Ctrl-C ends it\n", "faint"))
    time.sleep(hold_s)

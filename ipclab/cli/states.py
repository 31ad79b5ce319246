"""`ipclab states`: what state processes are in, over time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipclab.cli.live import Draw, screen
from ipclab.cli.output import file_option, medium, save, say, say_pieces
from ipclab.errors import IpclabError, UsageError

if TYPE_CHECKING:
    from ipclab.records import Recording
    from ipclab.states import Tracker

_FORMATS = ("table", "json", "csv", "chrome", "sqlite", "html")
#: What the live view's bars show.
_LIVE_S = 10.0


class _PidsCommand(click.Command):
    """`--pid 12 34` is `--pid 12 --pid 34`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_spread(args)))


def _spread(args: list[str]) -> Iterator[str]:
    for at, word in enumerate(args):
        if word == "--":
            yield from args[at:]
            return
        before = next((one for one in reversed(args[:at]) if not one.isdecimal()), "")
        follows = at > 1 and word.isdecimal() and args[at - 1].isdecimal() and before == "--pid"
        if follows:
            yield "--pid"
        yield word


def _rate(_context: click.Context, _option: click.Parameter, text: str) -> float | None:
    if text == "max":
        return None
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz < float("inf"):
        raise UsageError(f"--rate {text} is no number of looks a second", hint="more than 0, or max: flat out")
    return rate_hz


@click.command(
    "states",
    cls=_PidsCommand,
    short_help="Record what state processes are in, and how complete the record is.",
    epilog="Example: ipclab states -- make -j4, or: ipclab states --pid 1234 --duration 5 --format chrome -o t.json",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--pid", "pids", metavar="PID...", type=int, multiple=True, help="Track these, as long as they live.")
@click.option(
    "--source",
    type=click.Choice(["auto", "poll", "switch", "trace"]),
    default="auto",
    help="Who tells: auto takes the best this user may have here, and says why not a better one.",
)
@click.option(
    "--rate", "rate_hz", metavar="HZ", default="1000", callback=_rate, help="Looks a second; max: flat out. [1000]"
)
@click.option("--duration", "duration_s", metavar="S", type=float, help="End the record after so many seconds.")
@click.option("--follow/--no-follow", default=True, help="Children and threads too; the default.")
@click.option("--live/--no-live", default=None, help="The live view; the default with --pid on a terminal.")
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), default="table", help="Of what is printed, or written to FILE."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@file_option("Write the record to FILE, in the format given (table: as JSON).")
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def states_command(
    pids: tuple[int, ...],
    command: tuple[str, ...],
    duration_s: float | None,
    live: bool | None,
    form: str,
    as_json: bool,
    file: Path | None,
    **given: Any,
) -> int:
    """Record the states R S D T t Z X of processes, from /proc, perf or the scheduler's own events.

    Of COMMAND the exit code, the terminal and the signals are passed through. With --pid Ctrl-C ends the record. How
    complete it is belongs to every record. Without -o what is asked for is printed after COMMAND's own output.
    """
    form = "json" if as_json else form
    _check(pids, command, duration_s, form, file)
    from ipclab.states import Tracker

    on_screen = live if live is not None else bool(pids) and form == "table" and sys.stdout.isatty()
    with screen(on_screen) as draw:
        spill = file if form == "sqlite" else None
        tracker = Tracker(pids, command=command or None, spill=spill, on_progress=_frames(draw), **given)
        with contextlib.ExitStack() as undo:
            undo.callback(tracker.close)
            head = tracker.run(duration_s)
            undo.pop_all()
    with contextlib.closing(tracker):
        _give_out(head, tracker, form, file)
    if form == "sqlite" and tracker.spill_fault:
        raise IpclabError(tracker.spill_fault)
    if head.completeness.disagreement:
        raise IpclabError(head.completeness.disagreement, hint="what was recorded is not to be believed")
    return head.exit_code or 0


def _check(
    pids: tuple[int, ...], command: tuple[str, ...], duration_s: float | None, form: str, file: Path | None
) -> None:
    if pids and command:
        raise UsageError("--pid and a command exclude each other", hint="track one or the other")
    if not pids and not command:
        raise UsageError(
            "there is nothing to track", hint="ipclab states --pid PID..., or: ipclab states -- COMMAND..."
        )
    if duration_s is not None and not 0 < duration_s < float("inf"):
        raise UsageError(f"--duration {duration_s:g} is no time", hint="seconds, more than 0")
    if form == "sqlite" and file is None:
        raise UsageError("--format sqlite needs a file", hint="name one with -o FILE")


def _frames(draw: Draw | None) -> Callable[[Tracker], object] | None:
    """Called by a thread of the tracker, many times a second."""
    if draw is None:
        return None
    from ipclab.views.live import live_frame

    place = medium()

    def frame(tracker: Tracker) -> None:
        draw(lambda lines: live_frame(tracker.recording(), tracker.recent(_LIVE_S), _LIVE_S, place, lines))

    return frame


def _give_out(head: Recording, tracker: Tracker, form: str, file: Path | None) -> None:
    """Print what was asked for, or write it to the file and print the table."""
    from ipclab.views import states, states_export, states_html

    writers = {
        "table": states_export.states_json,
        "json": states_export.states_json,
        "csv": states_export.states_csv,
        "chrome": states_export.states_chrome,
        "html": states_html.states_html,
    }
    if file is None and form != "table":
        say_pieces(writers[form](head, tracker.intervals()))
        with contextlib.suppress(OSError):
            sys.stderr.write(f"complete: {states.completeness_line(head.completeness)}\n")
        return
    say(states.states_report(head, tracker.intervals(), medium()))
    if file is not None and form in writers:
        save(writers[form](head, tracker.intervals()), file)

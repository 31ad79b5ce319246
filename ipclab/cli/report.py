"""`ipclab report`: records drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ipclab.cli.output import check_file, save, say
from ipclab.errors import UsageError

if TYPE_CHECKING:
    from ipclab.views.plots import Form


@click.command(
    "report",
    short_help="Draw what was recorded.",
    epilog="Example: ipclab bench run pipe ring --quick -o run.json && ipclab report --plot run.json -o run.svg",
)
@click.argument("records", metavar="RECORD...", nargs=-1, required=True)
@click.option("--plot", is_flag=True, help="A picture of bench runs: throughput and latency against message size.")
@click.option("--db", "database", metavar="FILE", type=click.Path(path_type=Path), help="Where stored runs are.")
@click.option("--json", "as_json", is_flag=True, help="Print the records that would be drawn as JSON.")
@click.option(
    "-o", "--output", "file", metavar="FILE", callback=check_file, help="Where to: a name that ends in .png or .svg."
)
def report_command(
    records: tuple[str, ...], plot: bool, database: Path | None, as_json: bool, file: Path | None
) -> None:
    """Draw RECORD..., which are files written with -o or the beginnings of the ids of stored runs.

    With --plot (extra `plots`) the runs of `ipclab bench run` become one picture, PNG or SVG.
    """
    from ipclab.bench import store
    from ipclab.views import plots

    if not plot:
        raise UsageError("a page of records is not there yet", hint="--plot draws bench runs as PNG or SVG")
    form = None if as_json else _form(file)
    runs = [store.load(name, database) for name in records]
    if form is None:
        import msgspec

        say(msgspec.json.format(msgspec.json.encode(runs), indent=2).decode() + "\n")
        return
    assert file is not None
    save(plots.bench_plot(runs, form), file)


def _form(file: Path | None) -> Form:
    """What the file's name says. Raises UsageError."""
    suffix = "" if file is None else file.suffix.lower()
    if suffix not in (".png", ".svg"):
        given = "no file was named" if file is None else f"{file} ends in neither .png nor .svg"
        raise UsageError(given, hint="-o plot.svg, or -o plot.png")
    return cast("Form", suffix[1:])

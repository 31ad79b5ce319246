"""`ipclab list`: the mechanisms."""

from __future__ import annotations

from pathlib import Path

import click

from ipclab.cli.complete import mechanism_names
from ipclab.cli.output import output_options, show


@click.command(
    "list",
    short_help="Every IPC mechanism, and whether it works here.",
    epilog="Example: ipclab list --limits, or: ipclab list pipe",
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=mechanism_names)
@click.option("--limits", is_flag=True, help="Show the limits too, as this machine has them now.")
@output_options
def list_command(names: tuple[str, ...], limits: bool, as_json: bool, file: Path | None) -> None:
    """Every IPC mechanism by family: whether it works here and if not why, and what Go's standard library offers.

    With NAME: the page of that mechanism, to learn from.
    """
    from ipclab import survey
    from ipclab.records import MechanismList
    from ipclab.views import tree

    found = MechanismList(mechanisms=survey.mechanisms(names, limits=limits or bool(names), pages=bool(names)))
    show(
        found,
        lambda medium: tree.mechanism_pages(found, medium) if names else tree.mechanism_tree(found, medium),
        as_json=as_json,
        file=file,
    )

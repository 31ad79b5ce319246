"""`ipclab clean`: away with what dead processes left."""

from __future__ import annotations

from pathlib import Path

import click

from ipclab.cli.output import output_options, show


@click.command(
    "clean",
    short_help="Remove kernel objects whose owner is dead.",
    epilog="Example: ipclab clean --dry-run",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@output_options
def clean_command(dry_run: bool, as_json: bool, file: Path | None) -> int:
    """Remove the kernel objects and files that ipclab's own processes left when they were killed.

    Only what stands in ipclab's journal and whose owner is dead is touched.
    """
    from ipclab import survey
    from ipclab.views.clean import clean_table

    report = survey.clean(dry_run=dry_run)
    show(report, lambda medium: clean_table(report, medium), as_json=as_json, file=file)
    return 1 if any(leftover.error and leftover.kind != "journal" for leftover in report.leftovers) else 0

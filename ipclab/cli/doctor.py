"""`ipclab doctor`: this machine, and what ipclab can do on it."""

from __future__ import annotations

from pathlib import Path

import click

from ipclab.cli.output import output_options, show


@click.command(
    "doctor",
    short_help="This machine, and what runs on it.",
    epilog="Example: ipclab doctor --json -o here.json",
)
@output_options
def doctor_command(as_json: bool, file: Path | None) -> None:
    """Show this machine: kernel, processors, quotas, limits, privileges, packages.

    Then, for each instrument and each demo: whether it runs here, runs reduced or does not, why, and how to get it.
    """
    from ipclab import survey
    from ipclab.views.doctor import doctor_table

    report = survey.doctor()
    show(report, lambda medium: doctor_table(report, medium), as_json=as_json, file=file)

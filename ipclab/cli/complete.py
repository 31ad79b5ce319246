"""Names for the shell's completion: `_IPCLAB_COMPLETE=bash_source ipclab` prints what bash needs."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def mechanism_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The mechanisms whose name begins so."""
    from ipclab.mechanisms import CATALOGUE

    return [name for name in CATALOGUE if name.startswith(begun)]


def demo_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The demos whose name begins so."""
    from ipclab.demos import catalogue
    from ipclab.errors import IpclabError

    try:
        return [name for name in catalogue.names() if name.startswith(begun)]
    except IpclabError:
        return []


def workload_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The workloads that ship whose name begins so, and files."""
    from ipclab.gmp.load import names

    found = [CompletionItem(name) for name in names() if name.startswith(begun)]
    return [*found, CompletionItem(begun, type="file")]

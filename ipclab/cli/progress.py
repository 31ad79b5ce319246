"""The bar of long work, on stderr: only on a terminal, silent when piped."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipclab.bench.run import Progress


@contextlib.contextmanager
def progress() -> Iterator[Callable[[Progress], None] | None]:
    """What to call with each step; None where nobody looks. The bar is gone when this is left.

    It is drawn when it is told something, without a thread of its own: threads do not
    survive the forks of the bench.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    from ipclab.views.bench_runs import left

    columns = BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f}% {task.fields[left]}  {task.description}")
    with Bar(
        *columns, console=Console(stderr=True), auto_refresh=False, transient=True,
        redirect_stdout=False, redirect_stderr=False,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=None, left="")

        def tell(step: Progress) -> None:
            bar.update(
                task,
                completed=step.done,
                total=step.total,
                description=step.label,
                left=left(step.left_s),
                refresh=True,
            )

        yield tell

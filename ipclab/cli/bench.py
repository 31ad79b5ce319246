"""`ipclab bench`: run, compare, history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ipclab.cli.complete import mechanism_names
from ipclab.cli.output import output_options, show
from ipclab.errors import UsageError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from ipclab.bench.store import Store
    from ipclab.records import Options, Run
    from ipclab.views.medium import Medium

_Command = TypeVar("_Command", bound=Callable[..., object])
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _words(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """A list with commas; None when it was not given."""
    if text is None:
        return None
    found = tuple(word.strip() for word in text.split(","))
    if "" in found:
        raise UsageError(f"{_option.opts[0]} {text!r} has an empty word", hint="separate words by one comma each")
    return found


def _numbers(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    found = _words(context, option, text)
    try:
        return None if found is None else tuple(_number(word) for word in found)
    except ValueError as err:
        example = "64,1024,64K" if option.name == "sizes_bytes" else "0,1"
        raise UsageError(f"{option.opts[0]} {text!r} is not a list of whole numbers", hint=f"{example}") from err


def _number(word: str) -> int:
    """A whole number; K, M and G multiply by 1024 and its powers."""
    unit = _UNITS.get(word[-1:].lower())
    return int(word) if unit is None else int(word[:-1]) * unit


def _plan_options(command: _Command) -> _Command:
    """The options that say what is measured and where: of `run` and of `compare --interleaved`."""
    for option in reversed(
        (
            click.option("--size", "sizes_bytes", metavar="BYTES,...", callback=_numbers, help="Default: 64,1024,64K."),
            click.option("--driver", "drivers", metavar="native,python", callback=_words, help="Default: both."),
            click.option(
                "--pattern",
                "patterns",
                metavar="PATTERN,...",
                callback=_words,
                help="throughput, pingpong, openloop. Default: the first two.",
            ),
            click.option("--rate", "rate_per_s", metavar="MSG/S", type=float, help="Schedule of the open loop."),
            click.option(
                "--placement",
                "placements",
                metavar="NAME,...",
                callback=_words,
                help="cpu, smt, llc, node, socket, any. Default: any.",
            ),
            click.option("--cpus", metavar="A,B", callback=_numbers, help="These CPUs instead of a placement."),
            click.option("--memory-node", metavar="N", type=int, help="The NUMA node messages lie on."),
            click.option("--depth", metavar="N", type=int, help="Messages a mechanism shall have room for."),
            click.option("--rounds", metavar="N", type=int, help="Samples of each row. Default: 7, --quick 5."),
            click.option(
                "--sample-ms", metavar="MS", type=float, help="How long a sample is. Default: 100, --quick 20."
            ),
            click.option("--budget-s", metavar="S", type=float, help="Begin no sample after so many seconds."),
            click.option("--quick", is_flag=True, help="Shorter samples, fewer rounds: within 90 s on two CPUs."),
        )
    ):
        command = option(command)
    return command


def _options(given: dict[str, Any]) -> Options:
    """What was given; what was not has the record's defaults."""
    from ipclab.records import Options

    return Options(**{name: value for name, value in given.items() if value is not None})


@click.group(
    "bench",
    short_help="Throughput, latency and cost of the mechanisms.",
    epilog="Example: ipclab bench run pipe ring --size 64 --quick",
)
def bench_command() -> None:
    """Measure what each mechanism does on this machine and what it costs; compare; look back."""


@bench_command.command(
    "run",
    short_help="Measure mechanisms.",
    epilog="Example: ipclab bench run pipe ring --size 64,64K --pattern throughput --quick",
)
@click.argument("mechanisms", metavar="[MECHANISM]...", nargs=-1, shell_complete=mechanism_names)
@_plan_options
@click.option("--pairs", metavar="N,...", callback=_numbers, help="So many independent pairs at once. Default: 1.")
@click.option("--producers", metavar="N", type=int, help="So many send into one object.")
@click.option("--consumers", metavar="N", type=int, help="So many receive from one object.")
@click.option(
    "--peers", is_flag=True, help="Also channels that are not ours: multiprocessing's, faster-fifo, iceoryx2."
)
@click.option(
    "--format", "form", type=click.Choice(["table", "markdown", "csv"]), default="table", help="Default: table."
)
@click.option("--db", "database", metavar="FILE", type=click.Path(path_type=Path), help="Store the run there.")
@click.option("--no-store", is_flag=True, help="Do not store the run.")
@output_options
def run_command(
    form: str, database: Path | None, no_store: bool, as_json: bool, file: Path | None, **given: Any
) -> int:
    """Measure MECHANISM..., or all of them, in fresh processes, round by round, and show the best first.

    Every message is verified. Ctrl-C ends it early: what was measured is shown and stored, the exit code is 130. Exit
    code 1 when a mechanism failed or nothing could be measured.
    """
    from contextlib import ExitStack

    from ipclab.bench import plan
    from ipclab.bench import run as bench
    from ipclab.cli.progress import progress

    options = _options(given)
    cases, refusals = plan.expand(options)
    with ExitStack() as stack:
        store = _store_to_write(stack, database, no_store)
        with progress() as tell:
            done = bench.run(cases, options, refusals=refusals, progress=tell)
        if store is not None:
            store.add(done)
        show(done, lambda medium: _drawn(done, form, medium), as_json=as_json, file=file)
    return _exit_code(done)


def _exit_code(done: Run) -> int:
    if done.interrupted:
        return 128 + done.ended_by_signal
    return 1 if any(row.failure for row in done.rows) or not done.samples else 0


def _drawn(done: Any, form: str, medium: Medium) -> str:
    from ipclab.views import bench, bench_export

    if form == "markdown":
        return bench_export.bench_markdown(done)
    return bench_export.bench_csv(done) if form == "csv" else bench.bench_table(done, medium)


@bench_command.command(
    "compare",
    short_help="Is B faster than A?",
    epilog="Example: ipclab bench compare before.json after.json, or: "
    "ipclab bench compare --interleaved pipe ring --size 64 --quick",
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--interleaved", is_flag=True, help="Measure the mechanisms A and B now, in turn. Also: pipe:python.")
@_plan_options
@click.option("--db", "database", metavar="FILE", type=click.Path(path_type=Path), help="Where stored runs are.")
@click.option("--no-store", is_flag=True, help="Do not store the run that --interleaved makes.")
@output_options
def compare_command(
    a: str,
    b: str,
    interleaved: bool,
    database: Path | None,
    no_store: bool,
    as_json: bool,
    file: Path | None,
    **given: Any,
) -> int:
    """Compare two record files, or two stored runs by the beginning of their ids: the ratio, its interval, a verdict.

    With --interleaved A and B are mechanisms, measured A B A B, so that the machine's drift meets both; the run is
    stored like any other. What was measured in different placements or with different buffers is not compared; exit
    code 1 when that is all there is.
    """
    from contextlib import ExitStack

    from ipclab.bench import compare, store
    from ipclab.views.bench_runs import comparison_table

    def shown(found: Any) -> None:
        show(found, lambda medium: comparison_table(found, medium), as_json=as_json, file=file)

    if not interleaved:
        _none_of(given | {"no_store": no_store})
        found = compare.compare_runs(store.load(a, database), store.load(b, database))
        shown(found)
        return 0 if any(row.ratio is not None for row in found.rows) else 1
    with ExitStack() as stack:
        kept = _store_to_write(stack, database, no_store)
        done = _interleaved(a, b, given)
        if kept is not None:
            kept.add(done)
        shown(compare.compare_interleaved(done, a, b))
    return _exit_code(done)


def _store_to_write(stack: ExitStack, database: Path | None, no_store: bool) -> Store | None:
    """Where the run goes, opened before the work: that it cannot be written to is to be known before it."""
    from ipclab.bench.store import Store

    if no_store and database:
        raise UsageError("--db and --no-store exclude each other")
    return None if no_store else stack.enter_context(Store.to_write(database))


def _interleaved(a: str, b: str, given: dict[str, Any]) -> Run:
    from ipclab.bench import compare, plan
    from ipclab.bench import run as bench
    from ipclab.cli.progress import progress

    sides = compare.contenders(a, b)
    options = _options(given | {"mechanisms": tuple(dict.fromkeys(side.mechanism for side in sides))})
    cases, refusals = plan.expand(options)
    wanted = [case for case in cases if any(side.has(case) for side in sides)]
    with progress() as tell:
        return bench.run(wanted, options, refusals=refusals, progress=tell, trace=False)


def _none_of(given: dict[str, Any]) -> None:
    named = [name for name, value in given.items() if value not in (None, False)]
    if named:
        option = next(p.opts[0] for p in compare_command.params if p.name == named[0])
        raise UsageError(f"{option} is of --interleaved alone", hint="records are compared as they were measured")


@bench_command.command(
    "history",
    short_help="Stored runs.",
    epilog="Example: ipclab bench history pipe",
)
@click.argument("mechanism", metavar="[MECHANISM]", default="", shell_complete=mechanism_names)
@click.option("--db", "database", metavar="FILE", type=click.Path(path_type=Path), help="Where stored runs are.")
@output_options
def history_command(mechanism: str, database: Path | None, as_json: bool, file: Path | None) -> None:
    """List the stored runs, oldest first; with MECHANISM its course over time."""
    from ipclab.bench.history import history
    from ipclab.views.bench_runs import history_table

    found = history(database, mechanism)
    show(found, lambda medium: history_table(found, medium), as_json=as_json, file=file)

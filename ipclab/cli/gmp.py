"""`ipclab gmp`: sim, snapshot."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipclab.cli.complete import workload_names
from ipclab.cli.output import check_file, encode, kept_for_last, medium, output_options, save, say, show
from ipclab.errors import IpclabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipclab.records import SimResult

#: GODEBUG has no default; scheddetail alone looks as often as this.
_DETAIL_MS = 1000.0
_ROUNDS = 100


@click.group(
    "gmp",
    short_help="Go's scheduler, with processes as Ms.",
    epilog="Example: ipclab gmp sim mixed --procs 2",
)
def gmp_command() -> None:
    """Run workloads on Go's scheduler, its Ms processes and its state in shared memory; look at one that runs."""


@gmp_command.command(
    "sim",
    short_help="Run a workload of script Gs on real processes.",
    epilog="Example: ipclab gmp sim mixed --procs 2 --explain, or: ipclab gmp sim my.toml --trace t.json",
)
@click.argument("workload", metavar="WORKLOAD.toml", required=False, shell_complete=workload_names)
@click.option("--list", "listing", is_flag=True, help="The workloads that ship; WORKLOAD may be such a name.")
@click.option("--procs", metavar="N", type=int, help="Ps. Default: as many as CPUs this process may use.")
@click.option(
    "--model",
    type=click.Choice(["m:n", "n:1", "1:1"]),
    default="m:n",
    help="n:1: one M, cooperative. 1:1: an M for each G. [m:n]",
)
@click.option("--seed", metavar="N", type=int, default=0, help="Draws the times that are ranges. [0]")
@click.option(
    "--schedtrace", "schedtrace_ms", metavar="MS", type=float, help="Go's one line on stderr, every MS milliseconds."
)
@click.option("--scheddetail", is_flag=True, help="Go's long form of it, with every M, P and G. [every 1000 ms]")
@click.option("--explain", is_flag=True, help="Each round of one M as a line of decisions.")
@click.option("--m", "explained_m", metavar="M", type=int, help="Which M --explain is about. [the busiest]")
@click.option("--rounds", metavar="N", type=int, help=f"How many --explain shows. [{_ROUNDS}]")
@click.option("--g", "goid", metavar="GOID", type=int, help="The life of this G, an event a line.")
@click.option(
    "--trace", "trace_file", metavar="FILE", callback=check_file, help="Write what every M and P did, for Perfetto."
)
@output_options
def sim_command(workload: str | None, listing: bool, as_json: bool, file: Path | None, **given: Any) -> None:
    """Run the workload in WORKLOAD.toml, or the one of that name, and print times per job and what the scheduler did.

    Exit code 1: a deadlock, a G lost with its M, or a rule of Go's broken. docs/gmp-sim.md has the file's format.
    """
    if listing:
        if asked := _asked_besides("listing", "as_json", "file"):
            raise UsageError(f"--list runs nothing: {', '.join(asked)} would do nothing", hint="one or the other")
        from ipclab.gmp.load import listed
        from ipclab.views.gmp import workload_list

        show(listed(), lambda place: workload_list(listed(), place), as_json=as_json, file=file)
        return
    if workload is None:
        raise UsageError("which workload?", hint="a .toml file, or a name of `ipclab gmp sim --list`")
    _simulate(workload, as_json=as_json, file=file, **given)


def _asked_besides(*names: str) -> list[str]:
    """What else stands in the command line, as it is written there."""
    context = click.get_current_context()
    return [
        option.opts[0] if isinstance(option, click.Option) else option.metavar or ""
        for option in context.command.params
        if option.name not in names
        and context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
    ]


def _simulate(
    workload: str,
    *,
    as_json: bool,
    file: Path | None,
    schedtrace_ms: float | None,
    scheddetail: bool,
    explain: bool,
    explained_m: int | None,
    rounds: int | None,
    goid: int | None,
    trace_file: Path | None,
    **given: Any,
) -> None:
    if schedtrace_ms is not None and not 1 <= schedtrace_ms < 1e9:
        raise UsageError(f"--schedtrace {schedtrace_ms:g} is no interval", hint="milliseconds, 1 or more")
    if rounds is not None and rounds < 1:
        raise UsageError(f"--rounds {rounds} shows nothing", hint="1 or more")
    if rounds is not None and not explain and explained_m is None:
        raise UsageError(f"--rounds {rounds} alone shows nothing", hint="with --explain, or --m ID")
    if file and trace_file and _one_file(file, trace_file):
        raise UsageError(f"--trace and -o both write {file}", hint="two files")
    if scheddetail and schedtrace_ms is None:
        schedtrace_ms = _DETAIL_MS
    from ipclab.gmp import run
    from ipclab.views.gmp import sim_report

    result = run(
        workload,
        events=explain or explained_m is not None or goid is not None or trace_file is not None,
        schedtrace_ms=schedtrace_ms,
        on_schedtrace=_to_stderr,
        detailed=scheddetail,
        **given,
    )
    bare = result.without_events()
    with kept_for_last() as trying:
        if trace_file is not None:
            from ipclab.views.gmp_export import sim_chrome

            with trying():
                save(sim_chrome(result), trace_file)
        if file is not None:
            with trying():
                save(encode(bare), file)
        for text in _told(result, explain=explain, m=explained_m, rounds=rounds or _ROUNDS, goid=goid):
            say(text) if not as_json else _to_stderr(text)
        say(encode(bare).decode() if as_json else sim_report(bare, medium()))
    _judge(result)


def _one_file(one: Path, other: Path) -> bool:
    """Whether the second to be written would be all that is left, or stand behind the first."""
    if one.is_file() and other.is_file():
        return one.samefile(other)
    return one.absolute() == other.absolute() and not one.exists()


def _told(result: SimResult, *, explain: bool, m: int | None, rounds: int, goid: int | None) -> Iterator[str]:
    if explain or m is not None:
        yield _explained(result, m, rounds)
    if goid is not None:
        yield _life(result, goid)


def _life(result: SimResult, goid: int) -> str:
    from ipclab.views.gmp_explain import life

    text = life(result.events, result.started_ns, goid, result.totals.events_lost)
    if goid < 1 or not text.strip():
        last = max((event.goid for event in result.events), default=0)
        if goid >= 1 and (lost := result.totals.events_lost):
            raise IpclabError(
                f"nothing is known of G{goid}: {lost} events were overwritten before they could be read",
                hint="a G that came later, or fewer Gs",
            )
        raise UsageError(f"there was no G{goid}", hint=f"there were G1 to G{last}")
    return text + "\n"


def _explained(result: SimResult, m: int | None, rounds: int) -> str:
    from ipclab.views.gmp_explain import busiest, explained

    chosen = busiest(result.events) if m is None else m
    known = sorted({event.m for event in result.events})
    if chosen not in known:
        raise UsageError(f"there was no M{chosen}", hint=f"there were M{known[0]} to M{known[-1]}" if known else None)
    lost = result.totals.events_lost
    return explained(result.events, result.started_ns, chosen, rounds, medium(), lost) + "\n"


def _to_stderr(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _judge(result: SimResult) -> None:
    """Exit code 1, with one line, unless every G has ended by itself."""
    if result.outcome != "done":
        raise IpclabError(result.message, hint=_HINTS.get(result.outcome))
    if result.lost_goids:
        from ipclab.views.gmp import lost_text

        which = lost_text(result)
        many = result.lost
        what = "G was lost, it" if many == 1 else "Gs were lost, they"
        raise IpclabError(f"{many} {what} died with the M that ran {'it' if many == 1 else 'them'}: {which}")


_HINTS = {
    "deadlock": "above is what each waits for",
    "misuse": "the workload breaks a rule of Go's",
    "limit": "fewer Gs at a time, or `ulimit -u`",
    "internal": "this is a bug in ipclab",
}


@gmp_command.command(
    "snapshot",
    short_help="Every field and list of a scheduler that runs.",
    epilog="Example: ipclab gmp snapshot, or: ipclab gmp snapshot 1234 --json -o s.json",
)
@click.argument("pid", metavar="[PID]", type=int, required=False)
@click.option("--gs", "most", metavar="N", type=int, default=10_000, help="Copy the first N Gs of allgs. [10000]")
@output_options
def snapshot_command(pid: int | None, most: int, as_json: bool, file: Path | None) -> None:
    """Show sched and every P, M and G of the scheduler that process PID belongs to: its caller, template or any M.

    Without PID: of the only one this user runs. It stands still while it is copied, less than a millisecond as a
    rule, and goes on by itself whatever happens to this command. What could not be made to stand still is said so.
    """
    if not 0 <= most <= 1 << 28:
        raise UsageError(f"--gs {most} is out of range", hint="0 or more")
    if pid is not None and pid < 1:
        raise UsageError(f"{pid} is no process", hint="a PID is 1 or more")
    from ipclab.gmp.observer import snapshot
    from ipclab.views.gmp_snapshot import snapshot_report

    seen = snapshot(pid, most)
    show(seen, lambda place: snapshot_report(seen, place), as_json=as_json, file=file)

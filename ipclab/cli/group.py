"""The commands by name; each one's file is imported when it is called."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import import_module
from typing import cast

import click
from click.shell_completion import shell_complete

from ipclab.errors import UsageError

#: name -> (module, attribute), in the order of the help
COMMANDS = {
    "list": ("ipclab.cli.list_", "list_command"),
    "doctor": ("ipclab.cli.doctor", "doctor_command"),
    "demo": ("ipclab.cli.demo", "demo_command"),
    "states": ("ipclab.cli.states", "states_command"),
    "zoo": ("ipclab.cli.zoo", "zoo_command"),
    "clean": ("ipclab.cli.clean", "clean_command"),
    "bench": ("ipclab.cli.bench", "bench_command"),
    "gmp": ("ipclab.cli.gmp", "gmp_command"),
    "report": ("ipclab.cli.report", "report_command"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        return cast("click.Command", getattr(import_module(module), attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
            raise UsageError(
                f"no command is called {name!r}", hint=f"did you mean {near!r}? `ipclab --help` has them all"
            )
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from ipclab.machine.facts import version

    click.echo(f"ipclab {version()}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: ipclab demo pipe",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
def group() -> None:
    """A laboratory of inter-process communication: real processes, every mechanism Linux has, nothing simulated."""


def invoke(argv: list[str]) -> int:
    """Run one command line; the exit code. Raises what the command raises, and UsageError for what click has to say.

    click's own Group.main is not used: it makes an Abort and an empty line of every KeyboardInterrupt.
    """
    if instruction := os.environ.get("_IPCLAB_COMPLETE"):
        return shell_complete(group, {}, "ipclab", "_IPCLAB_COMPLETE", instruction)
    try:
        with group.make_context("ipclab", list(argv)) as context:
            result: object = group.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.format_message(), err=True)
        return 2
    except click.UsageError as err:
        where = err.ctx.command_path if err.ctx else "ipclab"
        raise UsageError(err.format_message().rstrip("."), hint=f"`{where} --help` shows how") from err
    return result if isinstance(result, int) else 0

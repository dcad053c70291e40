"""``modelyard help``: the help of a command, or of a topic; and ``modelyard version``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from modelyard.cli.commands import BY_NAME, COMMANDS
from modelyard.cli.exit_codes import MEANINGS
from modelyard.cli.usage import UsageError, nearest
from modelyard.version import __version__

_EXIT_CODES: Final = "exit-codes"


def _topics() -> list[str]:
    return [*(command.name for command in COMMANDS), _EXIT_CODES]


def show_help(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND", help=f"A command, or {_EXIT_CODES}.", show_default=False, autocompletion=_topics
        ),
    ] = None,
) -> None:
    """Show the help of a command, or what the exit codes mean."""
    root = ctx.find_root()
    match words or []:
        case []:
            typer.echo(root.get_help())
        case ["exit-codes"]:
            from modelyard.cli.help_text import exit_codes_help

            typer.echo(exit_codes_help(MEANINGS))
        case [name, *_] if name not in BY_NAME:
            raise UsageError(f"'{name}' is not a command.{nearest(name, [*BY_NAME, _EXIT_CODES])}")
        case [*names]:
            root.command.main([*names, "--help"], standalone_mode=False)


def show_version() -> None:
    """Print the version of Modelyard."""
    typer.echo(f"modelyard {__version__}")

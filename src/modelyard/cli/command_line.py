"""Commands and groups of commands: imports them when they are needed, and turns their errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from modelyard.cli.commands import BY_NAME, COMMANDS, Command
from modelyard.cli.exit_codes import FAILURE, OK, exit_code
from modelyard.errors import ModelyardError


class CommandLine(TyperGroup):
    """The whole command line: the commands of ``COMMANDS``."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import the command of that name; None if there is none."""
        command = BY_NAME.get(cmd_name)
        return None if command is None else load(command)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names of all commands, as the help shows them."""
        return [command.name for command in COMMANDS]

    def main(self, args: Sequence[str] | None = None, *_: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command line, and end the process with one of the exit codes of ``exit_codes``."""
        extra["prog_name"] = "modelyard"
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(args, standalone_mode=False, **extra) or OK)
        except typer.TyperException as error:
            _fail(error.format_message(), error.exit_code)
        except typer.Abort:
            _fail("Nothing was done.", FAILURE)
        except ModelyardError as error:
            _fail(str(error), exit_code(error))


def load(command: Command) -> Any:
    """Import a command."""
    module, _, name = command.home.partition(":")
    home = getattr(import_module(module), name)
    if not isinstance(home, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(command.name, cls=TyperCommand)(home)
        home = app
    loaded = typer.main.get_command(home)
    loaded.name = command.name
    return loaded


def _fail(message: str, code: int) -> NoReturn:
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold red]error:[/] ", end="")
    console.print(message, markup=False)
    sys.exit(code)

"""The command line: one file per command; ``commands.py`` lists them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from modelyard.cli.command_line import CommandLine
from modelyard.system import standard_streams
from modelyard.version import __version__

app = typer.Typer(
    cls=CommandLine,
    name="modelyard",
    help="Run many language models in one process, behind one OpenAI-compatible address.",
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modelyard {__version__}")
        raise typer.Exit


@app.callback()
def _without_command(
    ctx: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """Run the command line, and end with one of the exit codes of ``exit_codes.py``.

    When the reader of the output has ended, as with ``| head -1``, every command but a server ends with exit code 141.
    """
    standard_streams.watch()
    try:
        app()
    finally:
        if standard_streams.was_cut():
            sys.exit(standard_streams.CUT_STATUS)

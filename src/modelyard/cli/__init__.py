"""The command line: one file per command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from modelyard.cli.cache import cache
from modelyard.cli.doctor import doctor
from modelyard.cli.from_config import from_config
from modelyard.cli.install_converter import install_converter
from modelyard.cli.quantize import quantize
from modelyard.cli.resolve import resolve
from modelyard.cli.run import run
from modelyard.cli.serve import serve
from modelyard.errors import ConfigError, ModelyardError, PortUnavailable
from modelyard.system import standard_streams
from modelyard.version import __version__

app = typer.Typer(
    name="modelyard",
    help="Run many language models in one process, behind one OpenAI-compatible address.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(serve)
app.command("from-config")(from_config)
app.command()(run)
app.command()(resolve)
app.command()(quantize)
app.command("install-converter")(install_converter)
app.command()(doctor)
app.add_typer(cache, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modelyard {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = None,
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit code 2 means an error in the input, 1 another failure.

    When the reader of the output has ended, as with ``| head -1``, every command but a server ends with exit code 141.
    """
    standard_streams.watch()
    try:
        _run()
    finally:
        if standard_streams.was_cut():
            sys.exit(standard_streams.CUT_STATUS)


def _run() -> None:
    try:
        app()
    except (ConfigError, PortUnavailable) as error:
        _fail(error, 2)
    except ModelyardError as error:
        _fail(error, 1)


def _fail(error: ModelyardError, code: int) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold red]error:[/] ", end="")
    console.print(str(error), markup=False)
    sys.exit(code)

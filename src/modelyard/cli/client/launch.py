"""``modelyard launch``: starts another program with its settings pointing to a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Annotated, Final

import typer

from modelyard.cli.client.choose import choose_server, choose_server_of
from modelyard.cli.client.completion import complete_model
from modelyard.cli.client.find import model_in
from modelyard.cli.client.launching import CLIENTS, Launch, Target
from modelyard.cli.client.options import KeyFileOption, UrlOption
from modelyard.cli.messages import print_note
from modelyard.cli.usage import UsageError
from modelyard.errors import ModelNotFound, ModelyardError

MIN_CONTEXT: Final = 32_768
"""Tokens below which a coding agent does not get far: its instructions and tools alone are 10,000 to 25,000."""

_NAMES = ", ".join(CLIENTS)


class ClientMissing(ModelyardError):
    """The program is not installed; the message has the command that installs it."""


def launch(
    client: Annotated[
        str,
        typer.Argument(
            metavar="CLIENT",
            help=f"The program: {_NAMES}.",
            show_default=False,
            autocompletion=lambda: list(CLIENTS),
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENTS]", help="Arguments of the program, after --.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The model. [dim]\\[default: the server's default model, else its first][/]",
            autocompletion=complete_model,
        ),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the command instead of running it; a key is not shown.")
    ] = False,
) -> None:
    """Start a coding agent that uses a running server.

    Its settings are given in its environment and its arguments: no file of it is changed.
    """
    if (known := CLIENTS.get(client)) is None:
        raise UsageError(f"{client} is not a program that launch knows. Known: {_NAMES}.")
    target, context_length = _target(model, url, key_file=key_file)
    if context_length is not None and context_length < MIN_CONTEXT:
        print_note(
            f"The context of {target.model} has {context_length:,} tokens. {known.what} needs about {MIN_CONTEXT:,} "
            f"for its instructions, tools and files: serve a model trained on as many, with --ctx {MIN_CONTEXT}."
        )
    how, more = known.launch(target), tuple(arguments or ())
    if only_print:
        typer.echo(how.as_shell(target, more))
        return
    program = shutil.which(how.program)
    if program is None:
        raise ClientMissing(f"{known.what} is not installed: {how.program} is not on PATH. Install it: {known.install}")
    _replace_by(program, how, more)


def _target(model: str | None, url: str | None, *, key_file: KeyFileOption) -> tuple[Target, int | None]:
    """Return the server and the model that the program is to use, and the length of its context in tokens, if known.

    Raises:
        ModelNotFound: the server has no such model, or none at all.
        ModelyardError: as ``choose_server_of``.
    """
    server = (
        choose_server(url, key_file, only_looks=True) if model is None else choose_server_of([model], url, key_file)
    )
    found = model_in(server.models, model)
    if found is None:
        raise ModelNotFound(model or "default", ())
    (context_length,) = (each.get("context_length") for each in server.models if each["id"] == found)
    return Target(server.address.url, found, server.address.key), context_length


def _replace_by(program: str, how: Launch, arguments: tuple[str, ...]) -> None:
    """Let the program take the place of this process, so that the terminal and its signals are its own."""
    environment = {name: value for name, value in os.environ.items() if name not in how.unset} | dict(how.environment)
    command = [program, *how.arguments, *arguments]
    sys.stdout.flush()
    if sys.platform == "win32":
        raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
    os.execve(program, command, environment)

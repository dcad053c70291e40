"""Options of all commands that use a running server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.client.completion import complete_model
from modelyard.cli.usage import UsageError

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        "--address",
        metavar="URL",
        help="Address of the server: host, host:port, :port or a URL. "
        "[dim]\\[default: MODELYARD_HOST, else the server that runs on this machine][/]",
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="File with the API key. [dim]\\[default: MODELYARD_API_KEY, or the file that MODELYARD_API_KEY_FILE "
        "names][/]",
    ),
]
NodeOption = Annotated[
    str | None,
    typer.Option("--node", metavar="NODE", help="On a cluster: the node that is meant, as modelyard ps shows it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Id, alias or path of a model of the server.",
        show_default=False,
        autocompletion=complete_model,
    ),
]
ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="Ids, aliases or paths of models of the server.",
        show_default=False,
        autocompletion=complete_model,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help="The model, as an option.", autocompletion=complete_model),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A model, as an option; can be repeated.",
        autocompletion=complete_model,
    ),
]


def given_models(arguments: Sequence[str] | None, options: Sequence[str] | None, *, command: str) -> list[str]:
    """Return the models that a command names, each once.

    Raises:
        UsageError: there are none.
    """
    models = optional_models(arguments, options)
    if not models:
        raise UsageError(f"No model is given. Write: modelyard {command} MODEL. modelyard list shows all.")
    return models


def optional_models(arguments: Sequence[str] | None, options: Sequence[str] | None) -> list[str]:
    """Return the models that a command names, each once; [] for none."""
    return list(dict.fromkeys((*(arguments or ()), *(options or ()))))

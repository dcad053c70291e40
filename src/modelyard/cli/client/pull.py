"""``modelyard pull``: downloads a model, and converts it where that is needed, without loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from modelyard.cli.client.changes import Change, change_models
from modelyard.cli.client.completion import complete_model
from modelyard.cli.client.find import server_with_model
from modelyard.cli.client.options import JsonOption, KeyFileOption, ModelOption, UrlOption
from modelyard.cli.client.output import memory, print_json
from modelyard.cli.device_options import DEVICE_OPTIONS
from modelyard.cli.messages import print_result
from modelyard.cli.model_names import one_model_name
from modelyard.cli.options import MODEL_FORMS, ModelOptions, one_model, takes_model_options
from modelyard.cli.usage import UsageError


@takes_model_options(without=(*DEVICE_OPTIONS, "max_seqs", "ctx", "chat_template"))
def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help=f"The model: {MODEL_FORMS}.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    model: ModelOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    *,
    options: ModelOptions,
) -> None:
    """Download a model, and convert it where that is needed, so that its first load does not wait for that.

    A model of a running server gets the files that the configuration there says; any other one goes into the cache of
    this machine, and serve and run find it there.
    """
    wanted = one_model_name(name, model, command="pull")
    is_own = options != ModelOptions()
    if is_own and url is not None:
        raise UsageError("--url is for a model of that server, whose configuration says which files are meant.")
    server = None if is_own else server_with_model(wanted, url, os.environ, key_file)
    if server is not None:
        change = Change("/v1/models/prepare", _outcome, "The server goes on with the download.")
        change_models(change, [server.model or wanted], server.url, key_file, as_json=as_json)
        return
    _pull_here(wanted, options, as_json=as_json)


def _pull_here(model: str, options: ModelOptions, *, as_json: bool) -> None:
    """Prepare the files of a model in the caches of this machine."""
    from rich.console import Console

    from modelyard.cli.preparing import prepare_visibly
    from modelyard.cli.typed_names import options_as_typed

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with options_as_typed():
        files = prepare_visibly(one_model(model, options), console)
    if as_json:
        print_json({"model": model, "paths": [str(path) for path in files.paths], "size_bytes": files.size_bytes})
    else:
        print_result(f"{model} is here ({memory(files.size_bytes)}). Serve it with: modelyard serve {model}")


def _outcome(model: Mapping[str, Any]) -> str:
    return f"The files of {model['id']} are on the server's machine."

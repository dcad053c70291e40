"""``modelyard unload`` and ``modelyard park``: free models of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.client.changes import Change, change_models
from modelyard.cli.client.options import (
    JsonOption,
    KeyFileOption,
    ModelsArgument,
    ModelsOption,
    NodeOption,
    UrlOption,
    given_models,
)
from modelyard.cli.client.output import memory
from modelyard.cli.usage import UsageError

NowOption = Annotated[bool, typer.Option("--now", help="End running requests with an error instead of waiting.")]
SuspendOption = Annotated[
    bool, typer.Option("--suspend", help="Pause running requests until the model is loaded again.")
]


def unload(
    models: ModelsArgument = None,
    model: ModelsOption = None,
    now: NowOption = False,
    suspend: SuspendOption = False,
    node: NodeOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Free the memory of models of a running server, after their running requests. A request loads them again."""
    if now and suspend:
        raise UsageError("--now and --suspend exclude each other: running requests end, or they are paused.")
    mode = "force" if now else "suspend" if suspend else "drain"
    unload_models(given_models(models, model, command="unload"), mode, url, key_file, node=node, as_json=as_json)


def park(
    models: ModelsArgument = None,
    model: ModelsOption = None,
    node: NodeOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Free models but for their weights, after their running requests: the next load takes a fraction of the time."""
    unload_models(given_models(models, model, command="park"), "park", url, key_file, node=node, as_json=as_json)


def unload_models(
    names: Sequence[str],
    mode: str,
    url: str | None,
    key_file: Path | None,
    *,
    as_json: bool,
    node: str | None = None,
) -> None:
    """Unload models, with ``mode`` and ``node`` as in ``POST /v1/models/unload``; see ``change_models``."""
    body = {"mode": mode} if node is None else {"mode": mode, "node": node}
    change = Change("/v1/models/unload", _outcome, "It is unloaded as soon as its requests end.", body)
    change_models(change, names, url, key_file, as_json=as_json)


def _outcome(model: Mapping[str, Any]) -> str:
    if model["state"] == "parked":
        return f"{model['id']} is parked: its weights keep {memory(model.get('resident_bytes')) or 'no memory'}."
    if model["state"] == "unloaded":
        return f"{model['id']} is unloaded."
    # A request has arrived meanwhile, or the model is pinned.
    return f"{model['id']} was unloaded, and is {model['state']} again."

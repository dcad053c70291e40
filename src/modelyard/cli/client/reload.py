"""``modelyard reload``: a server reads its configuration again, or loads a model anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.client.changes import Change, applied, change_models_of
from modelyard.cli.client.choose import choose_server, choose_server_of
from modelyard.cli.client.completion import complete_model
from modelyard.cli.client.load import outcome_of_load
from modelyard.cli.client.options import JsonOption, KeyFileOption, ModelsOption, UrlOption, optional_models
from modelyard.cli.client.output import print_json
from modelyard.cli.client.waiting import post_for_each, raise_first
from modelyard.cli.exit_codes import INTERRUPTED
from modelyard.cli.messages import print_note, print_result
from modelyard.cli.usage import UsageError
from modelyard.errors import ModelyardError


def reload(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Models to load anew, in place of the configuration.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    model: ModelsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the configuration file of a running server again and apply it, or load models anew.

    Models that did not change keep running.
    """
    named = optional_models(models, model)
    if named and dry_run:
        raise UsageError(
            f"--dry-run is for the configuration: leave {named[0]} out. modelyard plan {named[0]} shows its load."
        )
    if named:
        _reload_models(named, url, key_file, as_json=as_json)
        return
    server = choose_server(url, key_file)
    path = "/v1/config/reload?dry_run=true" if dry_run else "/v1/config/reload"
    try:
        outcome = post_for_each(server.address, path, {"the configuration": {}})["the configuration"]
    except KeyboardInterrupt:
        print_note("The server goes on with it: modelyard logs shows how it ends.")
        raise typer.Exit(INTERRUPTED) from None
    if isinstance(outcome, ModelyardError):
        raise outcome
    if as_json:
        print_json(outcome)
    else:
        print_result("\n".join(changes(outcome)))


def _reload_models(names: list[str], url: str | None, key_file: Path | None, *, as_json: bool) -> None:
    server = choose_server_of(names, url, key_file)
    ids = server.model_ids(names)
    freeing = Change("/v1/models/unload", str, "It is unloaded as soon as its requests end, and not loaded again.")
    raise_first(applied(freeing, server, ids))
    loading = Change("/v1/models/reload", outcome_of_load, "The load goes on without this command.")
    change_models_of(server, loading, ids, as_json=as_json)


def changes(result: Mapping[str, Any]) -> list[str]:
    """Return the lines that say what a new configuration has changed, or would change."""
    is_done = result["applied"]
    lines = [f"{model}: {'added' if is_done else 'would be added'}" for model in result["added"]]
    lines += [f"{model}: {'removed' if is_done else 'would be removed'}" for model in result["removed"]]
    for model, change in result["changed"].items():
        keys = ", ".join(change["keys"])
        if change["error"] is not None:
            lines.append(f"{model}: keeps its settings, as the new {keys} cannot be used: {change['error']}")
        else:
            lines.append(f"{model}: {'changed' if is_done else 'would change'} {keys}; {change['how']}")
    lines += [f"{model}: {'changed' if is_done else 'would change'} at once" for model in result["retuned"]]
    lines += [f"[memory]: {'changed' if is_done else 'would change'} {key}" for key in result["memory"]]
    lines += [f"[mcp]: {'changed' if is_done else 'would change'} {key}" for key in result.get("mcp", ())]
    lines += [f"{key}: changes when the server is started again" for key in result["needs_restart"]]
    return lines or ["Nothing has changed."]

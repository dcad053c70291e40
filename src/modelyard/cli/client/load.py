"""``modelyard load``: loads models of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.cli.client.changes import Change, change_models
from modelyard.cli.client.model_words import on_place
from modelyard.cli.client.options import (
    JsonOption,
    KeyFileOption,
    ModelsArgument,
    ModelsOption,
    NodeOption,
    UrlOption,
    given_models,
)
from modelyard.cli.client.output import duration, memory


def load(
    models: ModelsArgument = None,
    model: ModelsOption = None,
    node: NodeOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load models of a running server, side by side, and wait until they are loaded."""
    body = {} if node is None else {"node": node}
    change = Change("/v1/models/reload", outcome_of_load, "The load goes on without this command.", body)
    change_models(change, given_models(models, model, command="load"), url, key_file, as_json=as_json)


def outcome_of_load(model: Mapping[str, Any]) -> str:
    """Return what has become of a model that was loaded."""
    size = memory(model.get("resident_bytes"))
    took = duration(model.get("load_seconds"))
    facts = [f"{size} of memory"] if size else []
    facts += [f"loaded in {took}"] if took else []
    shown = f" ({', '.join(facts)})" if facts else ""
    return f"{model['id']} is {model['state']}{on_place(model.get('placement'))}{shown}."

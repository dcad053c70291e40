"""Completes the names of models of a running server in a shell, for commands that take such names.

A shell waits for the answer while its user types: a server that is slow, refuses or does not run completes nothing, and
nothing is printed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import typer

from modelyard.cli.client.find import asked, candidates
from modelyard.cli.model_names import is_config
from modelyard.errors import ModelyardError

COMPLETION_S: Final = 0.3
"""Seconds within which all servers together answer."""

# The help of a completion is one line beside the name.
_STATES: Final = {"loaded": "loaded", "parked": "parked", "loading": "being loaded"}


def complete_model(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the ids and aliases, each with its state, that begin with ``incomplete`` and are not given yet."""
    given = _given(ctx.params)
    return [
        (name, state) for name, state in _names(ctx.params).items() if name.startswith(incomplete) and name not in given
    ]


def complete_first_model(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete the model of ``run MODEL QUESTION`` and of ``run TOML MODEL QUESTION``, and no word of the question."""
    return complete_model(ctx, incomplete) if all(map(is_config, _given(ctx.params))) else []


def _given(params: Mapping[str, Any]) -> set[str]:
    """Return the texts that were given before: models, and values of other options, which are no models' names."""
    texts: set[str] = set()
    for name in ("words", "names", "name", "models", "model", "model_option"):
        value = params.get(name)
        texts.update([value] if isinstance(value, str) else value or ())
    return texts


def _names(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of all models of the servers that the command may mean, with their states."""
    try:
        servers = candidates(params.get("url"), os.environ, params.get("key_file"))
        answers = asked(servers, within_s=COMPLETION_S)
    except ModelyardError:
        return {}
    models: list[Mapping[str, Any]] = []
    for _, answer in answers:
        if not isinstance(answer, ModelyardError):
            models += answer["models"]
    return {name: _STATES.get(model["state"], "") for model in models for name in _names_of(model)}


def _names_of(model: Mapping[str, Any]) -> Sequence[str]:
    """Return the id of a model and its aliases, without the path of its file, which the shell completes."""
    return [model["id"], *(alias for alias in model.get("aliases", ()) if alias != model.get("source"))]

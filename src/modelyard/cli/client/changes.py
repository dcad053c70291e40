"""Commands that change models of a server: they send one request for each, and say what has become of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from modelyard.cli.client.choose import ChosenServer, choose_server_of
from modelyard.cli.client.nodes import on_node
from modelyard.cli.client.output import print_json
from modelyard.cli.client.server_state import server_state
from modelyard.cli.client.waiting import Outcome, error_object, post_for_each, raise_first
from modelyard.cli.exit_codes import INTERRUPTED
from modelyard.cli.messages import print_note, print_result
from modelyard.errors import ModelyardError


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a model.

    Attributes:
        path: the endpoint that makes it.
        outcome: returns what has become of a model of ``GET /v1/server``, as a sentence.
        goes_on: what the server does when the user does not wait any longer, as a sentence.
        body: fields of the request beside the model.
    """

    path: str
    outcome: Callable[[Mapping[str, Any]], str]
    goes_on: str
    body: Mapping[str, Any] = field(default_factory=dict)


def change_models(
    change: Change, names: Sequence[str], url: str | None, key_file: Path | None, *, as_json: bool
) -> None:
    """Change models of the server that has them, wait until that is done, and print what has become of them.

    Raises:
        ModelyardError: as ``choose_server_of``; or one of the models was not changed, others may be.
    """
    server = choose_server_of(names, url, key_file)
    change_models_of(server, change, server.model_ids(names), as_json=as_json)


def change_models_of(server: ChosenServer, change: Change, ids: Sequence[str], *, as_json: bool) -> None:
    """Change models of ``server``, by id, wait until that is done, and print what has become of them.

    Raises:
        ModelyardError: one of the models was not changed, others may be.
    """
    outcomes = applied(change, server, ids)
    after = {model["id"]: model for model in server_state(server.address)["models"]}
    if as_json:
        print_json({"models": [_object(model, after.get(model), outcomes[model]) for model in ids]})
    else:
        for model in ids:
            if not isinstance(outcomes[model], ModelyardError) and model in after:
                print_result(change.outcome(on_node(after[model], change.body.get("node"))))
    raise_first(outcomes)


def applied(change: Change, server: ChosenServer, ids: Sequence[str]) -> dict[str, Outcome]:
    """Change models, by id, and return what each request was answered with. Ctrl-C ends the command, not the change."""
    try:
        return post_for_each(server.address, change.path, {model: {"model_id": model, **change.body} for model in ids})
    except KeyboardInterrupt:
        print_note(change.goes_on)
        raise typer.Exit(INTERRUPTED) from None


def _object(model: str, after: Mapping[str, Any] | None, outcome: Outcome) -> dict[str, Any]:
    found = dict(after or {"id": model})
    return {**found, "error": error_object(outcome)} if isinstance(outcome, ModelyardError) else found

"""Chooses the server that a command is sent to, and the models there that it names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.cli.client.connection import ServerAddress
from modelyard.cli.client.find import asked, candidates, model_in
from modelyard.cli.client.server_state import server_state
from modelyard.cli.messages import print_note
from modelyard.errors import AmbiguousServer, ModelNotFound, ModelyardError


@dataclass(frozen=True, slots=True)
class ChosenServer:
    """A server that answers.

    Attributes:
        address: where it is.
        state: what it tells of itself: the answer of ``GET /v1/server``.
    """

    address: ServerAddress
    state: dict[str, Any]

    @property
    def models(self) -> list[dict[str, Any]]:
        """Its models."""
        models: list[dict[str, Any]] = self.state["models"]
        return models

    def model_id(self, name: str) -> str:
        """Return the id of the model that ``name`` means.

        Raises:
            ModelNotFound: it has no such model.
        """
        found = model_in(self.models, name)
        if found is None:
            raise ModelNotFound(name, tuple(model["id"] for model in self.models))
        return found

    def model_ids(self, names: Sequence[str]) -> list[str]:
        """Return the ids of the models that ``names`` mean, each once.

        Raises:
            ModelNotFound: it does not have one of them.
        """
        return list(dict.fromkeys(map(self.model_id, names)))


def choose_server(url: str | None, key_file: Path | None, *, only_looks: bool = False) -> ChosenServer:
    """Return the server that a command means.

    Args:
        url, key_file: of the command's options.
        only_looks: whether the command changes nothing: of several servers it then takes the newest, and says so.

    Raises:
        ServerUnreachable, NotModelyard, ServerRefused: it cannot be used.
        AmbiguousServer: several run on this machine.
        InvalidOption: an address or a key is invalid.
    """
    servers = _answering(candidates(url, os.environ, key_file))
    if len(servers) > 1:
        others = ", ".join(server.address.url for server in servers[1:])
        if not only_looks:
            raise AmbiguousServer(_several(servers))
        print_note(f"This is {servers[0].address.url}. Other servers run, too: {others}.")
    return servers[0]


def choose_server_of(models: Sequence[str], url: str | None, key_file: Path | None) -> ChosenServer:
    """Return the server that has all of ``models``.

    Raises:
        ModelNotFound: the server does not have one of them, or none of several servers has them all.
        ServerUnreachable, NotModelyard, ServerRefused, AmbiguousServer, InvalidOption: as ``choose_server``.
    """
    servers = _answering(candidates(url, os.environ, key_file))
    having = [server for server in servers if all(model_in(server.models, name) for name in models)]
    if len(having) > 1:
        raise AmbiguousServer(_several(having))
    if having:
        return having[0]
    known = tuple(dict.fromkeys(model["id"] for server in servers for model in server.models))
    missing = next((name for name in models if not any(model_in(server.models, name) for server in servers)), models[0])
    raise ModelNotFound(missing, known)


def _answering(servers: Sequence[ServerAddress]) -> list[ChosenServer]:
    """Return the servers that answer.

    Raises:
        ModelyardError: none does; the error is that of the first.
    """
    if len(servers) == 1:
        return [ChosenServer(servers[0], server_state(servers[0]))]
    answers = asked(servers)
    answering = [ChosenServer(server, answer) for server, answer in answers if not isinstance(answer, ModelyardError)]
    if not answering:
        raise next(answer for _, answer in answers if isinstance(answer, ModelyardError))
    return answering


def _several(servers: Sequence[ChosenServer]) -> str:
    listed = "".join(f"\n  --url {server.address.url}" for server in servers)
    return f"{len(servers)} servers run on this machine. Say which one is meant:{listed}"

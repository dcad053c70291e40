"""The models that other servers have: their settings, and their engines while these serve."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from modelyard.config import Model
from modelyard.errors import ConfigProblem, NodeNotFound
from modelyard.protocol.events import Publish
from modelyard.protocol.prompts import Sampling
from modelyard.remote.engine import AddressStatus, RemoteEngine, remote_engine
from modelyard.remote.settings import RemoteSettings
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.runtime.model_spec import ModelSpec
from modelyard.yard.runtime.nodes import Nodes

NO_MEMORY: Final = Footprint("", 0, 0)
"""What a model takes of this machine that another server has."""


class RemoteModels:
    """The engines of models that other servers have, by their names in the residency.

    Args:
        environment: has the API keys; None: that of the process.

    Attributes:
        nodes: the nodes of a cluster, which have models beside other servers; None: there is no cluster.
    """

    nodes: Nodes | None = None

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._engines: dict[str, RemoteEngine] = {}

    async def make(self, name: str, spec: ModelSpec, publish: Publish) -> RemoteEngine:
        """Return an engine of the model, not yet started."""
        engine = self._engines[name] = await remote_engine(self.settings(spec.model), publish)
        return engine

    def nodes_of(self, model: Model, node: str | None = None) -> Nodes | None:
        """Return the nodes that have a model; None where other servers or this machine have it.

        Raises:
            NodeNotFound: a node is named, and the model is on none.
        """
        del model
        if node is not None:
            raise NodeNotFound(node)
        return None

    def settings(self, model: Model) -> RemoteSettings:
        """Return which servers have a model, and how they are asked."""
        return RemoteSettings(
            name=model.id,
            addresses=model.remote,
            model=model.remote_model or model.model_id,
            api_key=self._environment.get(model.api_key_env or "", "").strip(),
            timeout_s=model.remote_timeout_seconds,
            sampling=Sampling(**model.sampling.model_dump()),
        )

    def problems(self, models: Iterable[Model]) -> list[ConfigProblem]:
        """Return a problem for each of ``models`` whose API key is not in the environment, or cannot be one."""
        problems = []
        for model in models:
            if model.api_key_env is None:
                continue
            key = self._environment.get(model.api_key_env, "").strip()
            variable = f"model '{model.id}': the environment variable {model.api_key_env} (api_key_env)"
            if not key:
                problems.append(ConfigProblem(f"{variable} is not set.", "Set it for the server, or remove the key."))
            elif not (key.isascii() and key.isprintable()):
                # Not repeated: it is a secret all the same.
                problems.append(ConfigProblem(f"{variable} is no API key: a header cannot hold it."))
        return problems

    def status(self, name: str) -> tuple[AddressStatus, ...]:
        """Return what is known of the addresses of a model; () before it has an engine."""
        engine = self._engines.get(name)
        return () if engine is None else engine.status()

    def unreachable(self, name: str) -> str:
        """Return why no server of a model answers; "" where one does, and for models of this machine."""
        addresses = self.status(name)
        if not addresses or any(address.is_up for address in addresses):
            return ""
        return "no server answers: " + "; ".join(dict.fromkeys(address.problem for address in addresses))

    def discard(self, name: str) -> None:
        """Drop what is known of a model."""
        self._engines.pop(name, None)

"""What a yard asks of the nodes that have its models, where it is the front of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from modelyard.config import Adapter
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.stats.node_metrics import NodeScrape
from modelyard.yard.stats.nodes import ModelOnNode, NodeStatus
from modelyard.yard.stats.status import Plan


class Nodes(Protocol):
    """The nodes of a cluster. ``model`` is always the id of a model that they have.

    Where a node is named that is not connected, every method raises ``NodeNotFound``.
    """

    def status(self) -> list[NodeStatus]:
        """Return the connected nodes, as they last reported."""

    def of_model(self, model: str, node: str | None = None) -> Mapping[str, ModelOnNode]:
        """Return the nodes that have a model or had it, by name; with ``node`` that one alone."""

    def facts(self, model: str) -> Mapping[str, Any]:
        """Return the fields ``MODEL_FACTS`` of a model, as a node that has loaded it shows them; {} before."""

    async def unload(self, model: str, mode: UnloadMode, node: str | None) -> None:
        """Free a model on ``node``; None: on every node.

        Raises:
            ModelyardError: as the yard of a node raises it.
        """

    async def reload(self, model: str, node: str | None) -> None:
        """Load a model on ``node``; None: where it costs least, unless a node has it.

        Raises:
            ModelyardError: as the yard of a node raises it, once no other node is left.
        """

    async def prepare(self, model: str, node: str | None) -> None:
        """Download and convert the files of a model on ``node``; None: where ``reload`` would load it.

        Raises:
            ModelyardError: as the yard of a node raises it, once no other node is left.
        """

    async def plan(self, model: str, node: str | None) -> Plan:
        """Return what a load of a model would do on ``node``; None: on the node where ``reload`` would load it.

        Raises:
            ModelyardError: as the yard of the node raises it.
        """

    async def metrics(self) -> NodeScrape:
        """Return the metrics of all nodes that answer within seconds."""

    async def set_adapters(self, model: str, before: Sequence[Adapter], adapters: Sequence[Adapter]) -> None:
        """Have all nodes serve a model with ``adapters`` in place of those of ``before``; also those that join later.

        Raises:
            ModelyardError: a node cannot; all have the adapters of before again.
        """

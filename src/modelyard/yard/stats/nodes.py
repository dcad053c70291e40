"""The nodes of a cluster as they are shown: their memory, and what each of their models does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelyard.yard.residency.state import LoadState

NodeState = Literal["up", "draining", "silent"]
"""Whether a node takes requests, is about to leave, or has reported nothing for longer than it should."""


@dataclass(frozen=True, slots=True)
class ModelOnNode:
    """A model on one node.

    Attributes:
        load_state: ``LOADED``, ``LOADING``, ``UNLOADED``, or ``FAILED`` where it cannot be loaded at present.
        running: requests in its engine.
        waiting: requests in its queue.
        size_bytes: memory that it takes while it is loaded; 0: its files were not read there.
        failure: why it cannot be loaded; "" where it can.
    """

    load_state: LoadState
    running: int = 0
    waiting: int = 0
    size_bytes: int = 0
    failure: str = ""

    @property
    def is_resident(self) -> bool:
        """Whether it is loaded, or a load of it has begun."""
        return self.load_state in (LoadState.LOADED, LoadState.LOADING)

    @property
    def resident_bytes(self) -> int:
        """Memory that it takes now."""
        return self.size_bytes if self.is_resident else 0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node.

    Attributes:
        name: its name.
        state: whether it takes requests.
        budget_bytes, used_bytes: memory that its models may take together, and that they take.
        models: by id: those that are loaded, load, failed, or were loaded before.
    """

    name: str
    state: NodeState
    budget_bytes: int
    used_bytes: int
    models: Mapping[str, ModelOnNode] = field(default_factory=dict)


def state_on_nodes(models: Mapping[str, ModelOnNode]) -> LoadState:
    """Return the state of a model by its state on each node: the one that is closest to serving."""
    states = {model.load_state for model in models.values()}
    order = (LoadState.LOADED, LoadState.LOADING, LoadState.FAILED)
    return next((state for state in order if state in states), LoadState.UNLOADED)

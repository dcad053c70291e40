"""The models of nodes, as engines of a front's yard: they take the messages of engines, and publish their events.

A front's yard has no memory to manage: each model of the configuration is to it what a model on another server is, so
that everything above engines is the same on one machine and on many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from modelyard.cluster.front_nodes import FrontNodes
from modelyard.cluster.front_operations import NodeOperations
from modelyard.config import Config, Model
from modelyard.errors import ConfigProblem, EngineError
from modelyard.protocol.events import Cancelled, Ending, Event, Failed, Loaded, Publish, Returned, Stopped, Token
from modelyard.protocol.messages import Message, Resume
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Sampling
from modelyard.protocol.requests import Cancel, Embed, Rank, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.remote.engine import RemoteEngine
from modelyard.yard.runtime.model_spec import ModelSpec
from modelyard.yard.runtime.nodes import Nodes
from modelyard.yard.runtime.remote_models import RemoteModels

IN_CLUSTER: Final = "cluster:"
"""Stands for the addresses of models that nodes have. It is no address that a configuration can have."""

MAX_REQUESTS: Final = 1_000_000
"""Requests for one model that a front passes on: nodes bound them."""


def front_config(config: Config) -> Config:
    """Return the configuration of a front: models of this machine are those of nodes."""
    models = tuple(model if model.is_remote else _of_nodes(model) for model in config.models)
    runtime = config.runtime.model_copy(update={"max_seqs": MAX_REQUESTS})
    return config.model_copy(update={"models": models, "runtime": runtime})


def _of_nodes(model: Model) -> Model:
    device = model.device.model_copy(update={"max_batch_size": None})
    return model.model_copy(update={"remote": (IN_CLUSTER,), "load": "startup", "device": device})


def node_config(config: Config) -> Config:
    """Return the configuration of a node.

    What fronts do, tools and models of other servers, is not done there, and the planner decides what it loads.
    """
    local = [model for model in config.models if not model.is_remote]
    models = tuple(model.model_copy(update={"load": "on-demand"}) for model in local)
    mcp = config.mcp.model_copy(update={"servers": ()})
    return config.model_copy(update={"models": models, "mcp": mcp, "default_model_id": None})


def startup_models(config: Config) -> tuple[str, ...]:
    """Return the ids of the models that nodes load without being asked for them."""
    return tuple(model.id for model in config.models if not model.is_remote and model.load == "startup")


class ClusterModels(RemoteModels):
    """The models of nodes, beside those of other servers.

    Args:
        nodes: have the models.

    Attributes:
        nodes: does what the yard asks the nodes for.
    """

    nodes: NodeOperations

    def __init__(self, nodes: FrontNodes) -> None:
        super().__init__()
        self._nodes, self.nodes = nodes, NodeOperations(nodes)

    async def make(self, name: str, spec: ModelSpec, publish: Publish) -> ClusterEngine | RemoteEngine:  # type: ignore[override]
        """Return an engine of the model, not yet started."""
        if spec.model.remote == (IN_CLUSTER,):
            return ClusterEngine(self._nodes, spec.model.id, publish)
        return await super().make(name, spec, publish)

    def nodes_of(self, model: Model, node: str | None = None) -> Nodes | None:
        """Return the nodes, for a model that they have."""
        return self.nodes if model.remote == (IN_CLUSTER,) else super().nodes_of(model, node)

    def problems(self, models: Iterable[Model]) -> list[ConfigProblem]:
        """Return the problems of models of other servers."""
        return super().problems(model for model in models if model.remote != (IN_CLUSTER,))

    def unreachable(self, name: str) -> str:
        """Return why no node answers for a model; "" where one does."""
        if super().status(name):
            return super().unreachable(name)
        return self._nodes.why_none


class ClusterEngine:
    """One model of the nodes; see ``yard.runtime.interfaces.EngineHandle``."""

    def __init__(self, nodes: FrontNodes, model: str, publish: Publish) -> None:
        self._nodes, self._model, self._publish = nodes, model, publish
        self._open: set[SequenceId] = set()
        self._is_stopping = self._has_ended = False

    def start(self) -> None:
        """Serve at once: nodes load the model when they are asked for it."""
        self._publish([Loaded(ModelProfile(None, "", 0, "cluster", can_chat=True, sampling=Sampling()))])

    def send(self, message: Message) -> None:
        """Take a message. What concerns memory and devices has no effect."""
        match message:
            case Submit() | Embed() | Rank() | Tokenize():
                self._open.add(message.sequence)
                self._nodes.begin(self._model, message, self._receive)
            case Resume():
                # Never sent: sequences of this engine are not suspended.
                self._publish([Failed(message.sequence, EngineError(self._model, "it suspends no answers"))])
            case Cancel(sequence):
                self._nodes.cancel(sequence)
            case Stop(suspend):
                self._stop(suspend=suspend)

    def join(self, timeout_s: float) -> bool:
        """Return whether it has ended; it does so with its last event, without a thread to wait for."""
        del timeout_s
        return self._has_ended

    def _receive(self, events: Sequence[Event]) -> None:
        """Publish what nodes send. Hot path: called once a step."""
        for event in events:
            if not isinstance(event, Token) and isinstance(event, Ending):
                self._open.discard(event.sequence)
        self._publish(events)
        self._end_if_idle()

    def _stop(self, *, suspend: bool) -> None:
        self._is_stopping = True
        for sequence in list(self._open):
            # Answers that have begun go on to their end: the engine that follows does not know of them.
            if not suspend or not self._nodes.is_accepted(sequence):
                self._open.discard(sequence)
                self._nodes.take_back(sequence)
                self._publish([Returned(sequence) if suspend else Cancelled(sequence)])
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._is_stopping and not self._open and not self._has_ended:
            self._has_ended = True
            self._publish([Stopped()])

"""The status of a model that the nodes of a cluster have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from modelyard.yard.residency.state import LoadState
from modelyard.yard.stats.nodes import ModelOnNode, state_on_nodes
from modelyard.yard.stats.status import STATUS, ModelStatus

MODEL_FACTS: Final = (
    *("kind", "architecture", "quantization", "size_bytes", "parameter_count", "license", "dimensions", "warnings"),
    *("context_length", "context_reason", "chat_template", "can_chat", "can_see", "can_hear", "can_reason", "can_fill"),
)
"""Fields of ``ModelStatus`` about what a model is, wherever it is loaded."""


def status_on_nodes(status: ModelStatus, nodes: Mapping[str, ModelOnNode], facts: Mapping[str, Any]) -> ModelStatus:
    """Return the status of a model as it is on ``nodes``, in place of one of this machine.

    Args:
        status: as the front has it.
        nodes: those that have it or had it, by their names.
        facts: fields in ``MODEL_FACTS``, as one of them shows them; {}: none has loaded it yet.
    """
    load_state = state_on_nodes(nodes)
    failures = [node.failure for node in nodes.values() if node.failure]
    return replace(
        status,
        **facts,
        nodes=nodes,
        is_remote=False,
        load_state=load_state,
        status=STATUS[load_state],
        reason=failures[0] if load_state is LoadState.FAILED and failures else None,
        resident_bytes=sum(node.resident_bytes for node in nodes.values()),
        predicted_bytes=max((node.size_bytes for node in nodes.values()), default=0) or None,
        load_s=None,
    )

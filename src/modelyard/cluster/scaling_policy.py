"""The policy by which Ray Serve adds and removes nodes.

Serve imports the policy by its name, in processes of its own, and makes it with keyword arguments: so it is a class.
"""

from __future__ import annotations

from typing import Any

from modelyard.cluster.scaling import nodes_wanted


class NodePolicy:
    """Says how many nodes there should be.

    Args:
        target_queue: requests that may wait on a node.
    """

    def __init__(self, target_queue: float) -> None:
        self._target_queue = target_queue

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return how many nodes there should be, and no state.

        Args:
            context: Serve's ``AutoscalingContext``, with what nodes record.
        """
        metrics = context.aggregated_metrics or {}
        sums = {name: sum((metrics.get(name) or {}).values()) for name in ("waiting", "running")}
        present = max(1, context.current_num_replicas)
        return nodes_wanted(present, sums["waiting"], sums["running"], self._target_queue), {}

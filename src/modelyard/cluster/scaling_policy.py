"""The decision how many nodes there are, as Ray Serve asks for it."""

from __future__ import annotations

from typing import Any

from modelyard.cluster.scaling import nodes_wanted, sum_of


class NodePolicy:
    """Serve's policy of autoscaling: called again and again, with what nodes have to do.

    Serve imports it by its name, copies it to its controller, and makes it of keyword arguments that are JSON.

    Args:
        target_queue, target_first_token: as in ``[cluster]``.
    """

    def __init__(self, target_queue: float, target_first_token: float | None = None) -> None:
        self._target_queue, self._target_first_token = target_queue, target_first_token

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return how many nodes there should be, and nothing to be kept. Serve sees to the bounds and the delays.

        Args:
            context: Serve's ``AutoscalingContext``.
        """
        metrics = context.aggregated_metrics or {}
        load = sum_of({name: of_nodes.values() for name, of_nodes in metrics.items()})
        present = context.current_num_replicas
        return nodes_wanted(present, load, self._target_queue, self._target_first_token), {}

"""The rules about ``[cluster]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.config.wording import did_you_mean, shown
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard.config.cluster import Cluster
    from modelyard.config.model import Model


def node_counts(cluster: Cluster) -> list[ConfigProblem]:
    """Require that counts of nodes agree: of all, and of those that one model is on."""
    problems = []
    if cluster.min_nodes > cluster.max_nodes:
        problems.append(
            ConfigProblem(
                f"min_nodes {cluster.min_nodes} is more than max_nodes {cluster.max_nodes}.",
                table="cluster",
                location=("cluster", "min_nodes"),
                related=(("cluster", "max_nodes"),),
            )
        )
    problems += [
        ConfigProblem(
            f"replicas of {shown(model)} is {count}, but there are at most {cluster.max_nodes} nodes (max_nodes).",
            table="cluster",
            location=("cluster", "replicas", model),
            related=(("cluster", "max_nodes"),),
        )
        for model, count in cluster.fixed_replicas.items()
        if count > cluster.max_nodes
    ]
    return problems


def models_of_nodes(cluster: Cluster, models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that models which are put on nodes exist, and are not those of another server."""
    local = [model.id for model in models.values() if not model.is_remote]
    named = [("replicas", model) for model, _ in cluster.replicas] + [("labels", model) for model, _ in cluster.labels]
    return [
        ConfigProblem(
            f"{key} names {shown(model)}, which is not the id of a model of this file that nodes can load.",
            did_you_mean(model, local) or f"Known: {', '.join(local)}.",
            table="cluster",
            location=("cluster", key, model),
        )
        for key, model in named
        if model not in local
    ]

"""Spreads models over nodes by demand and size. Pure.

A plan says on which nodes each model is wanted, its homes. Models that are asked for get memory there, in the order of
their demand for each byte; the others have one home, where they are loaded on request. A plan changes the one before as
little as it can, and at most by as many loads as it is allowed: models stay where they are unless their demand, the
nodes or the rules changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

SHRINK: Final = 0.6
"""A replica is given up where the demand is below this part of what the others can take, so that none swings."""

UNEVEN: Final = 0.25
"""Part of the mean load by which a node may exceed it before a replica moves away."""


HELPS: Final = 0.9
"""Part of the load of a node that another one may have at most once it has taken a replica from it."""


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node.

    Attributes:
        name: its name.
        budget_bytes: memory that its models may take together.
        labels: by which models may ask for it.
    """

    name: str
    budget_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model.

    Attributes:
        name: its id.
        size_bytes: memory that it takes.
        demand: requests that are with it at the same time, on average.
        replicas: nodes that have it; None: as many as the demand needs.
        labels: labels that its nodes must have.
    """

    name: str
    size_bytes: int
    demand: float = 0.0
    replicas: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanRules:
    """How models are put on nodes.

    Attributes:
        requests_per_replica: requests that one replica computes at the same time before another is wanted.
        placement: "spread" to the node with the least load, or "pack" to the fullest one that has room, so that nodes
            become idle and can leave.
    """

    requests_per_replica: float = 16.0
    placement: Literal["spread", "pack"] = "spread"


Homes = Mapping[str, tuple[str, ...]]
"""The nodes where each model is wanted, by its id."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Where models are wanted.

    Attributes:
        homes: by model.
        loads: pairs of model and node that are wanted now and were not before; a load each.
        releases: pairs that were wanted before.
        unplaced: models that are asked for and have memory nowhere; their homes load them in turn with others.
    """

    homes: Homes
    loads: tuple[tuple[str, str], ...]
    releases: tuple[tuple[str, str], ...]
    unplaced: tuple[str, ...]


def plan_cluster(
    nodes: Sequence[PlannedNode],
    models: Sequence[PlannedModel],
    present: Homes,
    rules: PlanRules,
    max_loads: int,
) -> ClusterPlan:
    """Return where models are wanted.

    Args:
        nodes, models: all there are.
        present: the homes of the plan before; those on nodes that are gone are dropped.
        rules: how models are put on nodes.
        max_loads: loads that the plan may ask for. Models whose nodes are gone, and those with no home, come first.
    """
    draft = _Draft(nodes, rules, max_loads)
    # Those with the most demand for their bytes first: what is left without memory serves the fewest requests.
    ordered = sorted(models, key=lambda model: (-model.demand / max(1, model.size_bytes), model.name))
    asked = [model for model in ordered if model.demand > 0 or model.replicas is not None]
    kept = {model.name: draft.keep(model, present.get(model.name, ())) for model in asked}
    unplaced = [model.name for model in asked if not kept[model.name] and not draft.add(model, kept[model.name])]
    for model in asked:
        wanted = draft.wanted(model, len(kept[model.name]))
        while 0 < len(kept[model.name]) < wanted and draft.add(model, kept[model.name]):
            pass
    draft.level({model.name: model for model in asked}, kept)
    homes = {name: tuple(where) for name, where in kept.items() if where}
    for model in ordered:
        if model.name not in homes and (home := draft.home_without_memory(model, present.get(model.name, ()))):
            homes[model.name] = (home,)
    placed = {(model.name, node) for model in asked for node in kept[model.name]}
    before = {(model, node) for model, where in present.items() for node in where}
    after = {(model, node) for model, where in homes.items() for node in where}
    return ClusterPlan(homes, tuple(sorted(placed - before)), tuple(sorted(before - after)), tuple(unplaced))


class _Draft:
    """A plan that is being made: what nodes have left, and how many loads may still be asked for."""

    def __init__(self, nodes: Iterable[PlannedNode], rules: PlanRules, max_loads: int) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._free = {node.name: node.budget_bytes for node in self._nodes.values()}
        self._load = dict.fromkeys(self._nodes, 0.0)
        self._homeless = dict.fromkeys(self._nodes, 0)
        self._placed = dict.fromkeys(self._nodes, 0)
        self._rules, self._loads_left = rules, max_loads

    def wanted(self, model: PlannedModel, present: int) -> int:
        """Return on how many nodes a model is wanted that is on ``present`` ones."""
        if model.replicas is not None:
            return model.replicas
        each = self._rules.requests_per_replica
        needed = max(1, math.ceil(model.demand / each))
        if needed < present and model.demand > SHRINK * each * (present - 1):
            return present
        return needed

    def keep(self, model: PlannedModel, present: Sequence[str]) -> list[str]:
        """Return the nodes where a model stays: those with room for it, as many as are wanted."""
        usable = [name for name in present if name in self._nodes and self._suits(model, name)]
        wanted = self.wanted(model, len(usable))
        kept = [name for name in usable if self._free[name] >= model.size_bytes][:wanted]
        for name in kept:
            self._take(model, name, max(wanted, 1))
        return kept

    def add(self, model: PlannedModel, where: list[str]) -> bool:
        """Put a model on one more node; return whether that was possible."""
        if self._loads_left <= 0:
            return False
        found = self._find(model, where)
        if found is None:
            return False
        self._loads_left -= 1
        where.append(found)
        self._take(model, found, self.wanted(model, len(where)))
        return True

    def level(self, models: Mapping[str, PlannedModel], kept: Mapping[str, list[str]]) -> None:
        """Move replicas from nodes with clearly more load than the mean to those with less, where that is wanted."""
        if self._rules.placement == "pack" or len(self._nodes) < 2:
            return
        bound = (1 + UNEVEN) * sum(self._load.values()) / len(self._nodes)
        on_node: dict[str, list[str]] = {}
        for name, where in kept.items():
            for node in where:
                on_node.setdefault(node, []).append(name)
        for node in sorted(self._nodes, key=lambda name: -self._load[name]):
            for name in sorted(on_node.get(node, ()), key=lambda name: models[name].demand):
                if self._load[node] <= bound or self._loads_left <= 0:
                    break
                model, where = models[name], kept[name]
                share = model.demand / len(where)
                found = self._find(model, where)
                # Only where it helps: the other node has clearly less afterwards than this one has now.
                if found is None or self._load[found] + share > HELPS * self._load[node]:
                    continue
                self._loads_left -= 1
                where[where.index(node)] = found
                for each, sign in ((node, -1), (found, 1)):
                    self._load[each] += sign * share
                    self._free[each] -= sign * model.size_bytes

    def home_without_memory(self, model: PlannedModel, present: Sequence[str]) -> str:
        """Return where a model is loaded on request; "" where no node may have it."""
        suitable = [name for name in present if name in self._nodes and self._suits(model, name)]
        if not suitable:
            suitable = [
                node.name
                for node in self._nodes.values()
                if self._suits(model, node.name) and node.budget_bytes >= model.size_bytes
            ]
        if not suitable:
            return ""
        home = min(suitable, key=lambda name: (self._homeless[name], -self._free[name], name))
        self._homeless[home] += 1
        return home

    def _find(self, model: PlannedModel, besides: Sequence[str]) -> str | None:
        size = model.size_bytes
        fitting = [
            name
            for name, free in self._free.items()
            if free >= size and name not in besides and (not model.labels or self._suits(model, name))
        ]
        if not fitting:
            return None
        if self._rules.placement == "pack":
            return min(fitting, key=lambda name: (self._free[name], name))
        return min(fitting, key=lambda name: (self._load[name], self._placed[name], -self._free[name], name))

    def _suits(self, model: PlannedModel, name: str) -> bool:
        labels = self._nodes[name].labels
        return all(labels.get(key) == value for key, value in model.labels.items())

    def _take(self, model: PlannedModel, name: str, replicas: int) -> None:
        self._placed[name] += 1
        self._free[name] -= model.size_bytes
        self._load[name] += model.demand / max(1, replicas)

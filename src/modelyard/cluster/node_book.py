"""The nodes, and where the planner has put models: what the directory of a cluster keeps. Pure.

Nodes register again and again; one that has not for a while is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.cluster.node_report import NodeReport
from modelyard.cluster.planner import ClusterPlan, Homes, PlannedModel, PlannedNode, PlanRules, plan_cluster
from modelyard.config.cluster import Cluster

EXPIRES_S: Final = 5.0
"""Seconds without a registration after which a node is left out."""

PLAN_S: Final = 15.0
"""Seconds between two plans."""

FIRST_PLAN_S: Final = 4.0
"""Seconds from the first node to the first plan: nodes that start together are planned together."""

DEMAND_S: Final = 120.0
"""Seconds over which demand is averaged."""

FILLED: Final = 0.5
"""Part of a node's slots that the requests for one model may take on average before it is wanted on another node."""


@dataclass(slots=True)
class _Registered:
    address: tuple[str, int]
    labels: Mapping[str, str]
    report: NodeReport
    seen: float
    # Loads that it is to begin, and has not been told of.
    orders: list[str]


class NodeBook:
    """The registered nodes, and the last plan.

    Args:
        cluster: how models are spread.
        startup: ids of the models that are loaded without being asked for.

    Attributes:
        homes: the nodes where each model is wanted.
    """

    def __init__(self, cluster: Cluster, startup: Sequence[str] = ()) -> None:
        self.reconfigure(cluster, startup)
        self.homes: Homes = {}
        self._nodes: dict[str, _Registered] = {}
        self._demand: dict[str, float] = {}
        self._planned_at: float | None = None
        # Loads that may be asked for: an allowance that grows with time.
        self._allowance = float(cluster.loads_per_hour)

    def reconfigure(self, cluster: Cluster, startup: Sequence[str]) -> None:
        """Plan by another configuration from now on."""
        self.cluster = cluster
        # On how many nodes models are kept, whatever is asked for.
        self._replicas = {**dict.fromkeys(startup, 1), **cluster.fixed_replicas}

    def register(
        self, node: str, address: tuple[str, int], labels: Mapping[str, str], report: NodeReport, now: float
    ) -> list[str]:
        """Note a node, and return the models that it is to load."""
        known = self._nodes.get(node)
        if known is None:
            known = self._nodes[node] = _Registered(address, labels, report, now, [])
        elif known.address != address:
            # Another process under the same name, which has nothing of what the one before was to load.
            self.homes = {model: tuple(name for name in where if name != node) for model, where in self.homes.items()}
            known.orders.clear()
        known.address, known.labels, known.report, known.seen = address, labels, report, now
        self._plan_if_due(now)
        orders, known.orders = known.orders, []
        return orders

    def addresses(self, now: float) -> dict[str, tuple[str, int]]:
        """Return the addresses of the nodes that have registered lately."""
        return {name: node.address for name, node in self._nodes.items() if now - node.seen < EXPIRES_S}

    def _plan_if_due(self, now: float) -> None:
        if self._planned_at is None:
            self._planned_at = now - PLAN_S + FIRST_PLAN_S
        elapsed_s = now - self._planned_at
        if elapsed_s < PLAN_S:
            return
        self._planned_at = now
        self._nodes = {name: node for name, node in self._nodes.items() if now - node.seen < EXPIRES_S}
        per_hour = self.cluster.loads_per_hour
        self._allowance = min(float(per_hour), self._allowance + per_hour * elapsed_s / 3600)
        self._average(elapsed_s)
        plan = self._plan()
        self._allowance -= len(plan.loads)
        self.homes = plan.homes
        for model, node in plan.loads:
            held = self._nodes[node].report.models.get(model)
            if held is None or not held.is_resident:
                self._nodes[node].orders.append(model)

    def _average(self, elapsed_s: float) -> None:
        """Average what runs and waits for each model on all nodes."""
        present: dict[str, int] = {}
        for node in self._nodes.values():
            for name, model in node.report.models.items():
                present[name] = present.get(name, 0) + model.running + model.waiting
        part = min(1.0, elapsed_s / DEMAND_S)
        for name, count in present.items():
            before = self._demand.get(name, 0.0)
            # Below a hundredth of a request it has no influence any longer.
            demand = before + part * (count - before)
            self._demand[name] = demand if demand >= 0.01 else 0.0

    def _plan(self) -> ClusterPlan:
        cluster, nodes = self.cluster, list(self._nodes.items())
        sizes: dict[str, int] = {}
        for _, node in nodes:
            for name, model in node.report.models.items():
                sizes[name] = max(sizes.get(name, 0), model.size_bytes)
        # One that was not sized yet is loaded first where it is asked for; its size is known from then on.
        models = [
            PlannedModel(
                name,
                sizes.get(name, 0),
                self._demand.get(name, 0.0),
                self._replicas_of(name),
                cluster.labels_of(name),
            )
            for name in sorted({*sizes, *self._replicas})
        ]
        staying = [
            PlannedNode(name, node.report.budget_bytes, node.labels)
            for name, node in nodes
            if not node.report.is_draining
        ]
        slots = min((node.report.slots for _, node in nodes), default=1)
        rules = PlanRules(max(1.0, FILLED * slots), cluster.placement)
        return plan_cluster(staying, models, self.homes, rules, int(self._allowance))

    def _replicas_of(self, model: str) -> int | None:
        """Return on how many nodes a model is kept; None: as many as its demand needs."""
        is_fixed = self.cluster.replicas_of(model) is not None
        # One that is loaded at the start grows with its demand, as others do.
        return self._replicas.get(model) if is_fixed or not self._demand.get(model) else None

"""Plays a day: demand that rises and falls, models planned every few minutes, and requests drawn and routed.

A node holds models up to its budget and drops the one that was used longest ago. Only a sample of the requests is
drawn: what runs on a node otherwise follows from the demand.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.cluster.node_report import ModelReport, NodeReport
from modelyard.cluster.planner import Homes, PlannedModel, PlannedNode, PlanRules, plan_cluster
from modelyard.cluster.routing import RoutingTable

TICK_S = 600.0
SERVICE_S = 10.0
LOAD_S = 8.0


@dataclass(frozen=True)
class DaySettings:
    """How large the cluster is, and what happens in it. Sizes are in GiB."""

    nodes: int = 1000
    models: int = 5000
    budget: int = 60
    requests_per_s: float = 1500.0
    sampled: int = 400
    loads_per_hour: int = 600
    duration_s: float = 86_400.0
    lost_per_hour: float = 1.0


@dataclass
class DayResult:
    """What a policy made of the sampled requests.

    Attributes:
        requests: how many were drawn.
        hits: those that found their model loaded.
        prefixes: those that found the beginning of their conversation, too.
        decisions_s: how long each decision took.
        planned_loads: loads that plans asked for, a number for each plan.
        plans_s: how long each plan took.
    """

    requests: int = 0
    hits: int = 0
    prefixes: int = 0
    decisions_s: list[float] = field(default_factory=list)
    planned_loads: list[int] = field(default_factory=list)
    plans_s: list[float] = field(default_factory=list)


class _Nodes:
    """What the nodes hold: a dict of models in the order of their use, for each."""

    def __init__(self, names: Sequence[str], budget: int, sizes: Mapping[str, int]) -> None:
        self.held: dict[str, dict[str, None]] = {name: {} for name in names}
        self._budget, self._sizes = budget, sizes

    def use(self, node: str, model: str) -> bool:
        """Use a model on a node, loading it if it is not there; return whether it was."""
        held = self.held[node]
        was_there = model in held
        held.pop(model, None)
        while held and sum(self._sizes[each] for each in held) + self._sizes[model] > self._budget:
            del held[next(iter(held))]
        held[model] = None
        return was_there

    def used(self, node: str) -> int:
        """Return the memory that a node has taken."""
        return sum(self._sizes[each] for each in self.held[node])


def demand_at(rank: int, phase: float, now: float, settings: DaySettings, norm: float) -> float:
    """Return the requests of a model that run at the same time: few models have most, and each has its busy hours."""
    swing = 1 + 0.9 * math.sin(2 * math.pi * (now / 86_400.0 + phase))
    wanted = settings.requests_per_s * SERVICE_S * swing / (rank + 3) / norm
    # Below one request in four hours nobody counts on the model.
    return wanted if wanted * 14_400.0 / SERVICE_S >= 1 else 0.0


def play_day(seed: int, settings: DaySettings, *, routes: bool = True) -> DayResult:
    """Play a day; without ``routes`` by Ray Serve's default: of two nodes drawn at random the one with less to do."""
    rng = random.Random(seed)
    names = [f"node-{number}" for number in range(settings.nodes)]
    models = [f"model-{number}" for number in range(settings.models)]
    sizes = {model: min(settings.budget, max(1, round(rng.lognormvariate(2.3, 0.9)))) for model in models}
    phases = [rng.random() for _ in models]
    norm = sum(1 / (rank + 3) for rank in range(settings.models))
    nodes, table, result = _Nodes(names, settings.budget, sizes), RoutingTable(), DayResult()
    homes: Homes = {}
    alive, joined = list(names), len(names)
    for tick in range(round(settings.duration_s / TICK_S)):
        now = tick * TICK_S
        if tick and rng.random() < settings.lost_per_hour * TICK_S / 3600:
            gone = alive.pop(rng.randrange(len(alive)))
            table.remove(gone)
            del nodes.held[gone]
            alive.append(f"node-{joined}")
            nodes.held[alive[-1]] = {}
            joined += 1
        demands = [demand_at(rank, phases[rank], now, settings, norm) for rank in range(settings.models)]
        loads = dict.fromkeys(alive, 0.0)
        if routes:
            homes = _plan(settings, alive, models, sizes, demands, homes, nodes, result, is_first=tick == 0)
            table.set_homes(homes)
        _share(models, demands, homes, nodes, loads, result, routes=routes)
        for node in alive:
            table.update(_report(node, settings, nodes, loads[node]))
        pick = _router(table, rng, alive, loads, now, result) if routes else _of_two(rng, alive, loads)
        for model in rng.choices(models, demands, k=settings.sampled):
            result.requests += 1
            result.hits += nodes.use(pick(model), model)
    return result


def _plan(
    settings: DaySettings,
    alive: Sequence[str],
    models: Sequence[str],
    sizes: Mapping[str, int],
    demands: Sequence[float],
    homes: Homes,
    nodes: _Nodes,
    result: DayResult,
    *,
    is_first: bool,
) -> Homes:
    began = time.perf_counter()
    plan = plan_cluster(
        [PlannedNode(node, settings.budget) for node in alive],
        [PlannedModel(model, sizes[model], demand) for model, demand in zip(models, demands, strict=True)],
        homes,
        PlanRules(),
        10**6 if is_first else round(settings.loads_per_hour * TICK_S / 3600),
    )
    result.plans_s.append(time.perf_counter() - began)
    if not is_first:
        result.planned_loads.append(len(plan.loads))
    for model, node in plan.loads:
        nodes.use(node, model)
    return plan.homes


def _share(
    models: Sequence[str],
    demands: Sequence[float],
    homes: Homes,
    nodes: _Nodes,
    loads: dict[str, float],
    result: DayResult,
    *,
    routes: bool,
) -> None:
    """Put what runs without being drawn on the nodes: on the homes of its model, else evenly on all."""
    if not routes:
        each = sum(demands) / len(loads)
        for node in loads:
            loads[node] = each
        return
    for model, demand in zip(models, demands, strict=True):
        where = [node for node in homes.get(model, ()) if node in loads]
        for node in where:
            loads[node] += demand / len(where)
            if demand >= 1:
                nodes.use(node, model)


def _report(node: str, settings: DaySettings, nodes: _Nodes, load: float) -> NodeReport:
    held = nodes.held[node]
    running = round(load / len(held)) if held else 0
    reports = {model: ModelReport(0.0, running) for model in held}
    return NodeReport(node, 32, SERVICE_S, settings.budget, nodes.used(node), reports)


def _router(
    table: RoutingTable,
    rng: random.Random,
    alive: Sequence[str],
    loads: Mapping[str, float],
    now: float,
    result: DayResult,
) -> Callable[[str], str]:
    def pick(model: str) -> str:
        key = f"{model}/{rng.randrange(50)}"
        began = time.perf_counter()
        choice = table.choose(model, key, now)
        result.decisions_s.append(time.perf_counter() - began)
        assert choice is not None
        table.note_sent(choice.node, model, key)
        result.prefixes += choice.why == "prefix"
        return choice.node

    return pick


def _of_two(rng: random.Random, alive: Sequence[str], loads: Mapping[str, float]) -> Callable[[str], str]:
    return lambda _: min(rng.sample(alive, 2), key=lambda node: loads[node])

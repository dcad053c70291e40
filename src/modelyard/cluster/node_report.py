"""What a node reports of itself, a few times a second: small, and allowed to be old when it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any, Final

from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.eviction import Fit, room_seconds
from modelyard.yard.residency.expected_cost import load_seconds
from modelyard.yard.residency.state import LoadState, ModelState, Residency

MIN_SERVICE_S: Final = 0.05
"""Seconds that an answer takes at least, as far as routing goes."""

MIN_LEFT_S: Final = 0.05
"""Seconds that are left of a load at least: 0 is said of a model that is loaded."""

MAX_PLANS: Final = 64
"""Models that are not loaded of which a report has the plan of a load: those that were used last."""


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model on one node.

    Attributes:
        ready_s: seconds until it can begin a request: 0 where it is loaded, else what is left of its load, or what a
            load would take.
        running: requests in its engine.
        waiting: requests in its queue.
        is_resident: whether it is loaded, or a load of it has begun.
        failure: why it cannot be loaded at present; "" where it can.
        size_bytes: memory that it takes, or would take; 0: its files were not read.
    """

    ready_s: float
    running: int = 0
    waiting: int = 0
    is_resident: bool = True
    failure: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A whole node.

    Attributes:
        node: its name.
        slots: requests that one of its models computes at the same time.
        service_s: seconds that an answer took lately, from its engine's first step to its end.
        budget_bytes, used_bytes: memory that its models may take together, and that they take.
        models: those that are loaded, load, failed, or were loaded before, by id; nothing is known of the others.
        is_draining: whether it takes no further requests, because it is about to leave.
    """

    node: str
    slots: int = 32
    service_s: float = 1.0
    budget_bytes: int = 0
    used_bytes: int = 0
    models: Mapping[str, ModelReport] = field(default_factory=dict)
    is_draining: bool = False

    @property
    def free_bytes(self) -> int:
        """Memory that a load takes without an eviction."""
        return max(0, self.budget_bytes - self.used_bytes)

    def fields(self) -> tuple[Any, ...]:
        """Return the report as plain values, which any connection carries."""
        models = {
            name: (each.ready_s, each.running, each.waiting, each.is_resident, each.failure, each.size_bytes)
            for name, each in self.models.items()
        }
        return (
            *(self.node, self.slots, self.service_s, self.budget_bytes, self.used_bytes),
            *(models, self.is_draining),
        )

    @staticmethod
    def of_fields(fields: Sequence[Any]) -> NodeReport:
        """Return the report of what ``fields`` returned."""
        node, slots, service_s, budget_bytes, used_bytes, models, is_draining = fields
        reports = {str(name): ModelReport(*each) for name, each in models.items()}
        return NodeReport(node, slots, service_s, budget_bytes, used_bytes, reports, is_draining)


def report_of(
    node: str, state: Residency, now: float, slots: int, service_s: float, *, is_draining: bool = False
) -> NodeReport:
    """Return the report of a node whose residency is ``state``. Pure.

    Args:
        node: its name.
        state: which models it has, in which states.
        now: the present time, by the clock of ``state``.
        slots, service_s, is_draining: as in ``NodeReport``.
    """
    models: dict[str, ModelReport] = {}
    unloaded: list[str] = []
    for name, model in state.models.items():
        if model.load_state in (LoadState.LOADED, LoadState.LOADING):
            is_loaded = model.load_state is LoadState.LOADED
            left_s = 0.0 if is_loaded else max(MIN_LEFT_S, load_seconds(model) - (now - model.load_began))
            models[model.policy.name] = ModelReport(left_s, len(model.leases), _waiting(model), size_bytes=_size(model))
        elif model.footprint is not None or model.failure is not None:
            unloaded.append(name)
    for name in nlargest(MAX_PLANS, unloaded, key=lambda name: state.models[name].last_used):
        models.setdefault(state.models[name].policy.name, _planned(state, name, now))
    return NodeReport(
        node, slots, max(MIN_SERVICE_S, service_s), state.budget_bytes, state.used_bytes, models, is_draining
    )


def _planned(state: Residency, name: str, now: float) -> ModelReport:
    """Return the report of a model that is not loaded: what a load takes here, and costs by what goes for it."""
    model = state.models[name]
    failure = (model.failure or "") if model.retry_at > now else ""
    load_s = load_seconds(model)
    if model.footprint is not None:
        plan = plan_load(state, name)
        if plan.fit is Fit.NEVER:
            failure = failure or "it does not fit the memory"
        else:
            load_s += room_seconds(state, plan)
    return ModelReport(load_s, 0, _waiting(model), is_resident=False, failure=failure, size_bytes=_size(model))


def _size(model: ModelState) -> int:
    return 0 if model.footprint is None else model.footprint.total_bytes


def _waiting(model: ModelState) -> int:
    return sum(waiter.is_request for waiter in model.queue)


def mean_service_s(previous: float, durations: Iterable[float]) -> float:
    """Return the mean duration of answers after ``durations``, each of which counts for a tenth."""
    for duration in durations:
        previous += 0.1 * (duration - previous)
    return previous

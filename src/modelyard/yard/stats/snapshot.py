"""The numbers of all models at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.stats.counters import Counters, ModelCounters


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The numbers of one model. While its settings change it has several engines, whose numbers are added.

    Attributes:
        model: its id.
        is_loaded: whether it serves.
        is_isolated: whether its last engine ran in a process of its own.
        waiting: requests in its queue.
        running: requests in its engine.
        resident_bytes: memory that it takes, including weights that it shares with other models.
        counters: what it has done since the start.
    """

    model: str
    is_loaded: bool
    is_isolated: bool
    waiting: int
    running: int
    resident_bytes: int
    counters: ModelCounters


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The numbers of all models, and the bytes that they take together; shared weights count once.

    Attributes:
        models: the numbers of each.
        budget_bytes: memory that they may take together.
        used_bytes: all bytes that count against the budget.
        kept_bytes: host memory for what outlived unloads, which is part of ``used_bytes``.
    """

    models: tuple[ModelMetrics, ...]
    budget_bytes: int
    used_bytes: int
    kept_bytes: int


def metrics_snapshot(state: Residency, counters: Counters) -> MetricsSnapshot:
    """Return the numbers of all models."""
    names = dict.fromkeys(model.policy.name for model in state.models.values())
    alone = state.weights_alone()
    metrics = []
    for name in names:
        keys = [key for key, model in state.models.items() if model.policy.name == name]
        models = [state.models[key] for key in keys]
        metrics.append(
            ModelMetrics(
                model=name,
                is_loaded=any(model.load_state is LoadState.LOADED for model in models),
                is_isolated=any(model.is_isolated for model in models),
                waiting=sum(map(_waiting, models)),
                running=sum(len(model.leases) for model in models),
                resident_bytes=state.taken_bytes([key for key in keys if state.models[key].is_resident], alone),
                counters=counters[name],
            )
        )
    return MetricsSnapshot(tuple(metrics), state.budget_bytes, state.used_bytes, state.kept_bytes)


def _waiting(model: ModelState) -> int:
    return sum(waiter.is_request for waiter in model.queue)

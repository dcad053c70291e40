"""All models in numbers, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.yard.residency.state import LoadState, ModelState, Residency, WaitKind
from modelyard.yard.stats.counters import Counters, ModelCounters


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """One model. It has several engines while its settings change; their numbers are added.

    Attributes:
        is_loaded: it serves.
        is_isolated: its last engine ran in a process of its own.
        waiting: requests in its line; running: in its engine.
        resident_bytes: that it takes, with weights that it shares with others.
        tally: what it did.
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
    """All models, and the memory that they take together, in bytes: weights that several share count once."""

    models: tuple[ModelMetrics, ...]
    budget_bytes: int
    used_bytes: int
    kept_bytes: int


def metrics_snapshot(state: Residency, tally: Counters) -> MetricsSnapshot:
    """Count. Pure."""
    names = dict.fromkeys(model.policy.name for model in state.models.values())
    alone = state.weights_alone()
    counts = []
    for name in names:
        keys = [key for key, model in state.models.items() if model.policy.name == name]
        models = [state.models[key] for key in keys]
        counts.append(
            ModelMetrics(
                model=name,
                is_loaded=any(model.load_state is LoadState.LOADED for model in models),
                is_isolated=any(model.is_isolated for model in models),
                waiting=sum(map(_waiting, models)),
                running=sum(len(model.leases) for model in models),
                resident_bytes=state.taken_bytes([key for key in keys if state.models[key].is_resident], alone),
                counters=tally[name],
            )
        )
    return MetricsSnapshot(tuple(counts), state.budget_bytes, state.used_bytes, state.kept_bytes)


def _waiting(model: ModelState) -> int:
    return sum(wish.kind in (WaitKind.LEASE, WaitKind.RESUME) for wish in model.queue)

"""The numbers of all models at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.stats.counters import Counters, ModelCounters
from modelyard.yard.stats.device_memory import DeviceUse, device_uses, of_devices


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The numbers of one model. While its settings change it has several engines, whose numbers are added.

    Attributes:
        model: its id.
        is_loaded: whether it serves.
        is_isolated: whether its last engine ran in a process of its own.
        waiting: requests in its queue.
        running: requests in its engine.
        resident_bytes: memory that it takes of the host and of devices, including weights that it shares with others.
        counters: what it has done since the start.
        device_bytes: the part of ``resident_bytes`` that is memory of devices, by their names.
    """

    model: str
    is_loaded: bool
    is_isolated: bool
    waiting: int
    running: int
    resident_bytes: int
    counters: ModelCounters
    device_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The numbers of all models, and the bytes that they take together; shared weights count once.

    Attributes:
        models: the numbers of each.
        budget_bytes: memory of the host that they may take together.
        used_bytes: all bytes that count against the budget.
        kept_bytes: host memory for what outlived unloads, which is part of ``used_bytes``.
        devices: memory of devices, by their names.
    """

    models: tuple[ModelMetrics, ...]
    budget_bytes: int
    used_bytes: int
    kept_bytes: int
    devices: Mapping[str, DeviceUse] = field(default_factory=dict)


def metrics_snapshot(state: Residency, counters: Counters) -> MetricsSnapshot:
    """Return the numbers of all models."""
    names = dict.fromkeys(model.policy.name for model in state.models.values())
    alone = state.weights_alone()
    metrics = []
    for name in names:
        keys = [key for key, model in state.models.items() if model.policy.name == name]
        models = [state.models[key] for key in keys]
        taken = state.taken([key for key in keys if state.models[key].is_resident], alone)
        metrics.append(
            ModelMetrics(
                model=name,
                is_loaded=any(model.load_state is LoadState.LOADED for model in models),
                is_isolated=any(model.is_isolated for model in models),
                waiting=sum(map(_waiting, models)),
                running=sum(len(model.leases) for model in models),
                resident_bytes=sum(taken.values()),
                counters=counters[name],
                device_bytes=of_devices(taken),
            )
        )
    return MetricsSnapshot(tuple(metrics), state.budget_bytes, state.used_bytes, state.kept_bytes, device_uses(state))


def _waiting(model: ModelState) -> int:
    return sum(waiter.is_request for waiter in model.queue)

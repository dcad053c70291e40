"""What it is expected to cost to give a model up: how soon it is wanted again, and how long its load takes. Pure."""

from __future__ import annotations

import math
from typing import Final

from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, ModelState

# Estimates the load time of a model that was never loaded: bytes a second of a slow disk.
READ_BYTES_PER_S: Final = 500e6

RETURN_S: Final = 60.0
"""Seconds in which the next request of a conversation follows, where one does."""

RETURN_SHARE: Final = 0.8
"""Requests that another one of their conversation follows."""

DEMAND_DECAY_S: Final = 7_200.0
"""Seconds after which a use counts e times less."""

# A load that takes no measurable time is still one, and the demand of tiny models counts.
MIN_LOAD_S: Final = 0.01

# Bounds the exponent of a time that lies ahead: a request may end long after the last event that ranks are taken at.
_MAX_EXPONENT: Final = 50.0


def with_arrival(model: ModelState, now: float) -> ModelState:
    """Return the model with one more use in its demand.

    A request that follows another one closely counts little: the model would have been loaded in any case, and what is
    counted are the loads that keeping it saves.
    """
    if not model.demand:
        return model._replace(demand=1.0, demand_as_of=now)
    new = 1.0 - math.exp((model.demand_as_of - now) / RETURN_S)
    return model._replace(demand=_demand_at(model, now) + new, demand_as_of=now)


def _demand_at(model: ModelState, now: float) -> float:
    return model.demand * math.exp(min(_MAX_EXPONENT, (model.demand_as_of - now) / DEMAND_DECAY_S))


def uses_per_s(model: ModelState, now: float) -> float:
    """Return how often a second the model is expected to be wanted next.

    The sum of two rates: of its last conversation, which goes on soon or not at all, and of all its uses, those of long
    ago counting less. A model that nobody has asked for counts as used once, when it was last loaded.
    """
    is_used = model.leases or model.queue or model.holds
    age_s = 0.0 if is_used else now - model.last_used
    returns = RETURN_SHARE / RETURN_S * math.exp(min(_MAX_EXPONENT, -age_s / RETURN_S))
    return returns + (_demand_at(model, now) if model.demand else 1.0) / DEMAND_DECAY_S


def eviction_rank(model: ModelState, now: float) -> tuple[float, int]:
    """Return the rank of a model among those that can be evicted; the lowest is evicted first.

    The rank is the load time that a byte of its memory is expected to save in a second: how often the model is wanted,
    times the duration of its load, by its size. Of equal ones the largest is evicted first. A retired model ranks
    before all others.

    When a busy model may be evicted is decided in ``allocation``.
    """
    size = (model.footprint or NO_FOOTPRINT).total_bytes
    if model.is_retired:
        return -1.0, -size
    return uses_per_s(model, now) * max(MIN_LOAD_S, cold_load_seconds(model)) / max(1, size), -size


def reload_seconds(model: ModelState, *, has_weights: bool) -> float:
    """Return how long it takes to have a victim again, of which the weights are parked or not; a retired one never."""
    if model.is_retired:
        return 0.0
    return wake_seconds(model) if has_weights else cold_load_seconds(model)


def load_seconds(model: ModelState) -> float:
    """Return how long the next load of the model takes: as last measured, or estimated from its size."""
    if model.load_state is LoadState.PARKED:
        return wake_seconds(model)
    return cold_load_seconds(model)


def wake_seconds(model: ModelState) -> float:
    """Return how long a load takes that finds the weights parked."""
    return cold_load_seconds(model) if model.wake_s is None else model.wake_s


def cold_load_seconds(model: ModelState) -> float:
    """Return how long a load takes when no weights are parked, which is the cost of giving the weights up."""
    if model.load_s is not None:
        return model.load_s
    return 1.0 + (model.footprint or NO_FOOTPRINT).all_weights_bytes / READ_BYTES_PER_S

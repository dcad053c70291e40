"""All models in numbers, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.yard.residency.state import ModelState, Residence, Residency, Want
from modelyard.yard.stats.counters import ModelTally, Tally


@dataclass(frozen=True, slots=True)
class ModelCount:
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
    tally: ModelTally


@dataclass(frozen=True, slots=True)
class Census:
    """All models, and the memory that they take together, in bytes: weights that several share count once."""

    models: tuple[ModelCount, ...]
    budget_bytes: int
    used_bytes: int
    kept_bytes: int


def census(state: Residency, tally: Tally) -> Census:
    """Count. Pure."""
    names = dict.fromkeys(model.traits.name for model in state.models.values())
    alone = state.weights_alone()
    counts = []
    for name in names:
        keys = [key for key, model in state.models.items() if model.traits.name == name]
        models = [state.models[key] for key in keys]
        counts.append(
            ModelCount(
                model=name,
                is_loaded=any(model.residence is Residence.LOADED for model in models),
                is_isolated=any(model.is_isolated for model in models),
                waiting=sum(map(_waiting, models)),
                running=sum(len(model.leases) for model in models),
                resident_bytes=state.taken_bytes([key for key in keys if state.models[key].is_resident], alone),
                tally=tally[name],
            )
        )
    return Census(tuple(counts), state.budget_bytes, state.used_bytes, state.kept_bytes)


def _waiting(model: ModelState) -> int:
    return sum(wish.want in (Want.LEASE, Want.RESUME) for wish in model.line)

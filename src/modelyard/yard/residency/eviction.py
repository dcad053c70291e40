"""Making room: what has to go so that a model fits the memory budget. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, ModelState, Residency

# Stands in for the load time of a model that was never loaded: bytes a second of a slow disk.
READ_BYTES_PER_S = 500e6

# Seconds of idleness that a second of load time makes up for.
WORTH_S = 30.0


class Fit(Enum):
    """Whether a model can be loaded."""

    FITS = "fits"
    """Now, as things are."""
    EVICTS = "evicts"
    """Now, when idle models go."""
    WAITS = "waits"
    """When busy models have made room."""
    NEVER = "never"
    """Not within this budget, beside what is pinned."""


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """How a model gets its memory.

    Attributes:
        drops: parked models whose weights go.
        forgets: unloaded models whose kept state goes.
        evicts: idle models that go.
        yields: busy models that have to make room.
        parks: of those that go, the models whose weights can stay.
        leaving: models that are going anyway, and are waited for.
        pinned: models that stay, whatever is asked.
    """

    fit: Fit
    frees_weights_of: tuple[str, ...] = ()
    discards: tuple[str, ...] = ()
    evicts: tuple[str, ...] = ()
    drains: tuple[str, ...] = ()
    parks: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()

    @property
    def victims(self) -> tuple[str, ...]:
        """Every model that is gone when the room is there, but for the weights of some."""
        return (*self.leaving, *self.frees_weights_of, *self.evicts, *self.drains)


def plan_eviction(state: Residency, name: str) -> EvictionPlan:
    """What has to go so that ``name``, whose footprint is known, can be loaded: as little as possible.

    First what nobody uses and what is cheap to have again: weights of parked models, then state kept of unloaded ones,
    then idle models by ``eviction_rank``, then busy ones. Of those, the weights stay where there is room for them. A
    model that is loading or pinned never goes.
    """
    models, budget = state.models, state.budget_bytes
    resident = [other for other in state.resident() if other != name]
    pinned = tuple(other for other in resident if models[other].policy.is_pinned and not is_leaving(models[other]))
    alone = state.weights_alone() - {name}
    kept = {other: models[other].kept_bytes for other in sorted(state.active) if models[other].kept_bytes}

    def fits(staying: set[str], keeping: set[str], parks: Collection[str] = ()) -> bool:
        taken = state.taken_bytes({*staying, *parks, name}, alone.union(parks))
        return taken + sum(kept[other] for other in keeping) <= budget

    if not fits(set(pinned), set()):
        return EvictionPlan(Fit.NEVER, pinned=pinned)
    if fits(set(resident), set(kept)):
        return EvictionPlan(Fit.FITS, pinned=pinned)
    leaving = [other for other in resident if is_leaving(models[other])]
    # What a model keeps that is going can be forgotten when it is gone.
    staying, keeping = set(resident) - set(leaving), set(kept) - set(leaving)
    # Of the same order in every process: sets of names have another in each.
    movable = sorted(staying - set(pinned))
    idle = sorted((o for o in movable if models[o].is_idle), key=lambda o: eviction_rank(models[o]))
    busy = sorted(
        (o for o in movable if models[o].load_state is LoadState.LOADED and not models[o].is_idle),
        key=lambda o: (models[o].draining_since is None, eviction_rank(models[o])),
    )
    parked = sorted(
        (o for o in movable if models[o].load_state is LoadState.PARKED),
        key=lambda o: (not models[o].is_unused, eviction_rank(models[o])),
    )
    # Of its own kept state, a model that comes back makes use.
    forgettable = [o for o in kept if o in keeping]
    forgettable.sort(key=lambda o: (o == name, models[o].last_used))
    chosen: list[tuple[set[str], str]] = []
    for pool, candidates in ((staying, parked), (keeping, forgettable), (staying, idle), (staying, busy)):
        for other in candidates:
            if fits(staying, keeping):
                break
            pool.discard(other)
            chosen.append((pool, other))
    if not fits(staying, keeping):
        # A load is under way, which is never a victim: when it is over, there is a choice again.
        return EvictionPlan(Fit.WAITS, leaving=tuple(leaving), pinned=pinned)
    for pool, other in reversed(chosen):
        pool.add(other)
        if not fits(staying, keeping):
            pool.discard(other)
    drops = tuple(other for other in parked if other not in staying)
    evicts = tuple(other for other in idle if other not in staying)
    yields = tuple(other for other in busy if other not in staying)
    parks: list[str] = []
    for other in reversed((*evicts, *yields)):
        if not models[other].is_retired and fits(staying, keeping, (*parks, other)):
            parks.append(other)
    return EvictionPlan(
        Fit.WAITS if yields or leaving else Fit.EVICTS,
        frees_weights_of=drops,
        discards=tuple(other for other in forgettable if other not in keeping),
        evicts=evicts,
        drains=yields,
        parks=tuple(parks),
        leaving=tuple(leaving),
        pinned=pinned,
    )


def is_leaving(model: ModelState) -> bool:
    """Whether the model's memory comes back without anybody's doing.

    That of a drain comes with the last of its answers, which may be far off: it yields like any busy model, but where
    that is pinned.
    """
    return model.load_state is LoadState.FREEING or (model.is_draining and model.policy.is_pinned)


def eviction_rank(model: ModelState) -> tuple[float, int]:
    """Where a model stands among those that could go; the lowest goes first.

    By its last use, but what takes long to load again counts as used later: WORTH_S for each second. Of equal ones the
    largest goes first. A retired model goes before all others. It depends on nothing that changes with time alone: who
    goes is decided by what happens, not by when it is asked.
    """
    if model.is_retired:
        return -math.inf, 0
    size = (model.footprint or NO_FOOTPRINT).total_bytes
    return model.last_used + WORTH_S * _cold_load_seconds(model), -size


def load_seconds(model: ModelState) -> float:
    """How long the next load of the model takes: as measured last, else guessed from its size."""
    if model.load_state is LoadState.PARKED and model.wake_s is not None:
        return model.wake_s
    return _cold_load_seconds(model)


def _cold_load_seconds(model: ModelState) -> float:
    """The same without its weights, which is what it costs to give them up."""
    if model.load_s is not None:
        return model.load_s
    return 1.0 + sum((model.footprint or NO_FOOTPRINT).weights.values()) / READ_BYTES_PER_S


def keepable_bytes(state: Residency, victim: str, claimant: str | None) -> int:
    """Host memory that may be held for ``victim`` when it is freed, without a moment above the budget.

    Its state is saved while it is still resident, and stays while ``claimant`` loads.
    """
    others, alone = [name for name in state.resident() if name != victim], state.weights_alone()
    after = others if claimant is None else {*others, claimant}
    peak = max(state.taken_bytes([*others, victim], alone), state.taken_bytes(after, alone - {claimant}))
    return max(0, state.budget_bytes - state.kept_bytes - peak)

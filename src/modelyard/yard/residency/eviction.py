"""Making room: what has to go so that a model fits the memory budgets in one placement. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, ModelState, Residency

# Estimates the load time of a model that was never loaded: bytes a second of a slow disk.
READ_BYTES_PER_S = 500e6

# Models among which all combinations of victims are compared, which takes some milliseconds at most.
MAX_SEARCHED = 4

# The least recently used models go unless others take less time to have back, by this factor.
MAX_DEARER = 1.2

# Seconds of idleness that weigh as much as one second of load time.
RELOAD_WEIGHT_S = 30.0


class Fit(Enum):
    """Whether a model can be loaded."""

    FITS = "fits"
    """It fits now."""
    EVICTS = "evicts"
    """It fits once idle models are evicted, parked weights freed, or kept prompts discarded."""
    WAITS = "waits"
    """It fits once busy models have made room, or a load that is under way has ended."""
    NEVER = "never"
    """It does not fit the budgets beside the pinned models."""


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """How a model gets its memory.

    Attributes:
        fit: whether the model can be loaded.
        footprint: of the model, in the placement that is planned.
        frees_weights_of: parked models whose weights are freed.
        discards: unloaded models whose kept state is discarded.
        evicts: idle models that are unloaded.
        drains: busy models that are drained and unloaded.
        parks: models of ``evicts`` and ``drains`` whose weights can stay in memory.
        leaving: models whose unload has begun already, and is waited for.
        pinned: models that stay in any case.
        awaits_load: whether nothing can be planned until a load has ended that is under way.
    """

    fit: Fit
    footprint: Footprint
    frees_weights_of: tuple[str, ...] = ()
    discards: tuple[str, ...] = ()
    evicts: tuple[str, ...] = ()
    drains: tuple[str, ...] = ()
    parks: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    awaits_load: bool = False

    @property
    def victims(self) -> tuple[str, ...]:
        """Every model that is gone once the plan is carried out, except for the weights of ``parks``."""
        return (*self.leaving, *self.frees_weights_of, *self.evicts, *self.drains)


def plan_eviction(state: Residency, name: str, footprint: Footprint | None = None) -> EvictionPlan:
    """Return what has to go so that ``name``, whose footprint is known, can be loaded: as little as possible.

    ``footprint`` is that of the placement which it is to have; None: of its last one.

    Victims are taken in the order of what it costs to have them back: weights of parked models, state kept of unloaded
    models, idle models by ``eviction_rank``, busy models. The weights of an evicted model stay where there is room for
    them. A model that is loading or pinned is never a victim.
    """
    footprint = footprint or state.models[name].footprint or NO_FOOTPRINT
    demand = _Demand(state, name, footprint)
    if not demand.fits_beside(demand.pinned, ()):
        return EvictionPlan(Fit.NEVER, footprint, pinned=demand.pinned)
    if demand.fits_beside(demand.resident, demand.kept):
        return EvictionPlan(Fit.FITS, footprint, pinned=demand.pinned)
    candidates = _candidates(state, demand)
    remaining = _remaining(demand, candidates)
    if remaining is None:
        # A load is under way, and a loading model is never a victim: there is a choice again once it is over.
        return EvictionPlan(Fit.WAITS, footprint, leaving=demand.leaving, pinned=demand.pinned, awaits_load=True)
    plan = _plan(demand, candidates, _with_weights(state, demand, candidates, remaining))
    return _cheaper(state, demand, candidates, plan) if state.device_budgets else plan


def _plan(demand: _Demand, candidates: _Candidates, remaining: _Remaining) -> EvictionPlan:
    drains = tuple(other for other in candidates.busy if other not in remaining.models)
    return EvictionPlan(
        Fit.WAITS if drains or demand.leaving else Fit.EVICTS,
        demand.footprint,
        frees_weights_of=tuple(other for other in candidates.parked if other not in remaining.models),
        discards=tuple(other for other in candidates.discardable if other not in remaining.kept),
        evicts=tuple(other for other in candidates.idle if other not in remaining.models),
        drains=drains,
        parks=remaining.weights,
        leaving=demand.leaving,
        pinned=demand.pinned,
    )


class _Demand:
    """A model that is to be loaded, and what takes memory beside it.

    Attributes:
        name, footprint: the model, in the placement that it is to have.
        resident: all other models that take memory, in a stable order.
        pinned: those of them that stay in any case.
        leaving: those of them whose unload has begun.
        kept: bytes of host memory that outlived unloads, by model, in a stable order.
        pools: those that the model takes memory of. What others exceed elsewhere is no obstacle.
    """

    def __init__(self, state: Residency, name: str, footprint: Footprint) -> None:
        models = state.models
        self.name, self.footprint = name, footprint
        self.resident = tuple(other for other in state.resident() if other != name)
        self.leaving = tuple(other for other in self.resident if is_leaving(models[other]))
        self.pinned = tuple(
            other for other in self.resident if models[other].policy.is_pinned and not is_leaving(models[other])
        )
        self.kept = {other: models[other].kept_bytes for other in sorted(state.active) if models[other].kept_bytes}
        self.pools = {HOST_NAME, *(share.pool for share in footprint.devices)}
        self._state = state
        self._instead = {name: footprint}
        self._weights_alone = state.weights_alone() - {name}

    def fits_beside(self, models: Iterable[str], kept: Iterable[str], parked: Collection[str] = ()) -> bool:
        """Whether the model fits the budgets beside other models, the kept state of some, and weights alone of some."""
        return not self.exceeded_beside(models, kept, parked)

    def exceeded_beside(self, models: Iterable[str], kept: Iterable[str], parked: Collection[str] = ()) -> list[str]:
        """Return the pools that are too small for the model beside what ``fits_beside`` names."""
        taken = self._state.taken(
            {*models, *parked, self.name}, self._weights_alone.union(parked), instead=self._instead
        )
        taken[HOST_NAME] += sum(self.kept[other] for other in kept)
        return [pool for pool in self._state.exceeded(taken) if pool in self.pools]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Models that can give memory up, by what they give; in each list the first is the first victim.

    Attributes:
        parked: models that are parked, which free their weights.
        discardable: models that discard what was kept of them.
        idle: models that are loaded and unused.
        busy: models that are loaded and used.
    """

    parked: Sequence[str]
    discardable: Sequence[str]
    idle: Sequence[str]
    busy: Sequence[str]


def _candidates(state: Residency, demand: _Demand) -> _Candidates:
    models = state.models
    # Sorted, because the order of a set of names differs from process to process.
    movable = sorted(set(demand.resident) - set(demand.leaving) - set(demand.pinned))
    loaded = [other for other in movable if models[other].load_state is LoadState.LOADED]
    return _Candidates(
        parked=sorted(
            (other for other in movable if models[other].load_state is LoadState.PARKED),
            key=lambda other: (not models[other].is_unused, eviction_rank(models[other])),
        ),
        # The model reuses its own kept state once it is loaded, so that state goes last.
        discardable=sorted(
            (other for other in demand.kept if other not in demand.leaving),
            key=lambda other: (other == demand.name, models[other].last_used),
        ),
        idle=sorted(
            (other for other in loaded if models[other].is_idle), key=lambda other: eviction_rank(models[other])
        ),
        busy=sorted(
            (other for other in loaded if not models[other].is_idle),
            key=lambda other: (models[other].draining_since is None, eviction_rank(models[other])),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Remaining:
    """What stays beside the model that is to be loaded: models, kept state of models, and weights of victims."""

    models: set[str]
    kept: set[str]
    weights: tuple[str, ...] = ()


def _remaining(demand: _Demand, candidates: _Candidates) -> _Remaining | None:
    """Return what can stay beside the model; None where it does not fit even when every candidate goes.

    Candidates go in their order until the model fits. Those that turn out to be unnecessary, because a later one was
    large enough, stay; the last victim is reconsidered first.
    """
    # What was kept of a leaving model can be discarded once that model is gone.
    models, kept = set(demand.resident) - set(demand.leaving), set(demand.kept) - set(demand.leaving)
    victims: list[tuple[set[str], str]] = []
    for pool, others in (
        (models, candidates.parked),
        (kept, candidates.discardable),
        (models, candidates.idle),
        (models, candidates.busy),
    ):
        for other in others:
            if demand.fits_beside(models, kept):
                break
            pool.discard(other)
            victims.append((pool, other))
    if not demand.fits_beside(models, kept):
        return None
    for pool, other in reversed(victims):
        pool.add(other)
        if not demand.fits_beside(models, kept):
            pool.discard(other)
    return _Remaining(models, kept)


def _with_weights(state: Residency, demand: _Demand, candidates: _Candidates, remaining: _Remaining) -> _Remaining:
    """Return what can stay with the weights of the victims that can stay, too; the last victim is the first choice."""
    parked: list[str] = []
    for other in reversed((*candidates.idle, *candidates.busy)):
        if other in remaining.models or state.models[other].is_retired:
            continue
        if demand.fits_beside(remaining.models, remaining.kept, (*parked, other)):
            parked.append(other)
    return replace(remaining, weights=tuple(parked))


def _cheaper(state: Residency, demand: _Demand, candidates: _Candidates, plan: EvictionPlan) -> EvictionPlan:
    """Return a plan with other victims, if it takes MAX_DEARER times as long to have those of ``plan`` again.

    On several devices the least recently used models may be many that give little where it is needed. All combinations
    are compared where few models can help, else two other orders. Busy models stay unless ``plan`` drains some, and
    then those that are more urgent than its own stay.
    """
    models, least_s = state.models, room_seconds(state, plan) / MAX_DEARER
    if least_s == 0.0:
        return plan
    most_urgent = max((models[other].urgency for other in plan.drains), default=-math.inf)
    busy = [other for other in candidates.busy if models[other].urgency <= most_urgent]
    staying = set(demand.resident) - set(demand.leaving)
    short = demand.exceeded_beside(staying, ())
    given = {other: sum(state.taken([other]).get(pool, 0) for pool in short) for other in staying}
    helpful = [other for other in (*candidates.parked, *candidates.idle, *busy) if given[other]]
    if len(helpful) <= MAX_SEARCHED:
        found = _search(state, demand, candidates, helpful, least_s)
        return plan if found is None else _plan(demand, candidates, found)
    for order in (
        lambda other: reload_seconds(models[other], has_weights=False),
        lambda other: reload_seconds(models[other], has_weights=False) / max(1, given[other]),
    ):
        ordered = _Candidates(
            sorted(candidates.parked, key=order), candidates.discardable, sorted(candidates.idle, key=order), busy
        )
        remaining = _remaining(demand, ordered)
        # Whatever ``plan`` evicts may go here, too.
        assert remaining is not None
        other_plan = _plan(demand, ordered, _with_weights(state, demand, ordered, remaining))
        if (seconds := room_seconds(state, other_plan)) < least_s:
            plan, least_s = other_plan, seconds
    return plan


class _Fate(Enum):
    """What becomes of a model in one combination of victims."""

    STAYS = "stays"
    PARKS = "parks"
    GOES = "goes"


_Option = tuple[float, str, _Fate]
"""Seconds that it takes to have a model again, its name, and what becomes of it."""


def _search(
    state: Residency, demand: _Demand, candidates: _Candidates, helpful: Sequence[str], below_s: float
) -> _Remaining | None:
    """Return what stays with the victims among ``helpful`` that cost least; None where none cost under ``below_s``."""
    models = state.models
    options: list[list[_Option]] = []
    for other in helpful:
        model = models[other]
        fates = [(0.0, other, _Fate.STAYS), (reload_seconds(model, has_weights=False), other, _Fate.GOES)]
        if model.load_state is LoadState.LOADED and not model.is_retired:
            fates.append((reload_seconds(model, has_weights=True), other, _Fate.PARKS))
        options.append(fates)
    wait_s, is_waited_for = _drain_seconds(state), _is_busy(state, demand.leaving)
    ranked: list[tuple[float, int, int, tuple[_Option, ...]]] = []
    for index, combination in enumerate(product(*options)):
        drains = any(fate is not _Fate.STAYS and other in candidates.busy for _, other, fate in combination)
        cost_s = sum(seconds for seconds, _, _ in combination) + (wait_s if drains or is_waited_for else 0.0)
        if cost_s < below_s:
            ranked.append((cost_s, sum(fate is _Fate.GOES for _, _, fate in combination), index, combination))
    for *_, combination in sorted(ranked):
        weights = tuple(other for _, other, fate in combination if fate is _Fate.PARKS)
        victims = {other for _, other, fate in combination if fate is not _Fate.STAYS}
        staying = set(demand.resident) - set(demand.leaving) - victims
        if demand.fits_beside(staying, (), weights):
            kept: set[str] = set()
            for other in reversed(candidates.discardable):
                if demand.fits_beside(staying, {*kept, other}, weights):
                    kept.add(other)
            return _Remaining(staying, kept, weights)
    return None


def is_leaving(model: ModelState) -> bool:
    """Whether the model gives its memory back by itself: it is being freed, or it is pinned and its unload is queued.

    An unload that waits for the last answer may take long. A model whose unload is queued is therefore evicted like any
    busy one, unless it is pinned.
    """
    return model.load_state is LoadState.FREEING or (model.is_draining and model.policy.is_pinned)


def eviction_rank(model: ModelState) -> tuple[float, int]:
    """Return the rank of a model among those that can be evicted; the lowest is evicted first.

    Models rank by their last use, plus RELOAD_WEIGHT_S for each second that a load takes; of equal ones the largest is
    evicted first. A retired model ranks before all others. The order does not depend on the current time, so that it
    does not change between two events; when a busy model may be evicted, which does, is decided in
    ``allocation._may_go_at``.
    """
    if model.is_retired:
        return -math.inf, 0
    size = (model.footprint or NO_FOOTPRINT).total_bytes
    return model.last_used + RELOAD_WEIGHT_S * cold_load_seconds(model), -size


def room_seconds(state: Residency, plan: EvictionPlan) -> float:
    """Return what the room of a plan costs: the time of waiting for it, and that of having back what goes.

    The end of a free that has begun is not waited for long. So a plan costs no more once it is carried out in part, and
    what went for it did not go for nothing.
    """
    models = state.models
    victims = (*plan.evicts, *plan.drains)
    seconds = sum(reload_seconds(models[other], has_weights=other in plan.parks) for other in victims)
    seconds += sum(reload_seconds(models[other], has_weights=False) for other in plan.frees_weights_of)
    if plan.drains or plan.awaits_load or _is_busy(state, plan.leaving):
        seconds += _drain_seconds(state)
    return seconds


def _is_busy(state: Residency, leaving: Iterable[str]) -> bool:
    """Whether any of the models whose unload has begun still serves."""
    return any(state.models[other].load_state is LoadState.LOADED for other in leaving)


def _drain_seconds(state: Residency) -> float:
    """Return how long a busy model is assumed to be waited for."""
    return state.policy.min_residency_s + state.policy.drain_s


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

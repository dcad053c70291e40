"""Which models would have to go so that a model fits the memory budgets in one placement. Pure.

``choice`` compares such plans for all placements of a model. Whether and when a plan is carried out is decided by
``allocation``: ``_may_claim``, ``_claim`` and ``_drain``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.expected_cost import eviction_rank, reload_seconds
from modelyard.yard.residency.room import Beside, Demand, may_shrink
from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, Residency

# Models among which all combinations of victims are compared, which takes some milliseconds at most.
MAX_SEARCHED = 4

# The models that are least wanted go unless others take less time to have back, by this factor.
MAX_DEARER = 1.2


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
        shrinks: loaded models that give back a part of their contexts.
        evicts: idle models that are unloaded.
        drains: busy models that are drained and unloaded.
        parks: models of ``evicts`` and ``drains`` whose weights can stay in memory.
        leaving: models whose unload has begun already, and is waited for.
        pinned: models that stay in any case.
        lacks_victims: whether the model would not fit either if every model went that may go now: victims are chosen
            once one that is loading may go, too.
    """

    fit: Fit
    footprint: Footprint
    frees_weights_of: tuple[str, ...] = ()
    discards: tuple[str, ...] = ()
    shrinks: tuple[str, ...] = ()
    evicts: tuple[str, ...] = ()
    drains: tuple[str, ...] = ()
    parks: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    lacks_victims: bool = False

    @property
    def victims(self) -> tuple[str, ...]:
        """Every model that is gone once the plan is carried out, except for the weights of ``parks``."""
        return (*self.leaving, *self.frees_weights_of, *self.evicts, *self.drains)


def plan_without_eviction(state: Residency, name: str, footprint: Footprint) -> EvictionPlan:
    """Return a plan that says whether the model fits now with ``footprint``, or never; all others say ``WAITS``.

    Much cheaper than a plan with victims, where those would not go in any case.
    """
    demand = Demand(state, name, footprint)
    if not demand.fits_ever:
        return EvictionPlan(Fit.NEVER, footprint.whole, pinned=demand.pinned)
    return EvictionPlan(Fit.FITS if demand.fits_now else Fit.WAITS, footprint, pinned=demand.pinned)


def plan_eviction(state: Residency, name: str, footprint: Footprint | None = None) -> EvictionPlan:
    """Return what has to go so that ``name``, whose footprint is known, can be loaded: as little as possible.

    ``footprint`` is that of the placement which it is to have; None: of its last one.

    Victims are taken in the order of what it costs to have them back: parts of contexts, weights of parked models,
    state kept of unloaded models, idle models by ``eviction_rank``, busy models. The weights of an evicted model stay
    where there is room for them. A model that is loading or pinned is never a victim.
    """
    footprint = footprint or state.models[name].footprint or NO_FOOTPRINT
    demand = Demand(state, name, footprint)
    if not demand.fits_ever:
        return EvictionPlan(Fit.NEVER, footprint.whole, pinned=demand.pinned)
    if demand.fits_now:
        return EvictionPlan(Fit.FITS, footprint, pinned=demand.pinned)
    candidates = _candidates(state, demand)
    remaining = _remaining(state, demand, candidates)
    if remaining is None:
        # As a rule a load is under way, whose model is never a victim. There is a choice again once that is over.
        return EvictionPlan(Fit.WAITS, footprint, leaving=demand.leaving, pinned=demand.pinned, lacks_victims=True)
    plan = _plan(demand, candidates, remaining)
    return _cheaper(state, demand, candidates, plan) if state.device_budgets else plan


def _plan(demand: Demand, candidates: _Candidates, remaining: _Remaining) -> EvictionPlan:
    drains = tuple(other for other in candidates.busy if other not in remaining.models)
    return EvictionPlan(
        Fit.WAITS if drains or demand.leaving or demand.is_resizing else Fit.EVICTS,
        demand.footprint,
        shrinks=tuple(other for other in candidates.shrinkable if other in remaining.shrunk),
        frees_weights_of=tuple(other for other in candidates.parked if other not in remaining.models),
        discards=tuple(other for other in candidates.discardable if other not in remaining.kept),
        evicts=tuple(other for other in candidates.idle if other not in remaining.models),
        drains=drains,
        parks=remaining.weights,
        leaving=demand.leaving,
        pinned=demand.pinned,
    )


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Models that can give memory up, by what they give; in each list the first is the first victim.

    Attributes:
        parked: models that are parked, which free their weights.
        discardable: models that discard what was kept of them.
        idle: models that are loaded and unused.
        busy: models that are loaded and used.
        shrinkable: models that are loaded and may give back a part of their contexts.
    """

    parked: Sequence[str]
    discardable: Sequence[str]
    idle: Sequence[str]
    busy: Sequence[str]
    shrinkable: Sequence[str] = ()


def _candidates(state: Residency, demand: Demand) -> _Candidates:
    models = state.models

    def rank(name: str) -> tuple[float, int]:
        return eviction_rank(models[name], state.event_at)

    # Sorted, because the order of a set of names differs from process to process.
    movable = sorted(set(demand.resident) - set(demand.leaving) - set(demand.pinned))
    loaded = [other for other in movable if models[other].load_state is LoadState.LOADED]
    return _Candidates(
        parked=sorted(
            (other for other in movable if models[other].load_state is LoadState.PARKED),
            key=lambda other: (not models[other].is_unused, rank(other)),
        ),
        # The model reuses its own kept state once it is loaded, so that state goes last.
        discardable=sorted(
            (other for other in demand.kept if other not in demand.leaving),
            key=lambda other: (other == demand.name, models[other].last_used),
        ),
        idle=sorted((other for other in loaded if models[other].is_idle), key=rank),
        busy=sorted(
            (other for other in loaded if not models[other].is_idle),
            key=lambda other: (models[other].makes_room_since is None, rank(other)),
        ),
        shrinkable=sorted(
            (other for other in demand.resident if other not in demand.leaving and may_shrink(models[other])),
            key=lambda other: (not models[other].is_idle, models[other].last_used, other),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Remaining:
    """What stays beside the model that is to be loaded: models, kept state of models, and weights of victims."""

    models: set[str]
    kept: set[str]
    weights: tuple[str, ...] = ()
    shrunk: frozenset[str] = frozenset()


_Change = Callable[[str], None]
"""Changes what stays of a model."""


def _remaining(state: Residency, demand: Demand, candidates: _Candidates) -> _Remaining | None:
    """Return what can stay beside the model; None where it does not fit even when every candidate goes.

    Candidates go in their order until the model fits. Those that turn out to be unnecessary, because a later one was
    large enough, stay; the last victim is reconsidered first. The weights of the others stay where they fit, those of
    the last victim first.
    """
    # What was kept of a leaving model can be discarded once that model is gone.
    leaving = set(demand.leaving)
    beside = Beside(state, demand, set(demand.resident) - leaving, demand.kept.keys() - leaving)
    victims: list[tuple[_Change, _Change, str]] = []
    groups: tuple[tuple[_Change, _Change, Sequence[str]], ...] = (
        (beside.shrink, beside.restore_size, candidates.shrinkable),
        (beside.evict, beside.spare, candidates.parked),
        (beside.discard, beside.keep, candidates.discardable),
        (beside.evict, beside.spare, candidates.idle),
        (beside.evict, beside.spare, candidates.busy),
    )
    for take, give_back, others in groups:
        for other in others:
            if beside.fits:
                break
            take(other)
            victims.append((take, give_back, other))
    if not beside.fits:
        return None
    for take, give_back, other in reversed(victims):
        give_back(other)
        if not beside.fits:
            take(other)
    weights = tuple(
        other
        for other in reversed((*candidates.idle, *candidates.busy))
        if other not in beside.models and not state.models[other].is_retired and beside.park(other)
    )
    return _Remaining(beside.models, beside.kept, weights, frozenset(beside.shrunk))


def _cheaper(state: Residency, demand: Demand, candidates: _Candidates, plan: EvictionPlan) -> EvictionPlan:
    """Return a plan with other victims, if it takes MAX_DEARER times as long to have those of ``plan`` again.

    On several devices the models that are least wanted may be many that give little where it is needed. All
    combinations are compared where few models can help, else two other orders. Busy models stay unless ``plan`` drains
    some, and then those that are more urgent than its own stay.
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
            sorted(candidates.parked, key=order),
            candidates.discardable,
            sorted(candidates.idle, key=order),
            busy,
            candidates.shrinkable,
        )
        remaining = _remaining(state, demand, ordered)
        # Whatever ``plan`` evicts may go here, too.
        assert remaining is not None
        other_plan = _plan(demand, ordered, remaining)
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
    state: Residency, demand: Demand, candidates: _Candidates, helpful: Sequence[str], below_s: float
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


def room_seconds(state: Residency, plan: EvictionPlan) -> float:
    """Return what the room of a plan costs: the time of waiting for it, and that of having back what goes.

    The end of a free that has begun is not waited for long. So a plan costs no more once it is carried out in part, and
    what went for it did not go for nothing.
    """
    models = state.models
    victims = (*plan.evicts, *plan.drains)
    seconds = sum(reload_seconds(models[other], has_weights=other in plan.parks) for other in victims)
    seconds += sum(reload_seconds(models[other], has_weights=False) for other in plan.frees_weights_of)
    if plan.drains or plan.lacks_victims or _is_busy(state, plan.leaving):
        seconds += _drain_seconds(state)
    return seconds


def _is_busy(state: Residency, leaving: Iterable[str]) -> bool:
    """Whether any of the models whose unload has begun still serves."""
    return any(state.models[other].load_state is LoadState.LOADED for other in leaving)


def _drain_seconds(state: Residency) -> float:
    """Return how long a busy model is assumed to be waited for."""
    return state.policy.min_residency_s + state.policy.drain_s

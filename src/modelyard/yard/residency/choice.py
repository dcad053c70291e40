"""Which placement a model gets: the one that costs least time, with what has to go for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import takewhile
from typing import NamedTuple

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.eviction import (
    EvictionPlan,
    Fit,
    plan_eviction,
    room_seconds,
)
from modelyard.yard.residency.expected_cost import cold_load_seconds
from modelyard.yard.residency.growth import plan_sized
from modelyard.yard.residency.room import footprint_of
from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, ModelState, Residency

NOMINAL_TOKENS = 1000
"""Tokens that a model is assumed to compute between two loads: what a slower placement costs."""


def plan_load(state: Residency, name: str) -> EvictionPlan:
    """Return how ``name``, whose footprint is known, is loaded: in which placement, and what has to go for it.

    Of all placements the one is chosen that costs the least time; of equal ones the fastest. A parked model wakes where
    its weights are, unless it does not fit there any longer.
    """
    model = state.models[name]
    choices = model.choices
    last = footprint_of(model)
    if len(choices) < 2:
        return plan_sized(state, name, last)
    if model.load_state is LoadState.PARKED and (present := plan_sized(state, name, last)).fit is not Fit.NEVER:
        return present
    fastest_s = min(choice.token_s for choice in choices)
    best, least_s = None, math.inf
    for choice in choices:
        if slowness_seconds(choice, fastest_s) >= least_s:
            # Even without anything going for it, it would cost more. What has to go is costly to find out.
            continue
        plan = plan_sized(state, name, choice)
        if plan.fit is Fit.NEVER:
            continue
        cost_s = placing_seconds(state, plan, fastest_s)
        if cost_s < least_s:
            best, least_s = plan, cost_s
        if plan.fit is Fit.FITS:
            # Those behind it are slower, and can save nothing.
            break
    return best or plan_sized(state, name, last)


def placing_seconds(state: Residency, plan: EvictionPlan, fastest_s: float) -> float:
    """Return what a plan costs: the time that its slowness takes, that of waiting, and that of having back what goes.

    Args:
        state: in which it was made.
        plan: of a placement that fits the budgets.
        fastest_s: seconds that a token takes in the fastest placement.
    """
    return slowness_seconds(plan.footprint, fastest_s) + room_seconds(state, plan)


def slowness_seconds(choice: Footprint, fastest_s: float) -> float:
    """Return the time that a placement costs by being slower than the fastest, where a token takes ``fastest_s``."""
    return NOMINAL_TOKENS * (choice.token_s - fastest_s)


def plan_move(state: Residency, name: str) -> EvictionPlan | None:
    """Return the fastest placement of ``name`` that fits without anything going; None where there is none now."""
    plans = (plan_eviction(state, name, choice) for choice in state.models[name].choices)
    return next((plan for plan in plans if plan.fit is Fit.FITS), None)


def gains_by_moving(model: ModelState) -> bool:
    """Whether the model would save more time in its fastest placement than the move there takes, twice over."""
    return model.footprint is not None and _saves_enough(model, model.footprint, model.choices[0])


def best_move(state: Residency, names: Iterable[str]) -> tuple[str, Footprint] | None:
    """Return the model that gains most by a faster placement, and that placement; None where there is none.

    Args:
        state: of all models.
        names: of loaded, unused models with several placements. Their memory is given back before they are loaded in
            another one, which has to fit without anything else going.
    """
    best: tuple[str, Footprint] | None = None
    most_saved_s, room = 0.0, None
    for name in names:
        model = state.models[name]
        present = model.footprint
        if present is None or not gains_by_moving(model):
            continue
        room = room or _Room.of(state)
        choice = _move_of(state, name, present, room)
        if choice is not None and present.token_s - choice.token_s > most_saved_s:
            best, most_saved_s = (name, choice), present.token_s - choice.token_s
    return best


def _move_of(state: Residency, name: str, present: Footprint, room: _Room) -> Footprint | None:
    """Return the fastest placement that has room, of those that save enough; None where there is none."""
    model = state.models[name]
    worthwhile = takewhile(lambda choice: _saves_enough(model, present, choice), model.choices)
    return next(
        (
            choice
            for choice in worthwhile
            if room.may_hold(choice, present) and plan_eviction(state, name, choice).fit is Fit.FITS
        ),
        None,
    )


def _saves_enough(model: ModelState, present: Footprint, choice: Footprint) -> bool:
    saved_s = NOMINAL_TOKENS * (present.token_s - choice.token_s)
    return saved_s > 2 * cold_load_seconds(model)


class _Room(NamedTuple):
    """What is free of each device: a cheap test that rules most moves out in each step of a server.

    Attributes:
        free: bytes by pool.
        weights: pools and keys of the weights that are on devices.
    """

    free: Mapping[str, int]
    weights: AbstractSet[tuple[str, str]]

    @classmethod
    def of(cls, state: Residency) -> _Room:
        resident = state.resident()
        taken = state.taken(resident, state.weights_alone())
        footprints = (state.models[name].footprint or NO_FOOTPRINT for name in resident)
        return cls(
            {pool: size - taken.get(pool, 0) for pool, size in state.device_budgets.items()},
            {(share.pool, share.weights_key) for footprint in footprints for share in footprint.devices},
        )

    def may_hold(self, choice: Footprint, present: Footprint) -> bool:
        """Whether the devices may hold ``choice`` once ``present`` is given back; the host is not looked at."""
        free = dict(self.free)
        for share in present.devices:
            free[share.pool] = free.get(share.pool, 0) + share.total_bytes
        for share in choice.devices:
            is_there = (share.pool, share.weights_key) in self.weights
            free[share.pool] = free.get(share.pool, 0) - share.context_bytes - (0 if is_there else share.weights_bytes)
        return all(free[share.pool] >= 0 for share in choice.devices)

"""Which placement a model gets: the one that costs least time, with what has to go for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.eviction import (
    EvictionPlan,
    Fit,
    cold_load_seconds,
    plan_eviction,
    wake_seconds,
)
from modelyard.yard.residency.state import LoadState, Residency

NOMINAL_TOKENS = 1000
"""Tokens that a model is assumed to compute between two loads: what a slower placement costs."""


def plan_load(state: Residency, name: str) -> EvictionPlan:
    """Return how ``name``, whose footprint is known, is loaded: in which placement, and what has to go for it.

    Of all placements the one is chosen that costs the least time; of equal ones the fastest. A parked model wakes where
    its weights are, unless it does not fit there any longer.
    """
    model = state.models[name]
    present = plan_eviction(state, name)
    choices = model.choices
    is_parked_well = model.load_state is LoadState.PARKED and present.fit is not Fit.NEVER
    if len(choices) < 2 or is_parked_well:
        return present
    fastest_s = min(choice.token_s for choice in choices)
    best, least_s = present, float("inf")
    for plan in _plans(state, name, choices):
        cost_s = placing_seconds(state, plan, fastest_s)
        if cost_s < least_s:
            best, least_s = plan, cost_s
        if plan.fit is Fit.FITS:
            # Those behind it are slower, and can save nothing.
            break
    return best


def _plans(state: Residency, name: str, choices: Iterable[Footprint]) -> Iterable[EvictionPlan]:
    for choice in choices:
        plan = plan_eviction(state, name, choice)
        if plan.fit is not Fit.NEVER:
            yield plan


def placing_seconds(state: Residency, plan: EvictionPlan, fastest_s: float) -> float:
    """Return what a plan costs: the time that its slowness takes, that of waiting, and that of having back what goes.

    Args:
        state: in which it was made.
        plan: of a placement that fits the budgets.
        fastest_s: seconds that a token takes in the fastest placement.
    """
    models, policy = state.models, state.policy
    slowness_s = NOMINAL_TOKENS * (plan.footprint.token_s - fastest_s)
    reload_s = sum(
        wake_seconds(models[other]) if other in plan.parks else cold_load_seconds(models[other])
        for other in (*plan.evicts, *plan.drains)
    )
    reload_s += sum(cold_load_seconds(models[other]) for other in plan.frees_weights_of)
    wait_s = 0.0
    if plan.drains:
        wait_s = policy.min_residency_s + policy.drain_s
    elif plan.fit is Fit.WAITS:
        wait_s = policy.drain_s
    return slowness_s + reload_s + wait_s


def plan_move(state: Residency, name: str) -> EvictionPlan | None:
    """Return the fastest placement of ``name`` that fits without anything going; None where there is none now."""
    return next((plan for plan in _plans(state, name, state.models[name].choices) if plan.fit is Fit.FITS), None)


def faster_placement(state: Residency, name: str) -> Footprint | None:
    """Return the placement that a loaded, unused model should move to, once it has given its memory back; None: none.

    It must fit without anything else going, and save more time than the move takes, twice over.
    """
    model = state.models[name]
    if model.footprint is None or len(model.choices) < 2:
        return None
    present_s = model.footprint.token_s
    for choice in model.choices:
        if choice.token_s >= present_s:
            return None
        saved_s = NOMINAL_TOKENS * (present_s - choice.token_s)
        if saved_s > 2 * cold_load_seconds(model) and plan_eviction(state, name, choice).fit is Fit.FITS:
            return choice
    return None

"""How large the context of a model is made, when it is loaded and while it serves. Pure.

``max_seq_len`` is a promise: a model is loaded only if its whole context fits beside the whole contexts of the pinned
models (``room.Demand.fits_ever``), so each request can have the context that it needs once other models have made room.
A load begins with what its waiters need. Contexts shrink before any model has to go (``eviction``).
"""

from __future__ import annotations

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.eviction import EvictionPlan, Fit, plan_eviction, plan_without_eviction
from modelyard.yard.residency.room import footprint_of
from modelyard.yard.residency.state import ModelState, Residency


def least_footprint(model: ModelState, placed: Footprint) -> Footprint:
    """Return the footprint ``placed`` with a context for the first request that waits, in its engine or for it."""
    if model.growth is not None:
        return placed.with_cells(model.growth.needed)
    return placed.with_cells(next((waiter.cells for waiter in model.queue if waiter.is_request), 0))


def plan_growth(state: Residency, name: str) -> EvictionPlan:
    """Return how a model gets the context that it waits for: as large as it would use, where that is free."""
    model = state.models[name]
    assert model.growth is not None
    needed = least_footprint(model, footprint_of(model))
    larger = largest_free(state, name, needed, model.growth.desired)
    return plan_eviction(state, name, needed) if larger is None else EvictionPlan(Fit.FITS, larger)


def plan_sized(state: Residency, name: str, placed: Footprint) -> EvictionPlan:
    """Return how a model is loaded in the placement of ``placed``, with a context for those who wait for it.

    It is as large as they need together, where that is free, and else as the first of them needs.
    """
    if not placed.sizes:
        return plan_eviction(state, name, placed)
    model = state.models[name]
    waiting = [waiter.cells for waiter in model.queue if waiter.is_request][: model.policy.max_running]
    least = least_footprint(model, placed)
    larger = largest_free(state, name, least, sum(waiting))
    return plan_eviction(state, name, least) if larger is None else EvictionPlan(Fit.FITS, larger)


def largest_free(state: Residency, name: str, above: Footprint, cells: int) -> Footprint | None:
    """Return the footprint with the largest context of up to ``cells`` that is larger than ``above``, and fits now."""
    most = above.with_cells(cells).cells
    for size in reversed(above.sizes):
        if above.cells < size.cells <= most:
            larger = above.with_cells(size.cells)
            if plan_without_eviction(state, name, larger).fit is Fit.FITS:
                return larger
    return None

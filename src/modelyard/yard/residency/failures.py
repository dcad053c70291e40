"""Models that cannot be loaded: they fail, and all requests for them are refused until a back-off is over."""

from __future__ import annotations

import math

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.builder import StateBuilder, load_failure
from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.eviction import Fit
from modelyard.yard.residency.state import LoadState, ModelState

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
# The longest back-off is reached long before; without a bound, 2.0 ** 1024 overflows a float.
_MAX_DOUBLINGS = 16


def fail(builder: StateBuilder, name: str, model: ModelState, reason: str) -> None:
    """Fail the model: refuse those who wait for it, with the reason; complete unloads."""
    backoff = min(FIRST_BACKOFF_S * 2.0 ** min(model.failures, _MAX_DOUBLINGS), MAX_BACKOFF_S)
    # A model that is sized again may have kept prompts, which no engine has read.
    prefix_bytes = model.prefix_bytes if model.load_state is LoadState.SIZING else 0
    failed = emptied(model, LoadState.FAILED)._replace(
        prefix_bytes=prefix_bytes,
        # The files may be others by the next attempt.
        footprint=None,
        choices=(),
        has_fallen_back=False,
        reason=reason,
        failures=model.failures + 1,
        retry_at=builder.state.now + backoff,
    )
    builder.set_model(name, failed)
    # A load that was tried again for the same waiters might fail for ever.
    builder.refuse_queue(name, load_failure(builder, failed))


def emptied(model: ModelState, load_state: LoadState) -> ModelState:
    """Return the model in ``load_state``, without its engine, weights and prompts."""
    return model._replace(
        load_state=load_state,
        prefix_bytes=0,
        promised_bytes=0,
        loaded_at=math.inf,
        makes_room_since=None,
        was_parked=False,
        was_serving=False,
        is_stale=False,
        growth=None,
        resizing=None,
        footprint=None if model.is_stale else model.footprint,
        choices=() if model.is_stale else model.choices,
        has_fallen_back=model.has_fallen_back and not model.is_stale,
    )


def may_fall_back(model: ModelState) -> bool:
    """Whether a load that failed for memory of a device is tried once more, in another placement."""
    uses_devices = model.footprint is not None and bool(model.footprint.devices)
    is_loading = model.load_state is LoadState.LOADING
    return is_loading and uses_devices and len(model.choices) > 1 and not model.has_fallen_back


def fall_back(builder: StateBuilder, name: str, model: ModelState, reason: str) -> None:
    """Have the model loaded elsewhere: where it failed it counts as larger than what was free there.

    It fails, for ``reason``, where it fits nowhere else.
    """
    assert model.footprint is not None
    state = builder.state
    taken = state.taken(state.resident(), state.weights_alone() - {name})
    spare = {share.pool: state.budget_of(share.pool) - taken[share.pool] for share in model.footprint.devices}
    corrected = with_corrected(model, model.footprint.without_room(spare))
    builder.set_model(name, emptied(corrected, LoadState.UNLOADED)._replace(has_fallen_back=True))
    if plan_load(builder.state, name).fit is Fit.NEVER:
        fail(builder, name, model, reason)


def outgrow(builder: StateBuilder, name: str, model: ModelState, footprint: Footprint) -> None:
    """Have it decided again where the model is loaded, by what it takes in the placement of ``footprint``."""
    if model.load_state is LoadState.LOADING:
        # What was kept of its prompts is not read yet, and stays for the next load.
        unloaded = emptied(with_corrected(model, footprint), LoadState.UNLOADED)
        builder.set_model(name, unloaded._replace(prefix_bytes=model.prefix_bytes))


def with_corrected(model: ModelState, footprint: Footprint) -> ModelState:
    """Return the model with the footprint of its present placement replaced."""
    choices = tuple(footprint if each.placement == footprint.placement else each for each in model.choices)
    return model._replace(footprint=footprint, choices=choices)


def was_sound(model: ModelState, now: float) -> bool:
    """Whether the model's engine has served for so long that its next failure counts as the first."""
    return now - model.loaded_at >= MAX_BACKOFF_S

"""Models that cannot be had: they fail, their line is refused, and requests are refused until a back-off is over."""

from __future__ import annotations

import math

from modelyard.yard.residency.builder import StateBuilder, load_failure
from modelyard.yard.residency.state import LoadState, ModelState

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
# More of them say nothing: the longest back-off is reached long before, and floats end at 1024.
_MAX_DOUBLINGS = 16


def fail(builder: StateBuilder, name: str, model: ModelState, reason: str) -> None:
    """The model is not there. Those who waited for it hear why; unloads have what they wanted."""
    backoff = min(FIRST_BACKOFF_S * 2.0 ** min(model.failures, _MAX_DOUBLINGS), MAX_BACKOFF_S)
    failed = emptied(model, LoadState.FAILED)._replace(
        # The files may have been replaced by the next attempt.
        footprint=None,
        reason=reason,
        failures=model.failures + 1,
        retry_at=builder.state.now + backoff,
    )
    builder.set_model(name, failed)
    # Tried again for the same callers, a load might fail for ever.
    builder.refuse_queue(name, load_failure(builder, failed))


def emptied(model: ModelState, load_state: LoadState) -> ModelState:
    """The model without an engine, its weights and its prompts, in ``load_state``."""
    return model._replace(
        load_state=load_state,
        prefix_bytes=0,
        promised_bytes=0,
        loaded_at=math.inf,
        draining_since=None,
        was_parked=False,
        was_serving=False,
        is_stale=False,
        footprint=None if model.is_stale else model.footprint,
    )


def was_sound(model: ModelState, now: float) -> bool:
    """Whether the model's engine has served for so long that its next failure is the first one."""
    return now - model.loaded_at >= MAX_BACKOFF_S

"""Deaths of engines: which requests go on, which are suspected and blamed, and when a model is no longer restarted.

The requests that an engine was computing when it died are suspects: the next engine computes each of them alone, until
it has a token for it. A suspect that was active again when an engine died is blamed: it ends, and requests of the same
content are refused for a while. All other requests go on, up to ``MAX_DEATHS_SURVIVED`` deaths each.
"""

from __future__ import annotations

from modelyard.errors import EngineError, HarmfulRequest
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.effects import Blame
from modelyard.yard.residency.events import EngineDying
from modelyard.yard.residency.failures import emptied, fail, was_sound
from modelyard.yard.residency.state import LoadState, ModelState
from modelyard.yard.residency.waiting import RequestId

MAX_DEATHS_IN_ROW = 5
"""Deaths in a row after which a model fails, until its back-off is over."""

MAX_DEATHS_WHILE_LOADING = 3
"""Deaths in a row while loading after which a model fails: such an engine has served no request."""

MAX_DEATHS_SURVIVED = 5
"""Deaths after which a request ends that held a lease at each of them, whatever the cause is."""

POISON_S = 600.0
"""Seconds for which the content of a blamed request is refused."""


def begin_to_die(builder: StateBuilder, model: ModelState, event: EngineDying) -> None:
    """Note that the engine is dying: suspect the requests that may be the cause, and blame those that are."""
    if model.load_state is LoadState.LOADED:
        model = model._replace(load_state=LoadState.FREEING, was_serving=True, makes_room_since=None, growth=None)
    elif model.load_state is not LoadState.FREEING:
        # An engine that does not serve yet holds no leases: its death alone is handled.
        return
    active = {request: content for request, content in event.active if request in model.leases}
    blamed = model.suspects & active.keys()
    survived = {request: model.deaths_survived.get(request, 0) + 1 for request in model.leases}
    model = model._replace(
        reason=event.reason,
        leases={request: priority for request, priority in model.leases.items() if request not in blamed},
        deaths_survived={**model.deaths_survived, **survived},
        # Where a request is blamed, the others that were active become no suspects.
        suspects=model.suspects if blamed else model.suspects | active.keys(),
    )
    builder.set_model(event.model, model)
    for request in sorted(blamed):
        builder.poison(active[request], POISON_S)
        builder.effects.append(Blame(event.model, request, HarmfulRequest(model.policy.name, event.reason, POISON_S)))


def outlived(model: ModelState, request: RequestId) -> EngineError | None:
    """Return the error of a suspended request that has survived too many deaths; None where it goes on."""
    deaths = model.deaths_survived.get(request, 0)
    if deaths < MAX_DEATHS_SURVIVED:
        return None
    return EngineError(model.policy.name, f"it died {deaths} times while it had this request ({model.reason})")


def die(builder: StateBuilder, name: str, model: ModelState, reason: str) -> None:
    """Note that the engine is gone and its memory free: load again for those who wait, unless too many have died."""
    now, is_loading = builder.state.now, model.load_state is LoadState.LOADING
    if not is_loading and model.load_state not in (LoadState.LOADED, LoadState.FREEING):
        return
    if not is_loading and was_sound(model, now):
        model = model._replace(failures=0, deaths_in_row=0)
    model = model._replace(restarts=model.restarts + 1, last_death=reason)
    if not model.is_stale:
        # A death by files that were written over is no sign of a fault of the model.
        model = model._replace(
            deaths_in_row=model.deaths_in_row + 1,
            deaths_while_loading=model.deaths_while_loading + 1 if is_loading else 0,
        )
    if model.is_stale or (model.load_state is LoadState.FREEING and not model.was_serving):
        # The model was being freed in any case.
        builder.set_model(name, emptied(model, LoadState.UNLOADED)._replace(reason=""))
    elif model.deaths_in_row >= MAX_DEATHS_IN_ROW or model.deaths_while_loading >= MAX_DEATHS_WHILE_LOADING:
        fail(builder, name, model, reason)
    else:
        builder.set_model(name, emptied(model, LoadState.FAILED)._replace(reason=reason, retry_at=now))

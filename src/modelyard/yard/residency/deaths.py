"""Deaths of engines: which requests go on, which are suspected and blamed, and when a model is given up.

The requests that an engine was computing when it died are suspects: the next engine computes each of them alone, until
it has a token for it. A suspect that was active again when an engine died is to blame: it ends, and requests of the
same content are refused for a while. All others go on, however many engines die, up to a bound of their own.
"""

from __future__ import annotations

from modelyard.errors import EngineError, HarmfulRequest
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.events import Blame, EngineDying
from modelyard.yard.residency.failures import emptied, fail, was_sound
from modelyard.yard.residency.state import LoadState, ModelState, RequestId

MAX_DEATHS_IN_ROW = 5
"""With the last of them a model is given up, until its back-off is over."""

MAX_DEATHS_WHILE_LOADING = 3
"""The same of engines that died while they loaded, which nobody has been served by."""

MAX_DEATHS_SURVIVED = 5
"""A request that goes through so many ends: whatever the cause is, it has held an engine long enough."""

POISON_S = 600.0
"""How long the content of a request that was blamed is refused."""


def begin_to_die(builder: StateBuilder, model: ModelState, event: EngineDying) -> None:
    """The engine hears nothing any more: find out which of its requests may be the cause, and which is."""
    if model.load_state is LoadState.LOADED:
        model = model._replace(load_state=LoadState.FREEING, was_serving=True, draining_since=None)
    elif model.load_state is not LoadState.FREEING:
        # Of one that did not serve yet, its death is soon enough: nobody took it for one that does.
        return
    active = {request: content for request, content in event.active if request in model.leases}
    blamed = model.suspects & active.keys()
    survived = {request: model.deaths_survived.get(request, 0) + 1 for request in model.leases}
    model = model._replace(
        reason=event.reason,
        leases={request: priority for request, priority in model.leases.items() if request not in blamed},
        deaths_survived={**model.deaths_survived, **survived},
        # Beside one that is to blame, the others are none the more suspicious.
        suspects=model.suspects if blamed else model.suspects | active.keys(),
    )
    builder.set_model(event.model, model)
    for request in sorted(blamed):
        builder.poison(active[request], POISON_S)
        builder.effects.append(Blame(event.model, request, HarmfulRequest(model.policy.name, event.reason, POISON_S)))


def outlived(model: ModelState, request: RequestId) -> EngineError | None:
    """Why a request that is suspended does not go on: it has been through too many deaths; None where it does."""
    deaths = model.deaths_survived.get(request, 0)
    if deaths < MAX_DEATHS_SURVIVED:
        return None
    return EngineError(model.policy.name, f"it died {deaths} times while it had this request ({model.reason})")


def die(builder: StateBuilder, name: str, model: ModelState, reason: str) -> None:
    """The engine is gone, and its memory free: try again for those who wait, unless too many have died."""
    now, is_loading = builder.state.now, model.load_state is LoadState.LOADING
    if not is_loading and model.load_state not in (LoadState.LOADED, LoadState.FREEING):
        return
    if not is_loading and was_sound(model, now):
        model = model._replace(failures=0, deaths_in_row=0)
    model = model._replace(restarts=model.restarts + 1, last_death=reason)
    if not model.is_stale:
        # Of files that were written over an engine dies whatever the model is worth.
        model = model._replace(
            deaths_in_row=model.deaths_in_row + 1,
            deaths_while_loading=model.deaths_while_loading + 1 if is_loading else 0,
        )
    if model.is_stale or (model.load_state is LoadState.FREEING and not model.was_serving):
        # It was to go in any case.
        builder.set_model(name, emptied(model, LoadState.UNLOADED)._replace(reason=""))
    elif model.deaths_in_row >= MAX_DEATHS_IN_ROW or model.deaths_while_loading >= MAX_DEATHS_WHILE_LOADING:
        fail(builder, name, model, reason)
    else:
        builder.set_model(name, emptied(model, LoadState.FAILED)._replace(reason=reason, retry_at=now))

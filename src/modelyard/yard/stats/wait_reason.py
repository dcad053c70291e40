"""Why a request waits, in words: what its model does, or what holds the memory that it needs. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from modelyard.system.quantities import duration_text
from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.eviction import Fit
from modelyard.yard.residency.expected_cost import load_seconds
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.stats.log_lines import lacking
from modelyard.yard.stats.request_phases import PhaseKind

_LINE: Final = "Requests before it have the places of the model"


class WaitReason(NamedTuple):
    """Why a request waits.

    Attributes:
        kind: the phase that it is in.
        text: a sentence without its full stop.
        models: ids of other models that it is about.
    """

    kind: PhaseKind
    text: str
    models: tuple[str, ...] = ()


def wait_reason(state: Residency, name: str) -> WaitReason:
    """Return what requests in the queue of a model wait for."""
    model = state.models[name]
    match model.load_state:
        case LoadState.LOADED:
            return WaitReason("waiting", _of_loaded(model))
        case LoadState.SIZING:
            return WaitReason("loading", "The files of the model are looked for, and their headers read")
        case LoadState.LOADING:
            again = " again, from weights that are parked" if model.was_parked else ""
            return WaitReason("loading", f"The model is loading{again}")
        case LoadState.FREEING:
            why = "Its engine died, and is started again" if model.was_serving else "The model is being unloaded first"
            return WaitReason("waiting", why)
        case LoadState.UNLOADED | LoadState.PARKED | LoadState.FAILED:
            return _of_absent(state, name)


def _of_loaded(model: ModelState) -> str:
    if model.makes_room_since is not None:
        return "The model makes room for another one, and comes back after it"
    if model.has_unload_next:
        return "The model is being unloaded first"
    return _LINE


def _of_absent(state: Residency, name: str) -> WaitReason:
    model = state.models[name]
    if model.first is None:
        return WaitReason("waiting", "The model was unloaded on purpose; the request goes on when it is loaded again")
    if model.load_state is LoadState.FAILED and state.now < model.retry_at:
        retry = duration_text(model.retry_at - state.now)
        return WaitReason("waiting", f"The last load of the model failed, and it is tried again in {retry}")
    if model.footprint is None:
        return WaitReason("loading", "The files of the model are yet to be looked for")
    plan = plan_load(state, name)
    if plan.fit is Fit.FITS:
        return WaitReason("loading", f"The model is to be loaded, in about {duration_text(load_seconds(model))}")
    holders = [*plan.leaving, *plan.evicts, *plan.drains]
    if not holders:
        # Nothing can be planned while others load, or what holds the memory stays for now.
        holders = [other for other in state.resident() if other != name]
    models = tuple(dict.fromkeys(state.models[other].policy.name for other in holders))
    return WaitReason("waiting", f"The model waits for memory: {lacking(state, name, plan.footprint)}; held by", models)

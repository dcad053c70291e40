"""A model as listings show it, and what a load of it would do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.hub import Kind
from modelyard.hub.sources.listing import Progress
from modelyard.yard.requests.context import OTHER_MODELS, Caller
from modelyard.yard.residency.eviction import Fit, load_seconds, plan_eviction
from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, ModelState, Residency, WaitKind

Status = Literal["loaded", "unloaded", "reloading"]

STATUS: dict[LoadState, Status] = {
    LoadState.UNLOADED: "unloaded",
    LoadState.SIZING: "reloading",
    LoadState.LOADING: "reloading",
    LoadState.LOADED: "loaded",
    LoadState.FREEING: "unloaded",
    LoadState.PARKED: "unloaded",
    LoadState.FAILED: "unloaded",
}


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model as a listing shows it.

    kind is None until its files were looked at. context_length (tokens), quantization, size_bytes (of the weights),
    can_chat (it has a chat template), can_reason (it thinks before it answers), can_fill (it fills gaps in text)
    and architecture are None until it was loaded once, and so are dimensions (of an embedding), which other models
    do not have. can_see (it takes images) and can_hear (it takes sound) are None until its files were looked at,
    and so is memory_bytes, what it takes when it is loaded, of which shared_bytes are those of weights that another
    loaded model uses too. The weights of an unloaded model that is_parked are in memory. warnings say what it
    cannot do here although its makers promise it. reason is why its last load, or its engine, failed. restarts is
    how many of its engines have died since the server began, and last_death why the last one did. The engine of a
    model that is_isolated runs, or ran last, in a process of its own. progress is how far its preparation or its
    load is; None while there is none. leaves_in_s is when it is unloaded if nothing more is asked of it; None where
    only the need for room unloads it.
    """

    id: str
    aliases: tuple[str, ...]
    kind: Kind | None
    status: Status
    is_default: bool
    created: int
    context_length: int | None
    quantization: str | None
    size_bytes: int | None
    can_chat: bool | None
    architecture: str | None
    dimensions: int | None
    can_see: bool | None
    can_hear: bool | None
    can_reason: bool | None
    can_fill: bool | None
    reason: str | None
    memory_bytes: int | None
    shared_bytes: int
    is_pinned: bool
    is_parked: bool
    load_s: float | None
    warnings: tuple[str, ...] = ()
    leaves_in_s: float | None = None
    progress: Progress | None = None
    restarts: int = 0
    last_death: str | None = None
    is_isolated: bool = False


def memory_of(state: Residency, name: str) -> tuple[int | None, int]:
    """What a model takes, and how much of it are weights that it shares with others that are loaded, in bytes."""
    footprint = state.models[name].footprint
    if footprint is None:
        return None, 0
    if not state.models[name].is_resident:
        return footprint.total_bytes, 0
    others = (state.models[other].footprint or NO_FOOTPRINT for other in state.resident() if other != name)
    shared = {key for other in others for key in other.weights}
    return footprint.total_bytes, sum(size for key, size in footprint.weights.items() if key in shared)


def leaves_in_s(model: ModelState, now: float) -> float | None:
    """When a loaded model is unloaded if nothing more is asked of it; None: only the need for room unloads it."""
    if model.policy.is_pinned or model.load_state is not LoadState.LOADED or model.idle_unload_s == math.inf:
        return None
    return max(0.0, model.last_used + model.idle_unload_s - now) if model.is_unused else model.idle_unload_s


@dataclass(frozen=True, slots=True)
class Eviction:
    """A model that would go, and why it is that one."""

    model: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load of a model would do now.

    Attributes:
        model: its id.
        outcome: "loaded" and "loading" need no plan; "fits", "evicts", "waits", "never" as ``room.Outcome``.
        needed_bytes: what it takes beside those that stay; weights that one of them has already, or that are parked,
            are not taken again.
        free_bytes, budget_bytes: what is left now, and of how much.
        evicts: what would go.
        load_s: how long the load takes, as measured last, else guessed.
    """

    model: str
    outcome: str
    needed_bytes: int
    free_bytes: int
    budget_bytes: int
    evicts: tuple[Eviction, ...]
    load_s: float

    def visible_to(self, caller: Caller) -> Plan:
        """The same as ``caller`` may know it: models that it must not know of are one, without a name."""
        hidden = [gone for gone in self.evicts if not caller.may_use(gone.model)]
        if not hidden:
            return self
        count = "one model" if len(hidden) == 1 else f"{len(hidden)} models"
        together = Eviction(OTHER_MODELS, sum(gone.bytes for gone in hidden), f"{count} that this key may not see")
        return replace(self, evicts=(*(gone for gone in self.evicts if caller.may_use(gone.model)), together))


def plan(state: Residency, name: str) -> Plan:
    """What a load of ``name``, whose footprint is known, would do now. Pure, and without effect."""
    model = state.models[name]
    room = plan_eviction(state, name)
    outcome = room.fit.value
    if model.load_state is LoadState.LOADED:
        outcome = "loaded"
    elif model.load_state is LoadState.LOADING:
        outcome = "loading"
    staying = set(room.pinned if room.fit is Fit.NEVER else state.resident()) - {name}
    alone = state.weights_alone() - {name}
    evicts: list[Eviction] = []
    if outcome in (Fit.EVICTS.value, Fit.WAITS.value):
        evicts += (Eviction(state.models[n].policy.name, state.models[n].kept_bytes, KEPT) for n in room.discards)
        whys = {
            **dict.fromkeys(room.frees_weights_of, "is parked; its weights go"),
            **{other: _idle_since(state, state.models[other]) for other in room.evicts},
            **dict.fromkeys(room.drains, "is busy; its requests pause until it is back"),
            **dict.fromkeys(room.leaving, "is being unloaded already"),
        }
        for other, why in whys.items():
            # Of weights that several have, the last to go gives them back.
            taken = state.taken_bytes(staying, alone)
            if other in room.parks:
                alone.add(other)
                why += "; its weights stay"
            else:
                staying.discard(other)
            freed = taken - state.taken_bytes(staying, alone)
            evicts.append(Eviction(state.models[other].policy.name, freed, why))
    own = {name} if model.has_only_weights else set()
    there = state.taken_bytes(staying | own, alone | own)
    return Plan(
        model=model.policy.name,
        outcome=outcome,
        needed_bytes=state.taken_bytes(staying | {name}, alone) - there,
        free_bytes=max(0, state.budget_bytes - state.used_bytes),
        budget_bytes=state.budget_bytes,
        evicts=tuple(evicts),
        load_s=0.0 if outcome == "loaded" else load_seconds(model),
    )


KEPT = "is unloaded; what was kept of its prompts is dropped"


def _idle_since(state: Residency, model: ModelState) -> str:
    return f"idle for {state.now - model.last_used:.0f} s, back in about {load_seconds(model):.1f} s"


def stage(state: Residency, name: str, progress: float) -> str:
    """What a request for the model waits for, in a few words; "" where the model is there and serves."""
    model = state.models[name]
    match model.load_state:
        case LoadState.LOADED:
            return "making room" if model.draining_since is not None else ""
        case LoadState.LOADING:
            return f"loading {progress:.0%}"
        case LoadState.SIZING:
            return "reading files"
        case LoadState.FREEING:
            return "starting again" if model.was_serving else "unloading"
        case LoadState.UNLOADED | LoadState.PARKED | LoadState.FAILED:
            wants_memory = model.first is not None and model.first.wants_load
            return "waiting for memory" if wants_memory else "waiting for its model"


def after_death(state: Residency, model: ModelState) -> str:
    """What is done for a model whose engine has just died, for the log."""
    if model.load_state is LoadState.FAILED and state.now < model.retry_at:
        deaths, retry_s = model.deaths_in_row, model.retry_at - state.now
        return f"death {deaths} in a row, it is not started again before {retry_s:.0f} s have passed"
    if model.first is None or not model.first.wants_load:
        return "it is started again when it is asked for"
    going_on = sum(wish.kind is WaitKind.RESUME for wish in model.queue)
    return f"starting it again, {'1 request goes' if going_on == 1 else f'{going_on} requests go'} on"

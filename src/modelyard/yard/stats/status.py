"""A model as listings show it, and what a load of it would do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from modelyard.hub import Kind
from modelyard.hub.sources.listing import Progress
from modelyard.protocol.placement import HOST_NAME
from modelyard.protocol.prompts import Sampling
from modelyard.remote.engine import AddressStatus
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.requests.context import OTHER_MODELS, Caller
from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.eviction import EvictionPlan, Fit, plan_eviction
from modelyard.yard.residency.expected_cost import load_seconds
from modelyard.yard.residency.room import footprint_of
from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import WaitKind
from modelyard.yard.stats.device_memory import device_uses, of_devices
from modelyard.yard.stats.nodes import ModelOnNode
from modelyard.yard.stats.placement_text import text_beside_devices

Status = Literal["loaded", "unloaded", "reloading"]

FileState = Literal["here", "remote", "unusable"]
"""Whether the files of a model are on this machine, are yet to be downloaded, or cannot be served."""

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
class AdapterStatus:
    """An adapter of a model, as listings show it.

    Attributes:
        id: of the model with the adapter.
        name: its name.
        scale: its configured scale.
        applied_scale: scale for requests that name no adapter; 0: they are computed without it.
        file: name of its file, without the folder.
        alias: another name of the model with it.
        size_bytes: size of its matrices; None until its file was read.
    """

    id: str
    name: str
    scale: float
    applied_scale: float
    file: str
    alias: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The status of a model, as listings show it.

    Attributes:
        id: its id.
        aliases: further names that route to it.
        kind: what it does; None until its files were read.
        status: whether it serves.
        is_default: whether it answers requests that name no model.
        created: when the yard was made, in seconds of the epoch.
        context_length: tokens of its context; None until it was loaded once.
        context_reason: why its context is so long, where that was chosen by what fits; "" where it was not.
        context_allocated: tokens that its context has memory for now, which become more as they are needed; None where
            it is not loaded, or always has memory for all.
        quantization: type of its weights; None until it was loaded once.
        size_bytes: size of its weights; None until it was loaded once.
        can_chat: whether it has a chat template; None until it was loaded once.
        architecture: as the header of its file names it; None until it was loaded once.
        dimensions: of an embedding; None until it was loaded once, and for models that do not embed.
        can_see, can_hear: whether it takes images, and sound; None until its files were read.
        can_reason: whether it reasons before it answers; None until it was loaded once.
        can_fill: whether it fills gaps in text; None until it was loaded once.
        reason: why its last load or its engine failed; None where neither did.
        predicted_bytes: memory that it takes when it is loaded, by its header or as its last load measured; None until
            its files were read.
        resident_bytes: memory that it takes now: 0 for an unloaded model, the weights alone for a parked one.
        shared_bytes: the part of ``resident_bytes`` that are weights which another loaded model uses, too.
        device_bytes: memory that it takes now of each device, by its name: as its last load measured, without a
            projector; while it is loaded or freed as predicted.
        placement: where it is, in words, such as "CUDA0, 12 of 33 layers", or "host"; "" for a model that takes no
            memory, and on a machine without devices.
        is_pinned: whether it is never evicted.
        priority: of requests that name none.
        is_retuned: whether one of these two is not as configured.
        is_parked: whether it is unloaded, with its weights in memory.
        load_s: seconds that its last load took; None before the first.
        warnings: what it cannot do here although its makers promise it.
        leaves_in_s: seconds until it is unloaded if it is not used again; None where only eviction unloads it.
        progress: of its preparation or its load; None while there is none.
        restarts: how many of its engines have died since the server began.
        last_death: why the last of them died; None where none did.
        is_isolated: whether its engine runs, or ran last, in a process of its own.
        files: where its files are; None while that was not looked into.
        load_state: where its weights are.
        idle_s: seconds since its last request ended; None where it is in use, or holds no memory.
        unloads_after_s: seconds without a request after which it is unloaded; None: only eviction unloads it.
        chat_template: source of its chat template; "" where it has none, or its files were not read.
        parameter_count: number of its weights; None until its files were read.
        sampling: its sampling defaults, as far as it has own ones; None until its files were read.
        license: name of its license; "" where its header has none, or was not read.
        adapters: its LoRA adapters.
        addresses: the servers that have it, where other servers have it; () for models of this machine.
        is_remote: whether other servers have it.
        nodes: the nodes that have it or had it, by their names, where it is on a cluster; None where it is not.
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
    predicted_bytes: int | None
    resident_bytes: int
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
    files: FileState | None = None
    load_state: LoadState = LoadState.UNLOADED
    idle_s: float | None = None
    unloads_after_s: float | None = None
    chat_template: str = field(default="", repr=False)
    parameter_count: int | None = None
    sampling: Sampling | None = None
    license: str = ""
    device_bytes: Mapping[str, int] = field(default_factory=dict)
    placement: str = ""
    context_reason: str = ""
    context_allocated: int | None = None
    priority: int = 0
    is_retuned: bool = False
    addresses: tuple[AddressStatus, ...] = ()
    is_remote: bool = False
    adapters: tuple[AdapterStatus, ...] = ()
    nodes: Mapping[str, ModelOnNode] | None = None


class ModelMemory(NamedTuple):
    """Memory of one model, on the host and on devices; see the fields of these names in ``ModelStatus``."""

    predicted_bytes: int | None
    resident_bytes: int
    shared_bytes: int


def memory_of(state: Residency, name: str) -> ModelMemory:
    """Return the bytes that a model takes when it is loaded and now, and how many of these other loaded models use."""
    footprint = state.models[name].footprint
    if footprint is None:
        return ModelMemory(None, 0, 0)
    if not state.models[name].is_resident:
        return ModelMemory(footprint.total_bytes, 0, 0)
    others = [state.models[other].footprint or NO_FOOTPRINT for other in state.resident() if other != name]
    shared = {key for other in others for key in _weights(other)}
    shared_bytes = sum(size for key, size in _weights(footprint).items() if key in shared)
    resident_bytes = sum(state.taken([name], state.weights_alone()).values())
    return ModelMemory(footprint.total_bytes, resident_bytes, shared_bytes)


def context_allocated(model: ModelState) -> int | None:
    """Return the tokens that the context of a loaded model has memory for; None where it is not elastic."""
    cells = footprint_of(model).cells
    return cells if cells and model.load_state in (LoadState.LOADING, LoadState.LOADED) else None


def _weights(footprint: Footprint) -> dict[tuple[str, str], int]:
    """Return the bytes of weights by their pool and key."""
    on_devices = {(share.pool, share.weights_key): share.weights_bytes for share in footprint.devices}
    return {(HOST_NAME, key): size for key, size in footprint.weights.items()} | on_devices


def leaves_in_s(model: ModelState, now: float) -> float | None:
    """Return the seconds until a loaded or parked model is freed if it stays unused; None: only eviction frees it."""
    holds = model.load_state in (LoadState.LOADED, LoadState.PARKED)
    if model.policy.is_pinned or not holds or model.idle_unload_s == math.inf:
        return None
    return max(0.0, model.last_used + model.idle_unload_s - now) if model.is_unused else model.idle_unload_s


@dataclass(frozen=True, slots=True)
class Eviction:
    """A model that a load would evict.

    Attributes:
        model: its id.
        bytes: memory of the host that it gives back.
        why: why it is this model, as a sentence.
        device_bytes: memory of devices that it gives back, by their names.
    """

    model: str
    bytes: int
    why: str
    device_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What a load needs of one device; see the fields of these names in ``Plan``."""

    needed_bytes: int
    free_bytes: int
    budget_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load of a model would do now.

    Attributes:
        model: its id.
        outcome: "loaded" or "loading" where nothing has to be done; else "fits" where it fits now, "evicts" where idle
            models are evicted, "waits" where busy models have to make room, or "never".
        needed_bytes: memory of the host that it takes beside the models that stay; weights that are parked, or that one
            of them uses, do not count again.
        free_bytes: memory of the host that is free now.
        budget_bytes: memory of the host that all models may take together.
        evicts: the models that would be evicted.
        load_s: seconds that the load takes, as last measured, else estimated.
        devices: what it needs of each device, by its name.
        placement: where it would be put, or is, in words; "" on a machine without devices.
        tokens_per_s: tokens that one request is expected to get there in a second; None: not known.
        node: the node that it would be loaded on; "" on one machine.
    """

    model: str
    outcome: str
    needed_bytes: int
    free_bytes: int
    budget_bytes: int
    evicts: tuple[Eviction, ...]
    load_s: float
    devices: Mapping[str, PoolPlan] = field(default_factory=dict)
    placement: str = ""
    tokens_per_s: float | None = None
    node: str = ""

    def visible_to(self, caller: Caller) -> Plan:
        """Return the plan as ``caller`` may see it: models that are hidden from it are one entry, without a name."""
        hidden = [gone for gone in self.evicts if not caller.may_use(gone.model)]
        if not hidden:
            return self
        count = "one model" if len(hidden) == 1 else f"{len(hidden)} models"
        together = Eviction(
            OTHER_MODELS,
            sum(gone.bytes for gone in hidden),
            f"{count} that this key may not see",
            dict(sum((Counter(gone.device_bytes) for gone in hidden), Counter())),
        )
        return replace(self, evicts=(*(gone for gone in self.evicts if caller.may_use(gone.model)), together))


def plan(state: Residency, name: str, layer_count: int | None = None) -> Plan:
    """Return what a load of ``name``, whose footprint is known, would do now. Pure.

    ``layer_count`` is the number of its layers with the output; None: unknown.
    """
    model = state.models[name]
    outcomes = {LoadState.LOADED: "loaded", LoadState.LOADING: "loading"}
    # A model that is there stays where it is.
    eviction = plan_eviction(state, name) if model.load_state in outcomes else plan_load(state, name)
    footprint = eviction.footprint
    outcome = outcomes.get(model.load_state, eviction.fit.value)
    staying = set(eviction.pinned if eviction.fit is Fit.NEVER else state.resident()) - {name}
    weights_alone = state.weights_alone() - {name}
    evicts: list[Eviction] = []
    if outcome in (Fit.EVICTS.value, Fit.WAITS.value):
        evicts = _evict(state, eviction, staying, weights_alone)
    own = {name} if model.has_only_weights and _has_weights_for(model, footprint) else set()
    needed = _difference(
        state.taken(staying | {name}, weights_alone, instead={name: footprint}),
        state.taken(staying | own, weights_alone | own),
    )
    return Plan(
        model=model.policy.name,
        outcome=outcome,
        needed_bytes=needed[HOST_NAME],
        free_bytes=max(0, state.budget_bytes - state.used_bytes),
        budget_bytes=state.budget_bytes,
        evicts=tuple(evicts),
        load_s=0.0 if outcome == "loaded" else load_seconds(model),
        devices={
            device: PoolPlan(needed.get(device, 0), use.free_bytes, use.budget_bytes)
            for device, use in device_uses(state, also=needed).items()
        },
        placement=text_beside_devices(state, footprint.placement, layer_count),
        tokens_per_s=1 / footprint.token_s if footprint.token_s > 0 else None,
    )


def _has_weights_for(model: ModelState, footprint: Footprint) -> bool:
    """Whether the weights that a parked model has in memory are those of ``footprint``."""
    return model.footprint is not None and model.footprint.placement == footprint.placement


def _difference(more: Mapping[str, int], less: Mapping[str, int]) -> dict[str, int]:
    return {pool: more.get(pool, 0) - less.get(pool, 0) for pool in {**more, **less}}


def _evict(state: Residency, eviction: EvictionPlan, staying: set[str], weights_alone: set[str]) -> list[Eviction]:
    """Return what the plan evicts, with the bytes that each model gives back.

    It removes the evicted models from ``staying``, and adds those that are parked to ``weights_alone``.
    """
    shrinks = ((state.models[n].policy.name, footprint_of(state.models[n])) for n in eviction.shrinks)
    evicts = [Eviction(name, each.context_bytes - each.smallest.context_bytes, SHRINKS) for name, each in shrinks]
    evicts += [Eviction(state.models[n].policy.name, state.models[n].kept_bytes, KEPT) for n in eviction.discards]
    whys = {
        **dict.fromkeys(eviction.frees_weights_of, "is parked; its weights go"),
        **{other: _idle_since(state, state.models[other]) for other in eviction.evicts},
        **dict.fromkeys(eviction.drains, "is busy; its requests pause until it is back"),
        **dict.fromkeys(eviction.leaving, "is being unloaded already"),
    }
    for other, why in whys.items():
        # Shared weights count for the last of their models that is evicted.
        taken = state.taken(staying, weights_alone)
        if other in eviction.parks:
            weights_alone.add(other)
            why += "; its weights stay"
        else:
            staying.discard(other)
        freed = _difference(taken, state.taken(staying, weights_alone))
        evicts.append(Eviction(state.models[other].policy.name, freed[HOST_NAME], why, of_devices(freed)))
    return evicts


SHRINKS = "stays loaded, and gives back what it does not need of its context"
KEPT = "is unloaded; what was kept of its prompts is dropped"


def _idle_since(state: Residency, model: ModelState) -> str:
    return f"idle for {state.now - model.last_used:.0f} s, back in about {load_seconds(model):.1f} s"


def stage(state: Residency, name: str, progress: float) -> str:
    """Return what a request for the model waits for, in a few words; "" where the model serves."""
    model = state.models[name]
    match model.load_state:
        case LoadState.LOADED:
            return "making room" if model.makes_room_since is not None else ""
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
    """Return what is done for a model whose engine has just died, for the log."""
    if model.load_state is LoadState.FAILED and state.now < model.retry_at:
        deaths, retry_s = model.deaths_in_row, model.retry_at - state.now
        return f"death {deaths} in a row, it is not started again before {retry_s:.0f} s have passed"
    if model.first is None or not model.first.wants_load:
        return "it is started again when it is asked for"
    resumed = sum(waiter.kind is WaitKind.RESUME for waiter in model.queue)
    return f"starting it again, {'1 request goes' if resumed == 1 else f'{resumed} requests go'} on"

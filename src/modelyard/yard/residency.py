"""Which models are resident: all decisions, as a pure state machine.

No clock, no threads, no I/O. Events go in, effects come out; the conductor runs the effects, in order, and feeds their
outcomes back as events. Time enters as ``Tick``. So every interleaving can be replayed.

A model is unloaded, loading, loaded, freeing or failed. Everybody who wants something of it stands in one line, in
order of arrival: requests for a lease, unloads, reloads. Each rule looks at the head of the line alone:

    request   loaded: a lease.      unloaded: load, wait.   failed: refused until the back-off is over, then load.
    reload    loaded: done.         unloaded or failed: load, wait.
    unload    unloaded: done.       loaded: wait for the last lease, then free.   loading: wait.

An unload at the head is a drain: requests behind it wait, and load the model again once it is gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NewType

from modelyard.errors import ModelLoadFailed, ModelyardError, QueueFull, ShuttingDown

RequestId = NewType("RequestId", int)

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
# More of them say nothing: the longest back-off is reached long before, and floats end at 1024.
_MOST_DOUBLINGS = 16


class Residence(Enum):
    """Where a model's weights are."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    FREEING = "freeing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WantsLease:
    """A request that waits for the model."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class WantsUnload:
    """A caller that waits until the model is unloaded."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class WantsReload:
    """A caller that waits until the model is loaded."""

    request: RequestId


Wish = WantsLease | WantsUnload | WantsReload


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model.

    Attributes:
        most_requests: leases and waiting requests, together; one more is refused.
        line: who waits for something, in order of arrival.
        leases: requests that the model is serving.
        reason: why the last load or the engine failed, while FAILED.
        failures: in a row.
        retry_at: on the clock of Tick; before that a request does not start another load.
    """

    most_requests: int
    residence: Residence = Residence.UNLOADED
    line: tuple[Wish, ...] = ()
    leases: frozenset[RequestId] = frozenset()
    reason: str = ""
    failures: int = 0
    retry_at: float = 0.0

    @property
    def is_draining(self) -> bool:
        """Whether it is loaded, but is to go as soon as its leases end."""
        return self.residence is Residence.LOADED and bool(self.line) and isinstance(self.line[0], WantsUnload)


@dataclass(frozen=True, slots=True)
class Residency:
    """All models. ``now`` is the time of the last Tick, in seconds."""

    models: Mapping[str, ModelState]
    now: float = 0.0
    is_closing: bool = False

    @classmethod
    def of(cls, models: Iterable[str], most_requests: int) -> Residency:
        """All ``models``, unloaded."""
        return cls({model: ModelState(most_requests) for model in models})


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has come to ``now``, in seconds of a clock that never goes back."""

    now: float


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """Somebody wants to use the model."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over, whether it waited or held a lease. One that is not known is ignored."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """Free the model as soon as nobody uses it."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """Have the model loaded."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class LoadFinished:
    """The outcome of StartLoad: it serves."""

    model: str


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The outcome of StartLoad: it does not, and holds no memory."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Freed:
    """The outcome of Free: it holds no memory."""

    model: str


@dataclass(frozen=True, slots=True)
class EngineDied:
    """A model's engine failed, while it served or loaded. It holds no memory; its leases end by RequestEnded."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """Refuse everybody from now on, and free everything without waiting for leases."""


ModelEvent = RequestArrived | RequestEnded | UnloadAsked | ReloadAsked | LoadFinished | LoadFailed | Freed | EngineDied
Event = ModelEvent | Tick | CloseAsked


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Load the model; answer with LoadFinished, LoadFailed or EngineDied."""

    model: str


@dataclass(frozen=True, slots=True)
class Free:
    """Free the model, also while it loads (only when closing); answer with Freed."""

    model: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The request holds a lease: it may use the model until RequestEnded."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class Reject:
    """The request, or the caller of an unload or reload, gets ``error``."""

    model: str
    request: RequestId
    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Complete:
    """What the caller of an unload or reload waited for has happened."""

    model: str
    request: RequestId


Effect = StartLoad | Free | Grant | Reject | Complete


def step(state: Residency, event: Event) -> tuple[Residency, list[Effect]]:
    """Advance the residency of all models by one event.

    The conductor runs the effects, in order, and feeds their outcomes back as events.
    """
    match event:
        case Tick(now):
            return replace(state, now=now), []
        case CloseAsked():
            return _close(state)
    effects: list[Effect] = []
    model = _take(state, state.models[event.model], event, effects)
    model = _serve_line(state, event.model, model, effects)
    return replace(state, models={**state.models, event.model: model}), effects


def _take(state: Residency, model: ModelState, event: ModelEvent, effects: list[Effect]) -> ModelState:
    """What the event itself changes."""
    match event:
        case RequestArrived(name, request):
            waiting = sum(isinstance(wish, WantsLease) for wish in model.line)
            if state.is_closing:
                effects.append(Reject(name, request, ShuttingDown()))
            elif waiting + len(model.leases) >= model.most_requests:
                effects.append(Reject(name, request, QueueFull(name, model.most_requests)))
            else:
                return replace(model, line=(*model.line, WantsLease(request)))
            return model
        case RequestEnded(_, request):
            line = tuple(wish for wish in model.line if wish.request != request)
            return replace(model, line=line, leases=model.leases - {request})
        case UnloadAsked(name, request) | ReloadAsked(name, request):
            if state.is_closing:
                effects.append(Reject(name, request, ShuttingDown()))
                return model
            wish = WantsUnload(request) if isinstance(event, UnloadAsked) else WantsReload(request)
            return replace(model, line=(*model.line, wish))
        case LoadFinished():
            if state.is_closing:
                return model
            return replace(model, residence=Residence.LOADED, reason="", failures=0)
        case LoadFailed(name, reason) | EngineDied(name, reason):
            return _fail(state, name, model, reason, effects)
        case Freed():  # pragma: no branch (mypy knows that it is the last one)
            return replace(model, residence=Residence.UNLOADED)


def _fail(state: Residency, name: str, model: ModelState, reason: str, effects: list[Effect]) -> ModelState:
    """The model is not there. Those who waited for this very load hear why; unloads have what they wanted."""
    # An engine that dies while it loads is a failed load: tried again for the same callers, it might never end.
    was_loading = model.residence is Residence.LOADING
    backoff = min(FIRST_BACKOFF_S * 2.0 ** min(model.failures, _MOST_DOUBLINGS), LONGEST_BACKOFF_S)
    model = replace(
        model, residence=Residence.FAILED, reason=reason, failures=model.failures + 1, retry_at=state.now + backoff
    )
    if was_loading:
        for wish in model.line:
            if isinstance(wish, WantsUnload):
                effects.append(Complete(name, wish.request))
            else:
                effects.append(Reject(name, wish.request, _load_failed(state, name, model)))
        model = replace(model, line=())
    return model


def _serve_line(state: Residency, name: str, model: ModelState, effects: list[Effect]) -> ModelState:
    """Give the head of the line what it wants, as long as that is possible."""
    while model.line:
        head, rest = model.line[0], model.line[1:]
        match head, model.residence:
            case (_, Residence.LOADING | Residence.FREEING):
                return model
            case WantsLease(request), Residence.LOADED:
                effects.append(Grant(name, request))
                model = replace(model, line=rest, leases=model.leases | {request})
            case WantsLease(request), Residence.FAILED if state.now < model.retry_at:
                effects.append(Reject(name, request, _load_failed(state, name, model)))
                model = replace(model, line=rest)
            case WantsReload(request), Residence.LOADED:
                effects.append(Complete(name, request))
                model = replace(model, line=rest)
            case WantsUnload(request), Residence.UNLOADED | Residence.FAILED:
                effects.append(Complete(name, request))
                model = replace(model, line=rest, residence=Residence.UNLOADED)
            case WantsUnload(), Residence.LOADED:
                if model.leases:
                    return model
                effects.append(Free(name))
                return replace(model, residence=Residence.FREEING)
            case _:
                effects.append(StartLoad(name))
                return replace(model, residence=Residence.LOADING)
    return model


def _load_failed(state: Residency, name: str, model: ModelState) -> ModelLoadFailed:
    return ModelLoadFailed(name, model.reason, max(1, math.ceil(model.retry_at - state.now)))


def _close(state: Residency) -> tuple[Residency, list[Effect]]:
    effects: list[Effect] = []
    models = {}
    for name, model in state.models.items():
        effects.extend(Reject(name, wish.request, ShuttingDown()) for wish in model.line)
        if model.residence in (Residence.LOADING, Residence.LOADED):
            effects.append(Free(name))
            model = replace(model, residence=Residence.FREEING)
        models[name] = replace(model, line=())
    return replace(state, models=models, is_closing=True), effects

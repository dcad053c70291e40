"""What an event itself changes, before anything follows from it."""

from __future__ import annotations

from dataclasses import replace

from modelyard.errors import (
    QueueFull,
    ShuttingDown,
)
from modelyard.yard.memory import Footprint
from modelyard.yard.residency.draft import Draft, load_failed
from modelyard.yard.residency.events import (
    BudgetChanged,
    CloseAsked,
    EngineDied,
    EngineDying,
    Event,
    Freed,
    LoadFailed,
    LoadFinished,
    ModelAdded,
    ModelEvent,
    ModelRetired,
    ModelRetuned,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Sized,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.line import cut, entered, resumed
from modelyard.yard.residency.state import (
    ModelState,
    RequestId,
    Residence,
    UnloadMode,
    Want,
    Wish,
)

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
# More of them say nothing: the longest back-off is reached long before, and floats end at 1024.
_MOST_DOUBLINGS = 16

SHUTTING_DOWN = "the server is shutting down"


def take(draft: Draft, event: Event) -> None:
    """Note in ``draft`` what has happened."""
    match event:
        case Tick(now):
            draft.state = draft.state._replace(now=now)
        case BudgetChanged(budget):
            draft.state = draft.state._replace(budget_bytes=budget)
        case ModelAdded(name, traits):
            draft.put(name, ModelState(traits, idle_unload_s=traits.idle_unload_s))
        case CloseAsked():
            _close(draft)
        case _:
            # What comes too late for a model that is forgotten has no meaning any more.
            if event.model in draft.models:
                _take(draft, draft.models[event.model], event)


def _take(draft: Draft, model: ModelState, event: ModelEvent) -> None:
    now, name = draft.state.now, event.model
    match event:
        case RequestArrived():
            _arrive(draft, model, event)
        case RequestEnded(_, request):
            if request in model.leases:
                leases = {other: priority for other, priority in model.leases.items() if other != request}
                draft.put(name, model._replace(leases=leases, last_used=now))
            else:
                draft.put(name, model._replace(line=cut(model.line, request)))
        case RequestSuspended(_, request, kept_bytes):
            if request in model.leases:
                _suspend(draft, name, model, request, kept_bytes)
        case UnloadAsked(_, request, mode):
            _ask(draft, name, model, draft.wish(Want.UNLOAD, request, mode=mode))
        case ReloadAsked(_, request):
            model = model._replace(idle_unload_s=model.traits.idle_unload_s)
            _ask(draft, name, model, draft.wish(Want.LOAD, request, priority=model.traits.priority))
        case Sized(_, footprint):
            if model.residence is Residence.SIZING:
                model = model._replace(residence=Residence.UNLOADED)
            draft.put(name, model if model.is_resident else model._replace(footprint=footprint))
        case LoadFinished(_, measured):
            _loaded(draft, name, model, measured)
        case EngineDying(_, reason):
            # Of one that did not serve yet, its death is soon enough: nobody took it for one that does.
            if model.residence in (Residence.LOADED, Residence.FREEING):
                draft.put(name, model._replace(residence=Residence.FREEING, reason=reason, yields_since=None))
        case LoadFailed(_, reason) | EngineDied(_, reason):
            _fail(draft, name, model, reason)
        case Freed():
            _freed(draft, model, event)
        case ModelRetuned(_, traits):
            draft.put(name, model._replace(traits=traits, idle_unload_s=traits.idle_unload_s))
        case ModelRetired():  # pragma: no branch (mypy knows that it is the last one)
            traits = replace(model.traits, is_pinned=False)
            draft.put(name, model._replace(traits=traits, is_retired=True))


def _arrive(draft: Draft, model: ModelState, event: RequestArrived) -> None:
    name, request, longest = event.model, event.request, draft.state.policy.longest_wait_s
    waiting = sum(wish.want in (Want.LEASE, Want.RESUME) for wish in model.line)
    if draft.state.is_closing:
        draft.reject(name, request, ShuttingDown())
    elif waiting + len(model.leases) >= model.traits.most_requests:
        draft.reject(name, request, QueueFull(model.traits.name, model.traits.most_requests))
    else:
        wait_s = longest if event.wait_s is None else min(event.wait_s, longest)
        priority = model.traits.priority if event.priority is None else event.priority
        keep_s = model.traits.idle_unload_s if event.keep_alive_s is None else event.keep_alive_s
        wish = draft.wish(Want.LEASE, request, priority=priority, wait_s=wait_s)
        draft.put(name, model._replace(line=entered(model.line, wish), idle_unload_s=keep_s))


def _ask(draft: Draft, name: str, model: ModelState, wish: Wish) -> None:
    if draft.state.is_closing:
        draft.reject(name, wish.request, ShuttingDown())
    else:
        draft.put(name, model._replace(line=entered(model.line, wish)))


def _suspend(draft: Draft, name: str, model: ModelState, request: RequestId, kept_bytes: int) -> None:
    leases = dict(model.leases)
    priority = leases.pop(request)
    if draft.state.is_closing:
        # Nothing is loaded any more that it could go on with.
        draft.put(name, model._replace(leases=leases))
        draft.reject(name, request, ShuttingDown())
        return
    wish = draft.wish(Want.RESUME, request, priority=priority, kept_bytes=kept_bytes)
    # A model that was unloaded on purpose is not brought back by what it was serving.
    wish = wish._replace(is_passive=any(other.mode is UnloadMode.SUSPEND for other in model.line))
    # What it holds is of what the free was promised: it counts once.
    promised = max(0, model.promised_bytes - kept_bytes)
    line = resumed(model.line, wish)
    draft.put(name, model._replace(line=line, leases=leases, promised_bytes=promised))


def _loaded(draft: Draft, name: str, model: ModelState, measured: Footprint | None) -> None:
    if model.residence is not Residence.LOADING:
        return
    now = draft.state.now
    took_s = now - model.load_began
    model = model._replace(
        residence=Residence.LOADED,
        reason="",
        footprint=measured or model.footprint,
        prefix_bytes=0,
        loaded_at=now,
        last_used=now,
        load_s=model.load_s if model.was_parked else took_s,
        wake_s=took_s if model.was_parked else model.wake_s,
        was_parked=False,
    )
    draft.put(name, model)


def _freed(draft: Draft, model: ModelState, event: Freed) -> None:
    failures = 0 if _was_sound(model, draft.state.now) else model.failures
    residence = Residence.PARKED if event.keeps_weights else Residence.UNLOADED
    model = model._replace(residence=residence, failures=failures, was_parked=False)
    draft.put(event.model, model._replace(prefix_bytes=event.prefix_bytes, promised_bytes=0))
    if event.keeps_weights and draft.state.is_closing:
        draft.free(event.model, suspends=False, why=SHUTTING_DOWN, reason="closing")


def _fail(draft: Draft, name: str, model: ModelState, reason: str) -> None:
    """The model is not there. Those who waited for this very load hear why; unloads have what they wanted."""
    now = draft.state.now
    was_serving = model.residence in (Residence.LOADED, Residence.FREEING)
    failures = 0 if was_serving and _was_sound(model, now) else model.failures
    backoff = min(FIRST_BACKOFF_S * 2.0 ** min(failures, _MOST_DOUBLINGS), LONGEST_BACKOFF_S)
    if was_serving and failures == 0:
        # One that died while it served is tried again at once.
        backoff = 0.0
    draft.put(
        name,
        model._replace(
            residence=Residence.FAILED,
            # The files may have been replaced by the next attempt.
            footprint=model.footprint if was_serving else None,
            prefix_bytes=0,
            promised_bytes=0,
            reason=reason,
            failures=failures + 1,
            retry_at=now + backoff,
            yields_since=None,
            was_parked=False,
        ),
    )
    if not was_serving:
        # Tried again for the same callers, a load might fail for ever.
        draft.refuse_line(name, load_failed(draft, draft.models[name]))


def _was_sound(model: ModelState, now: float) -> bool:
    """Whether the model has served for so long that its next failure is the first one."""
    return now - model.loaded_at >= LONGEST_BACKOFF_S


def _close(draft: Draft) -> None:
    draft.state = draft.state._replace(is_closing=True)
    for name in sorted(draft.active):
        for wish in draft.models[name].line:
            draft.reject(name, wish.request, ShuttingDown())
        model = draft.put(name, draft.models[name]._replace(line=()))
        if model.residence in (Residence.SIZING, Residence.LOADING, Residence.LOADED, Residence.PARKED):
            draft.free(name, suspends=False, why=SHUTTING_DOWN, reason="closing")

"""What an event itself changes, before anything follows from it."""

from __future__ import annotations

from dataclasses import replace

from modelyard.errors import (
    HarmfulRequest,
    QueueFull,
    ShuttingDown,
)
from modelyard.yard.residency.builder import Draft
from modelyard.yard.residency.changed_files import refreshed, replaced, written_over
from modelyard.yard.residency.deaths import begin_to_die, die, outlived
from modelyard.yard.residency.events import (
    BudgetChanged,
    CloseAsked,
    EngineDied,
    EngineDying,
    Event,
    FilesReplaced,
    FilesWrittenOver,
    Freed,
    LoadFailed,
    LoadFinished,
    ModelAdded,
    ModelEvent,
    ModelRetired,
    ModelRetuned,
    ParkedWeightsLost,
    ReloadAsked,
    RequestArrived,
    RequestCleared,
    RequestEnded,
    RequestSuspended,
    Sized,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.failures import fail, was_sound
from modelyard.yard.residency.queue import cut, entered, resumed
from modelyard.yard.residency.state import (
    ModelState,
    RequestId,
    Residence,
    UnloadMode,
    Want,
    Wish,
)

SHUTTING_DOWN = "the server is shutting down"


def take(draft: Draft, event: Event) -> None:
    """Note in ``draft`` what has happened."""
    match event:
        case Tick(now):
            draft.state = draft.state._replace(now=now)
            if draft.state.poison:
                poison = {content: until for content, until in draft.state.poison.items() if now < until}
                draft.state = draft.state._replace(poison=poison)
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
        case RequestCleared(_, request):
            if request in model.suspects:
                draft.put(name, model._replace(suspects=model.suspects - {request}))
        case UnloadAsked(_, request, mode):
            _ask(draft, name, model, draft.wish(Want.UNLOAD, request, mode=mode))
        case ReloadAsked(_, request):
            model = model._replace(idle_unload_s=model.traits.idle_unload_s)
            _ask(draft, name, model, draft.wish(Want.LOAD, request, priority=model.traits.priority))
        case Sized(_, footprint):
            if model.residence is Residence.SIZING:
                model = model._replace(residence=Residence.UNLOADED)
            draft.put(name, model if model.is_resident else model._replace(footprint=footprint))
        case LoadFinished():
            _loaded(draft, model, event)
        case EngineDying():
            begin_to_die(draft, model, event)
        case EngineDied(_, reason):
            die(draft, name, model, reason)
        case LoadFailed(_, reason):
            fail(draft, name, model, reason)
        case ParkedWeightsLost():
            if model.residence is Residence.PARKED:
                draft.put(name, model._replace(residence=Residence.UNLOADED))
        case FilesWrittenOver():
            written_over(draft, model, event)
        case FilesReplaced():
            replaced(draft, model, event)
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
    elif (refused_until := draft.state.poison.get(event.content)) is not None:
        error = HarmfulRequest(model.traits.name, model.last_death, refused_until - draft.state.now)
        draft.reject(name, request, error)
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
    if (error := outlived(model, request)) is not None:
        draft.put(name, model._replace(leases=leases))
        draft.reject(name, request, error)
        return
    wish = draft.wish(Want.RESUME, request, priority=priority, kept_bytes=kept_bytes)
    # A model that was unloaded on purpose is not brought back by what it was serving.
    wish = wish._replace(is_passive=any(other.mode is UnloadMode.SUSPEND for other in model.line))
    # What it holds is of what the free was promised: it counts once.
    promised = max(0, model.promised_bytes - kept_bytes)
    line = resumed(model.line, wish)
    draft.put(name, model._replace(line=line, leases=leases, promised_bytes=promised))


def _loaded(draft: Draft, model: ModelState, event: LoadFinished) -> None:
    if model.residence is not Residence.LOADING:
        return
    now = draft.state.now
    took_s = now - model.load_began
    model = model._replace(
        residence=Residence.LOADED,
        reason="",
        footprint=event.measured or model.footprint,
        prefix_bytes=0,
        loaded_at=now,
        last_used=now,
        load_s=model.load_s if model.was_parked else took_s,
        wake_s=took_s if model.was_parked else model.wake_s,
        was_parked=False,
        deaths_while_loading=0,
        is_isolated=event.is_isolated,
    )
    draft.put(event.model, model)


def _freed(draft: Draft, model: ModelState, event: Freed) -> None:
    if was_sound(model, draft.state.now):
        model = model._replace(failures=0, deaths_in_row=0)
    residence = Residence.PARKED if event.keeps_weights else Residence.UNLOADED
    is_stale = model.is_stale
    model = model._replace(residence=residence, was_parked=False)
    if is_stale and not event.keeps_weights:
        model = refreshed(model)
    draft.put(event.model, model._replace(prefix_bytes=event.prefix_bytes, promised_bytes=0))
    if is_stale and event.prefix_bytes:
        draft.forget(event.model)
    if event.keeps_weights and draft.state.is_closing:
        draft.free(event.model, suspends=False, why=SHUTTING_DOWN, reason="closing")
    elif event.keeps_weights and is_stale:
        draft.free(event.model, suspends=False, why="its files were written over", reason="changed")


def _close(draft: Draft) -> None:
    draft.state = draft.state._replace(is_closing=True)
    for name in sorted(draft.active):
        for wish in draft.models[name].line:
            draft.reject(name, wish.request, ShuttingDown())
        model = draft.put(name, draft.models[name]._replace(line=()))
        if model.residence in (Residence.SIZING, Residence.LOADING, Residence.LOADED, Residence.PARKED):
            draft.free(name, suspends=False, why=SHUTTING_DOWN, reason="closing")

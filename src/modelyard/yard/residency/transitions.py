"""The direct changes of each event; ``reconcile`` derives what follows from them."""

from __future__ import annotations

import math
from dataclasses import replace

from modelyard.errors import (
    HarmfulRequest,
    ModelUnloaded,
    QueueFull,
    ShuttingDown,
)
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.changed_files import refreshed, replaced, written_over
from modelyard.yard.residency.contexts import resized, want_context
from modelyard.yard.residency.deaths import begin_to_die, die, outlived
from modelyard.yard.residency.events import (
    AdaptersChanged,
    BudgetChanged,
    CloseAsked,
    DeviceBudgetsChanged,
    EngineDied,
    EngineDying,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    EngineReport,
    EngineResized,
    FilesReplaced,
    FilesWrittenOver,
    GrowthWanted,
    HoldReleased,
    ModelAdded,
    ModelEvent,
    ModelRetired,
    ModelRetuned,
    Outdated,
    Outgrown,
    ReloadAsked,
    RequestArrived,
    RequestCleared,
    RequestEnded,
    RequestEvent,
    RequestSuspended,
    ResidencyEvent,
    Sized,
    Tick,
    UnloadAsked,
    WeightsLost,
)
from modelyard.yard.residency.expected_cost import with_arrival
from modelyard.yard.residency.failures import fail, fall_back, may_fall_back, outgrow, was_sound, with_corrected
from modelyard.yard.residency.queue import enqueued, requeued, without
from modelyard.yard.residency.state import LoadState, ModelState
from modelyard.yard.residency.waiting import MOVE, Hold, RequestId, UnloadMode, Waiter, WaitKind

SHUTTING_DOWN = "the server is shutting down"


def apply_event(builder: StateBuilder, event: ResidencyEvent) -> None:
    """Apply to ``builder`` what the event itself changes."""
    if not isinstance(event, Tick):
        builder.state = builder.state._replace(event_at=builder.state.now)
    match event:
        case Tick(now):
            builder.state = builder.state._replace(now=now)
            if builder.state.poison:
                poison = {content: until for content, until in builder.state.poison.items() if now < until}
                builder.state = builder.state._replace(poison=poison)
        case BudgetChanged(budget):
            builder.state = builder.state._replace(budget_bytes=budget)
        case DeviceBudgetsChanged(budgets):
            builder.state = builder.state._replace(device_budgets=budgets)
        case ModelAdded(name, policy):
            builder.set_model(name, ModelState(policy, idle_unload_s=policy.idle_unload_s))
        case CloseAsked():
            _close(builder)
        case _:
            # An event for a removed model comes too late, and is ignored.
            if event.model in builder.models:
                _apply_model_event(builder, builder.models[event.model], event)


def _apply_model_event(builder: StateBuilder, model: ModelState, event: ModelEvent) -> None:
    match event:
        case (
            RequestArrived()
            | RequestEnded()
            | HoldReleased()
            | RequestSuspended()
            | RequestCleared()
            | UnloadAsked()
            | ReloadAsked()
        ):
            _apply_request_event(builder, model, event)
        case Outdated(name):
            builder.set_model(name, model._replace(is_outdated=True))
        case ModelRetuned(name, policy):
            # The time that a request has asked for lasts, unless the configured one is another now.
            is_same = policy.idle_unload_s == model.policy.idle_unload_s
            idle_unload_s = model.idle_unload_s if is_same else policy.idle_unload_s
            builder.set_model(name, model._replace(policy=policy, idle_unload_s=idle_unload_s))
        case AdaptersChanged(name, added_bytes):
            if model.footprint is not None:
                choices = tuple(each.with_added(added_bytes) for each in model.choices)
                footprint = model.footprint.with_added(added_bytes)
                builder.set_model(name, model._replace(footprint=footprint, choices=choices))
        case ModelRetired(name):
            policy = replace(model.policy, is_pinned=False)
            builder.set_model(name, model._replace(policy=policy, is_retired=True))
        case _:
            _apply_engine_event(builder, model, event)


def _apply_request_event(builder: StateBuilder, model: ModelState, event: RequestEvent) -> None:
    name = event.model
    match event:
        case RequestArrived():
            _arrive(builder, model, event)
        case RequestEnded(_, request, leaves_hold):
            _end(builder, name, model, request, leaves_hold=leaves_hold)
        case HoldReleased(_, request):
            if request in model.holds:
                model = _without_hold(model, request)
                builder.set_model(name, model._replace(last_used=builder.state.now))
        case RequestSuspended(_, request):
            if request in model.leases:
                _suspend(builder, model, event)
        case RequestCleared(_, request):
            if request in model.suspects:
                builder.set_model(name, model._replace(suspects=model.suspects - {request}))
        case UnloadAsked(_, request, mode):
            model = model._replace(queue=without(model.queue, MOVE))
            _enqueue_operation(builder, name, model, builder.waiter(WaitKind.UNLOAD, request, mode=mode))
        case ReloadAsked(_, request):  # pragma: no branch (mypy knows that it is the last one)
            model = model._replace(idle_unload_s=model.policy.idle_unload_s)
            load = builder.waiter(WaitKind.LOAD, request, priority=model.policy.priority)
            _enqueue_operation(builder, name, model, load)


def _apply_engine_event(builder: StateBuilder, model: ModelState, event: EngineReport) -> None:
    name = event.model
    match event:
        case Sized(_, footprint, alternatives):
            if model.load_state is LoadState.SIZING:
                model = model._replace(load_state=LoadState.UNLOADED)
            if not model.is_resident:
                model = model._replace(footprint=footprint, choices=(footprint, *alternatives))
            builder.set_model(name, model)
        case EngineLoaded():
            _loaded(builder, model, event)
        case GrowthWanted():
            want_context(builder, model, event)
        case EngineResized():
            resized(builder, model, event)
        case EngineDying():
            begin_to_die(builder, model, event)
        case EngineDied(_, reason):
            die(builder, name, model, reason)
        case Outgrown(_, footprint):
            outgrow(builder, name, model, footprint)
        case EngineLoadFailed(_, reason, True) if may_fall_back(model):
            fall_back(builder, name, model, reason)
        case EngineLoadFailed(_, reason):
            fail(builder, name, model, reason)
        case WeightsLost():
            if model.load_state is LoadState.PARKED:
                builder.set_model(name, model._replace(load_state=LoadState.UNLOADED))
        case FilesWrittenOver():
            written_over(builder, model, event)
        case FilesReplaced():
            replaced(builder, model, event)
        case EngineFreed():  # pragma: no branch (mypy knows that it is the last one)
            _freed(builder, model, event)


def _end(builder: StateBuilder, name: str, model: ModelState, request: RequestId, *, leaves_hold: bool) -> None:
    if request in model.leases:
        leases = {other: priority for other, priority in model.leases.items() if other != request}
        if leaves_hold and not builder.state.is_closing:
            model = model._replace(holds={**model.holds, request: Hold(model.leases[request])})
        growth = model.growth if leases else None
        builder.set_model(
            name, model._replace(leases=leases, last_used=builder.state.now, growth=growth, keeps_size=False)
        )
    else:
        builder.set_model(name, model._replace(queue=without(model.queue, request)))


def _is_forced(model: ModelState) -> bool:
    """Whether an unload is under way that ends requests instead of waiting for them."""
    return any(waiter.kind is WaitKind.UNLOAD and waiter.mode is UnloadMode.FORCE for waiter in model.queue)


def _without_hold(model: ModelState, request: RequestId) -> ModelState:
    return model._replace(holds={other: hold for other, hold in model.holds.items() if other != request})


def _arrive(builder: StateBuilder, model: ModelState, event: RequestArrived) -> None:
    name, request, max_wait_s = event.model, event.request, builder.state.policy.max_wait_s
    waiting = sum(waiter.is_request for waiter in model.queue)
    hold = None
    if event.continues is not None and (hold := model.holds.get(event.continues)) is not None:
        model = builder.set_model(name, _without_hold(model, event.continues))
    if builder.state.is_closing:
        builder.reject(name, request, ShuttingDown())
    elif event.continues is not None and (hold is None or _is_forced(model)):
        builder.reject(name, request, ModelUnloaded(model.policy.name))
    elif (refused_until := builder.state.poison.get(event.content)) is not None:
        error = HarmfulRequest(model.policy.name, model.last_death, refused_until - builder.state.now)
        builder.reject(name, request, error)
    elif hold is None and waiting + len(model.leases) + len(model.holds) >= model.policy.max_requests:
        builder.reject(name, request, QueueFull(model.policy.name, model.policy.max_requests))
    else:
        wait_s = max_wait_s if event.wait_s is None else min(event.wait_s, max_wait_s)
        priority = model.policy.priority if event.priority is None else event.priority
        keep_s = model.policy.idle_unload_s if event.keep_alive_s is None else event.keep_alive_s
        kind = WaitKind.LEASE if hold is None else WaitKind.CONTINUE
        waiter = builder.waiter(kind, request, priority=priority, wait_s=wait_s, cells=event.cells)
        if hold is None:
            queue = enqueued(model.queue, waiter)
        else:
            queue = requeued(model.queue, waiter._replace(does_not_trigger_load=hold.does_not_trigger_load))
        model = with_arrival(model, builder.state.now)
        builder.set_model(name, model._replace(queue=queue, idle_unload_s=keep_s))


def _enqueue_operation(builder: StateBuilder, name: str, model: ModelState, waiter: Waiter) -> None:
    if builder.state.is_closing:
        builder.reject(name, waiter.request, ShuttingDown())
    else:
        builder.set_model(name, model._replace(queue=enqueued(model.queue, waiter)))


def _suspend(builder: StateBuilder, model: ModelState, event: RequestSuspended) -> None:
    name, request, kept_bytes = event.model, event.request, event.kept_bytes
    leases = dict(model.leases)
    priority = leases.pop(request)
    if builder.state.is_closing:
        # No engine is loaded any more on which it could go on.
        builder.set_model(name, model._replace(leases=leases))
        builder.reject(name, request, ShuttingDown())
        return
    if (error := outlived(model, request)) is not None:
        builder.set_model(name, model._replace(leases=leases))
        builder.reject(name, request, error)
        return
    waiter = builder.waiter(WaitKind.RESUME, request, priority=priority, kept_bytes=kept_bytes, cells=event.cells)
    # A model that was unloaded on purpose is not loaded again by the requests that it was serving.
    waiter = waiter._replace(does_not_trigger_load=any(other.mode is UnloadMode.SUSPEND for other in model.queue))
    # What the request holds is part of what the free may keep, and counts once.
    promised = max(0, model.promised_bytes - kept_bytes)
    queue = requeued(model.queue, waiter)
    builder.set_model(name, model._replace(queue=queue, leases=leases, promised_bytes=promised))


def _loaded(builder: StateBuilder, model: ModelState, event: EngineLoaded) -> None:
    if model.load_state is not LoadState.LOADING:
        return
    now = builder.state.now
    took_s = now - model.load_began
    if event.measured is not None:
        model = with_corrected(model, event.measured)
    model = model._replace(
        load_state=LoadState.LOADED,
        reason="",
        has_fallen_back=False,
        prefix_bytes=0,
        loaded_at=now,
        last_used=model.last_used if model.only_moves else now,
        load_s=model.load_s if model.was_parked else took_s,
        wake_s=took_s if model.was_parked else model.wake_s,
        was_parked=False,
        keeps_size=False,
        deaths_while_loading=0,
        is_isolated=event.is_isolated,
    )
    builder.set_model(event.model, model)


def _freed(builder: StateBuilder, model: ModelState, event: EngineFreed) -> None:
    if was_sound(model, builder.state.now):
        model = model._replace(failures=0, deaths_in_row=0)
    load_state = LoadState.PARKED if event.keeps_weights else LoadState.UNLOADED
    is_stale = model.is_stale
    model = model._replace(load_state=load_state, was_parked=False, loaded_at=math.inf, resizing=None)
    if is_stale and not event.keeps_weights:
        model = refreshed(model)
    builder.set_model(event.model, model._replace(prefix_bytes=event.prefix_bytes, promised_bytes=0))
    if is_stale and event.prefix_bytes:
        builder.discard_kept(event.model)
    if event.keeps_weights and builder.state.is_closing:
        builder.free(event.model, suspends=False, why=SHUTTING_DOWN, reason="closing")
    elif event.keeps_weights and is_stale:
        builder.free(event.model, suspends=False, why="its files were written over", reason="changed")


def _close(builder: StateBuilder) -> None:
    builder.state = builder.state._replace(is_closing=True)
    for name in sorted(builder.active):
        for waiter in builder.models[name].queue:
            builder.reject(name, waiter.request, ShuttingDown())
        model = builder.set_model(name, builder.models[name]._replace(queue=(), holds={}))
        if model.load_state in (LoadState.SIZING, LoadState.LOADING, LoadState.LOADED, LoadState.PARKED):
            builder.free(name, suspends=False, why=SHUTTING_DOWN, reason="closing")

"""What the log says of models: loads, unloads and waits, each with the numbers that caused it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from modelyard.protocol.placement import HOST_NAME
from modelyard.system.quantities import count_text, duration_text, part_text, size_text
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.choice import best_move, plan_load
from modelyard.yard.residency.effects import Free
from modelyard.yard.residency.eviction import Fit
from modelyard.yard.residency.expected_cost import load_seconds
from modelyard.yard.residency.state import ABSENT, NO_FOOTPRINT, LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import MOVE
from modelyard.yard.stats.device_memory import of_devices
from modelyard.yard.stats.placement_text import placement_of_model, text_beside_devices


def loading(state: Residency, name: str) -> str:
    """Return the line of a load that begins; its model counts as resident in ``state`` already."""
    model = state.models[name]
    parked = ", its weights are parked" if model.was_parked else ""
    others = state.taken([other for other in state.resident() if other != name], state.weights_alone())
    others[HOST_NAME] += state.kept_bytes
    if not (where := placement_of_model(state, model)):
        needed = size_text((model.footprint or NO_FOOTPRINT).total_bytes)
        free = size_text(_free(state, others, HOST_NAME))
        return f"Loading {model.policy.name} ({needed} predicted of {free} free{parked})"
    parts = (
        f"{size_text(size)} predicted of {size_text(_free(state, others, pool))} free on {_place(pool)}"
        for pool, size in _devices_first(state.taken([name]))
    )
    return f"Loading {model.policy.name} on {_named(where)} ({', '.join(parts)}{parked})"


def loaded(state: Residency, name: str, took_s: float) -> str:
    """Return the line of a load that has ended well, after ``took_s``."""
    model = state.models[name]
    if not (where := placement_of_model(state, model)):
        taken = size_text((model.footprint or NO_FOOTPRINT).total_bytes)
        budget = part_text(state.used_bytes, state.budget_bytes)
        return f"Loaded {model.policy.name} in {duration_text(took_s)}: {taken}, budget {budget}"
    used = state.used
    parts = (
        f"{size_text(size)} of {_place(pool)}, budget {part_text(used.get(pool, 0), state.budget_of(pool))}"
        for pool, size in _devices_first(state.taken([name]))
    )
    return f"Loaded {model.policy.name} on {_named(where)} in {duration_text(took_s)}: {'; '.join(parts)}"


def failed(state: Residency, name: str, reason: str) -> str:
    """Return the line of a load that has failed."""
    model = state.models[name]
    retry_s = model.retry_at - state.now
    retry = f" It is not tried again for {duration_text(retry_s)}." if retry_s > 0 else ""
    return f"{model.policy.name} cannot be loaded: {reason}{retry}"


def fell_back(state: Residency, name: str, reason: str) -> str:
    """Return the line of a load that has failed for memory of a device, and is tried once more in another placement."""
    model = state.models[name]
    where = _named(placement_of_model(state, model))
    return f"{model.policy.name} cannot be loaded on {where}, and is put elsewhere: {reason}"


def freeing(state: Residency, effect: Free) -> str:
    """Return the line of a model that is unloaded, parked or moved, which ``state`` includes already."""
    model = state.models[effect.model]
    done = "Parking" if effect.keeps_weights else "Unloading"
    where = placement_of_model(state, model)
    name = f"{model.policy.name} from {_named(where)}" if where else model.policy.name
    if effect.reason == "move" and (move := best_move(state, [effect.model])) is not None:
        _, target = move
        return f"Moving {name} to {_named(text_beside_devices(state, target.placement))}: {effect.why}"
    if effect.reason not in ("room", "budget"):
        return f"{done} {name}: {effect.why}"
    if effect.suspends and model.leases:
        used = f"{count_text(len(model.leases), 'request')} of it {'pauses' if len(model.leases) == 1 else 'pause'}"
    else:
        used = f"idle for {duration_text(max(0.0, state.now - model.last_used))}"
    back = f"back in about {duration_text(load_seconds(model))}"
    return f"{done} {name} {_because(effect)}: {used}, {back}"


def _because(effect: Free) -> str:
    return effect.why if effect.reason == "room" else f"because {effect.why}"


def waits(state: Residency, reported: Collection[str]) -> dict[str, str]:
    """Return the line of each model that waits for memory which others use, except those in ``reported``.

    A model that only waits until an unload is over is left out: the line of that unload says whom it is for.
    """
    lines = {}
    for name in state.active:
        if name in reported or not is_waiting(state.models[name]) or _only_moves(state.models[name]):
            continue
        plan = plan_load(state, name)
        movable = set(state.resident()) - set(plan.leaving) - {name}
        busy = [*plan.drains, *(n for n in sorted(movable) if state.models[n].load_state is LoadState.LOADING)]
        if plan.fit is Fit.WAITS and busy:
            lines[name] = _wait(state, name, plan.footprint, busy)
    return lines


def is_waiting(model: ModelState) -> bool:
    """Whether the model, whose size is known, is to be loaded as soon as there is memory for it."""
    # In this order: nearly all active models are loaded, and looking for the first waiter takes longest.
    if model.load_state not in ABSENT or model.footprint is None:
        return False
    first = model.first
    return first is not None and first.wants_load


def _only_moves(model: ModelState) -> bool:
    """Whether no request waits for the model, which is loaded in a faster placement if there is room."""
    return model.first is not None and model.first.request == MOVE


def _wait(state: Residency, name: str, footprint: Footprint, busy: Collection[str]) -> str:
    model = state.models[name]
    users = ", ".join(_use(state.models[other]) for other in busy)
    requests = sum(waiter.wants_load for waiter in model.queue)
    verb = "waits" if requests == 1 else "wait"
    needs = lacking(state, name, footprint)
    return f"{count_text(requests, 'request')} for {model.policy.name} {verb}: {needs}; {users}"


def lacking(state: Residency, name: str, footprint: Footprint) -> str:
    """Return what the model needs of each pool that is short, and what is free there."""
    used = state.used
    if not footprint.devices and not state.device_budgets:
        free = part_text(_free(state, used, HOST_NAME), state.budget_bytes)
        return f"it needs {size_text(footprint.total_bytes)}, {free} is free"
    own = state.taken([name], instead={name: footprint})
    beside = state.taken({*state.resident(), name}, state.weights_alone() - {name}, instead={name: footprint})
    beside[HOST_NAME] += state.kept_bytes
    short = set(state.exceeded(beside)) & own.keys() or own.keys()
    parts = (
        f"{size_text(size)} of {_place(pool)}, "
        f"{part_text(_free(state, used, pool), state.budget_of(pool))} is free there"
        for pool, size in _devices_first(own)
        if pool in short
    )
    return f"it needs {', and '.join(parts)}"


def _free(state: Residency, used: Mapping[str, int], pool: str) -> int:
    return max(0, state.budget_of(pool) - used.get(pool, 0))


def _devices_first(taken: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the pools of which something is taken; the host is the last."""
    return [*of_devices(taken).items(), (HOST_NAME, taken[HOST_NAME])]


def _place(pool: str) -> str:
    return "the host" if pool == HOST_NAME else pool


def _named(placement: str) -> str:
    """Return a placement in a sentence."""
    return "the host" if placement == HOST_NAME else placement


def _use(model: ModelState) -> str:
    if model.load_state is LoadState.LOADING:
        return f"{model.policy.name} is loading"
    if model.leases:
        return f"{model.policy.name} is busy ({count_text(len(model.leases), 'request')})"
    return f"{model.policy.name} is in use"

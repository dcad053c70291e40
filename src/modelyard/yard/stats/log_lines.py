"""What the log says of models: loads, unloads and waits, each with the numbers that caused it. Pure."""

from __future__ import annotations

from collections.abc import Collection

from modelyard.system.quantities import count_text, duration_text, part_text, size_text
from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.events import Free
from modelyard.yard.residency.eviction import Fit, load_seconds
from modelyard.yard.residency.state import ABSENT, NO_FOOTPRINT, LoadState, ModelState, Residency


def loading(state: Residency, name: str) -> str:
    """Return the line of a load that begins; its model counts as resident in ``state`` already."""
    model = state.models[name]
    others = [other for other in state.resident() if other != name]
    free_bytes = state.budget_bytes - state.kept_bytes - state.taken_bytes(others, state.weights_alone())
    needed = size_text((model.footprint or NO_FOOTPRINT).total_bytes)
    parked = ", its weights are parked" if model.was_parked else ""
    return f"Loading {model.policy.name} ({needed} predicted of {size_text(max(0, free_bytes))} free{parked})"


def loaded(state: Residency, name: str, took_s: float) -> str:
    """Return the line of a load that has ended well, after ``took_s``."""
    model = state.models[name]
    taken = size_text((model.footprint or NO_FOOTPRINT).total_bytes)
    budget = part_text(state.used_bytes, state.budget_bytes)
    return f"Loaded {model.policy.name} in {duration_text(took_s)}: {taken}, budget {budget}"


def failed(state: Residency, name: str, reason: str) -> str:
    """Return the line of a load that has failed."""
    model = state.models[name]
    if model.has_fallen_back:
        return f"{model.policy.name} cannot be loaded there, and is put elsewhere: {reason}"
    retry_s = model.retry_at - state.now
    retry = f" It is not tried again for {duration_text(retry_s)}." if retry_s > 0 else ""
    return f"{model.policy.name} cannot be loaded: {reason}{retry}"


def freeing(state: Residency, effect: Free) -> str:
    """Return the line of a model that is unloaded or parked, which ``state`` knows of already."""
    model = state.models[effect.model]
    done = "Parking" if effect.keeps_weights else "Unloading"
    if effect.reason not in ("room", "budget"):
        return f"{done} {model.policy.name}: {effect.why}"
    if effect.suspends and model.leases:
        used = f"{count_text(len(model.leases), 'request')} of it {'pauses' if len(model.leases) == 1 else 'pause'}"
    else:
        used = f"idle for {duration_text(max(0.0, state.now - model.last_used))}"
    back = f"back in about {duration_text(load_seconds(model))}"
    return f"{done} {model.policy.name} {_because(effect)}: {used}, {back}"


def _because(effect: Free) -> str:
    return effect.why if effect.reason == "room" else f"because {effect.why}"


def waits(state: Residency, reported: Collection[str]) -> dict[str, str]:
    """Return the line of each model that waits for memory which others use, except those in ``reported``.

    A model that only waits until an unload is over is left out: the line of that unload says whom it is for.
    """
    lines = {}
    for name in state.active:
        if name in reported or not is_waiting(state.models[name]):
            continue
        plan = plan_load(state, name)
        movable = set(state.resident()) - set(plan.leaving) - {name}
        busy = [*plan.drains, *(n for n in sorted(movable) if state.models[n].load_state is LoadState.LOADING)]
        if plan.fit is Fit.WAITS and busy:
            lines[name] = _wait(state, name, busy)
    return lines


def is_waiting(model: ModelState) -> bool:
    """Whether the model, whose size is known, is to be loaded as soon as there is memory for it."""
    # In this order: nearly all active models are loaded, and looking for the first waiter takes longest.
    if model.load_state not in ABSENT or model.footprint is None:
        return False
    first = model.first
    return first is not None and first.wants_load


def _wait(state: Residency, name: str, busy: Collection[str]) -> str:
    model = state.models[name]
    needed = size_text((model.footprint or NO_FOOTPRINT).total_bytes)
    free = part_text(max(0, state.budget_bytes - state.used_bytes), state.budget_bytes)
    users = ", ".join(_use(state.models[other]) for other in busy)
    requests = sum(waiter.wants_load for waiter in model.queue)
    verb = "waits" if requests == 1 else "wait"
    return (
        f"{count_text(requests, 'request')} for {model.policy.name} {verb}: it needs {needed}, {free} is free; {users}"
    )


def _use(model: ModelState) -> str:
    if model.load_state is LoadState.LOADING:
        return f"{model.policy.name} is loading"
    if model.leases:
        return f"{model.policy.name} is busy ({count_text(len(model.leases), 'request')})"
    return f"{model.policy.name} is in use"

"""The next state of the residency while it is being made: the one place where something changes."""

from __future__ import annotations

import math

from modelyard.errors import (
    ModelLoadFailed,
    ModelyardError,
)
from modelyard.yard.residency.events import (
    Complete,
    DiscardKept,
    Effect,
    Free,
    FreeReason,
    Reject,
    StartLoad,
)
from modelyard.yard.residency.eviction import keepable_bytes
from modelyard.yard.residency.queue import without
from modelyard.yard.residency.state import (
    LoadState,
    ModelState,
    RequestId,
    Residency,
    UnloadMode,
    Waiter,
    WaitKind,
)


class StateBuilder:
    """The next state and its effects, as they grow.

    Attributes:
        models, active: of ``state``, which shares them: what is changed in them is seen by functions on states.
        effects: to be run, in order.
        due: times at which something can change by itself.
    """

    def __init__(self, state: Residency) -> None:
        self.models = dict(state.models)
        self.active = set(state.active)
        self.state = state._replace(models=self.models, active=self.active)
        self.effects: list[Effect] = []
        self.due: list[float] = []

    def build(self) -> Residency:
        """The next state."""
        due_at = min([*self.due, *self.state.poison.values()], default=math.inf)
        return self.state._replace(active=frozenset(self.active), due_at=due_at)

    def set_model(self, name: str, model: ModelState) -> ModelState:
        """Let the model be so. What is known of requests that have left it is dropped."""
        if model.deaths_survived:
            model = _with_deaths_of_present(model)
        self.models[name] = model
        # A retired model that is at rest is still looked at once: it is to be forgotten.
        if model.is_at_rest and not model.is_retired:
            self.active.discard(name)
        else:
            self.active.add(name)
        return model

    def waiter(
        self,
        want: WaitKind,
        request: RequestId,
        *,
        priority: int = 0,
        mode: UnloadMode = UnloadMode.DRAIN,
        wait_s: float | None = None,
        kept_bytes: int = 0,
    ) -> Waiter:
        """A new wish; it is in no line yet."""
        state = self.state
        self.state = state._replace(orders=state.orders + 1)
        until = state.now + (state.policy.max_wait_s if wait_s is None else wait_s)
        return Waiter(want, request, state.orders, state.now, until, priority, mode, kept_bytes=kept_bytes)

    def reject(self, name: str, request: RequestId, error: ModelyardError) -> None:
        """Refuse a request, or the caller of an unload or reload, that stands in no line."""
        self.effects.append(Reject(name, request, error))

    def poison(self, content: str, seconds: float) -> None:
        """Refuse requests of this content from now on, for so long."""
        if content:
            self.state = self.state._replace(poison={**self.state.poison, content: self.state.now + seconds})

    def complete(self, name: str, model: ModelState, waiter: Waiter) -> None:
        """The wish of an unload or reload has come true."""
        self.set_model(name, model._replace(queue=without(model.queue, waiter.request)))
        self.effects.append(Complete(name, waiter.request))

    def start_load(self, name: str) -> None:
        """Load the model; its memory counts from now on."""
        model = self.models[name]
        was_parked = model.load_state is LoadState.PARKED
        self.set_model(
            name, model._replace(load_state=LoadState.LOADING, load_began=self.state.now, was_parked=was_parked)
        )
        self.effects.append(StartLoad(name))

    def free(
        self,
        name: str,
        *,
        suspends: bool,
        why: str,
        reason: FreeReason,
        claimant: str | None = None,
        keeps_weights: bool = False,
    ) -> None:
        """Free the model, for ``claimant`` if it is to make room for one; its memory counts until it is freed."""
        was_parked = self.models[name].load_state is LoadState.PARKED
        # What a parked model keeps, it keeps already; after a close nothing is kept.
        is_kept = not was_parked and not self.state.is_closing and reason != "changed"
        keep_bytes = keepable_bytes(self.state, name, claimant) if is_kept else 0
        self.set_model(
            name,
            self.models[name]._replace(
                load_state=LoadState.FREEING,
                reason="",
                was_serving=False,
                promised_bytes=keep_bytes,
                draining_since=None,
                was_parked=was_parked,
            ),
        )
        self.effects.append(Free(name, suspends, keep_bytes, why, keeps_weights, reason))

    def discard_kept(self, name: str) -> None:
        """Drop what outlived the unload of the model."""
        model = self.models[name]
        queue = tuple(waiter._replace(kept_bytes=0) for waiter in model.queue)
        self.set_model(name, model._replace(queue=queue, prefix_bytes=0))
        self.effects.append(DiscardKept(name))

    def refuse_queue(self, name: str, error: ModelyardError) -> None:
        """Refuse everybody who waits for the model; unloads have what they wanted, or are left in the line."""
        model = self.models[name]
        left: list[Waiter] = []
        for waiter in model.queue:
            if waiter.kind is not WaitKind.UNLOAD:
                self.reject(name, waiter.request, error)
            elif model.load_state is LoadState.PARKED and waiter.mode is not UnloadMode.PARK:
                left.append(waiter)
            else:
                self.effects.append(Complete(name, waiter.request))
        self.set_model(name, model._replace(queue=tuple(left)))


def _with_deaths_of_present(model: ModelState) -> ModelState:
    present = model.leases.keys() | {waiter.request for waiter in model.queue}
    if model.deaths_survived.keys() <= present:
        return model
    survived = {request: deaths for request, deaths in model.deaths_survived.items() if request in present}
    return model._replace(deaths_survived=survived, suspects=model.suspects & survived.keys())


def load_failure(builder: StateBuilder, model: ModelState) -> ModelLoadFailed:
    """Why the model is not there, and when it will be tried again."""
    retry_s = max(1, math.ceil(model.retry_at - builder.state.now))
    return ModelLoadFailed(model.policy.name, model.reason, retry_s)

"""The next state of the residency while it is being built: the one place where state is mutated."""

from __future__ import annotations

import math

from modelyard.errors import (
    ModelLoadFailed,
    ModelyardError,
)
from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.effects import Complete, DiscardKept, Effect, Free, FreeReason, Reject, Resize, StartLoad
from modelyard.yard.residency.queue import without
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import MOVE, RequestId, Resizing, UnloadMode, Waiter, WaitKind


class StateBuilder:
    """The next state and its effects while they are being built.

    Attributes:
        models, active: the mutable collections of ``state``, which shares them, so functions on states see changes.
        effects: what is to be run, in order.
        due: times at which something can change without another event.
    """

    def __init__(self, state: Residency) -> None:
        self.models = dict(state.models)
        self.active = set(state.active)
        self.state = state._replace(models=self.models, active=self.active)
        self.effects: list[Effect] = []
        self.due: list[float] = []

    def build(self) -> Residency:
        """Return the next state."""
        due_at = min([*self.due, *self.state.poison.values()], default=math.inf)
        return self.state._replace(active=frozenset(self.active), due_at=due_at)

    def set_model(self, name: str, model: ModelState) -> ModelState:
        """Replace the state of a model, without what is recorded of requests that have left it; return it."""
        if model.deaths_survived:
            model = _with_deaths_of_present(model)
        if model.has_claim and (model.load_state is LoadState.LOADING or not (model.is_waited_for or model.growth)):
            model = model._replace(has_claim=False)
        self.models[name] = model
        # A retired model that is at rest stays active until ``reconcile`` removes it.
        if model.is_at_rest and not model.is_retired:
            self.active.discard(name)
        else:
            self.active.add(name)
        return model

    def waiter(
        self,
        kind: WaitKind,
        request: RequestId,
        *,
        priority: int = 0,
        mode: UnloadMode = UnloadMode.DRAIN,
        wait_s: float | None = None,
        kept_bytes: int = 0,
        cells: int = 0,
    ) -> Waiter:
        """Return a new waiter, which is in no queue yet."""
        now, wait_s = self.state.now, self.state.policy.max_wait_s if wait_s is None else wait_s
        order = self.next_order()
        return Waiter(kind, request, order, now, now + wait_s, priority, mode, kept_bytes=kept_bytes, cells=cells)

    def next_order(self) -> int:
        """Return the next place in the order of arrival."""
        order = self.state.orders
        self.state = self.state._replace(orders=order + 1)
        return order

    def reject(self, name: str, request: RequestId, error: ModelyardError) -> None:
        """Refuse a request, an unload or a reload that is in no queue."""
        if request != MOVE:
            self.effects.append(Reject(name, request, error))

    def poison(self, content: str, seconds: float) -> None:
        """Refuse requests of this content from now on, for some seconds."""
        if content:
            self.state = self.state._replace(poison={**self.state.poison, content: self.state.now + seconds})

    def complete(self, name: str, model: ModelState, waiter: Waiter) -> None:
        """Take an unload or reload that is done out of the queue of its model."""
        self.set_model(name, model._replace(queue=without(model.queue, waiter.request)))
        if waiter.request != MOVE:
            self.effects.append(Complete(name, waiter.request))

    def start_load(self, name: str, footprint: Footprint) -> None:
        """Load the model in the placement of ``footprint``; its memory counts from now on."""
        model = self.models[name]
        was_parked = model.load_state is LoadState.PARKED
        self.set_model(
            name,
            model._replace(
                load_state=LoadState.LOADING, load_began=self.state.now, was_parked=was_parked, footprint=footprint
            ),
        )
        self.effects.append(StartLoad(name, footprint.placement, footprint.cells))

    def resize(self, name: str, footprint: Footprint) -> None:
        """Give the context of a loaded model the size in ``footprint``; the larger of both counts until it has it.

        One that shrinks may stay larger, if its requests need that.
        """
        model = self.models[name]
        present = model.footprint
        assert present is not None
        grows = footprint.cells > present.cells
        between = (size.cells for size in footprint.sizes if footprint.cells <= size.cells < present.cells)
        sizes = (footprint.cells,) if grows else tuple(between)
        larger = self.set_model(name, model._replace(footprint=footprint if grows else present, growth=None))
        # States take less than the context that they are saved from.
        free_bytes = max(0, self.state.budget_bytes - self.state.used_bytes)
        keep_bytes = min(free_bytes, present.context_bytes)
        resizing = Resizing(footprint.cells, keep_bytes, is_needed=model.growth is not None)
        self.set_model(name, larger._replace(resizing=resizing, promised_bytes=larger.promised_bytes + keep_bytes))
        self.effects.append(Resize(name, sizes, keep_bytes))

    def free(
        self,
        name: str,
        *,
        suspends: bool,
        why: str,
        reason: FreeReason,
        claimant: str | None = None,
        claimed: Footprint | None = None,
        keeps_weights: bool = False,
    ) -> None:
        """Free the model, which ends a move of it; its memory counts until it is freed.

        ``claimant`` is the model that it makes room for, which takes ``claimed``; None: its present footprint.
        """
        was_parked = self.models[name].load_state is LoadState.PARKED
        # A parked model keeps its prompts already; after a close nothing is kept.
        is_kept = not was_parked and not self.state.is_closing and reason != "changed"
        keep_bytes = _keepable_bytes(self.state, name, claimant, claimed) if is_kept else 0
        self.set_model(
            name,
            self.models[name]._replace(
                load_state=LoadState.FREEING,
                queue=without(self.models[name].queue, MOVE),
                reason="",
                was_serving=False,
                promised_bytes=self.models[name].promised_bytes + keep_bytes,
                makes_room_since=None,
                was_parked=was_parked,
                growth=None,
            ),
        )
        self.effects.append(Free(name, suspends, keep_bytes, why, keeps_weights, reason))

    def discard_kept(self, name: str) -> None:
        """Discard what outlived the unload of the model."""
        model = self.models[name]
        queue = tuple(waiter._replace(kept_bytes=0) for waiter in model.queue)
        self.set_model(name, model._replace(queue=queue, prefix_bytes=0))
        self.effects.append(DiscardKept(name))

    def refuse_queue(self, name: str, error: ModelyardError) -> None:
        """Refuse all who wait for the model. Unloads complete, or stay queued where parked weights are left to free."""
        model = self.models[name]
        remaining: list[Waiter] = []
        for waiter in model.queue:
            if waiter.kind is not WaitKind.UNLOAD:
                self.reject(name, waiter.request, error)
            elif model.load_state is LoadState.PARKED and waiter.mode is not UnloadMode.PARK:
                remaining.append(waiter)
            else:
                self.effects.append(Complete(name, waiter.request))
        # A forced unload that is done leaves no hold, as everywhere.
        is_forced = any(waiter.mode is UnloadMode.FORCE for waiter in model.queue if waiter not in remaining)
        self.set_model(name, model._replace(queue=tuple(remaining), holds={} if is_forced else model.holds))


def _with_deaths_of_present(model: ModelState) -> ModelState:
    present = model.leases.keys() | {waiter.request for waiter in model.queue}
    if model.deaths_survived.keys() <= present:
        return model
    survived = {request: deaths for request, deaths in model.deaths_survived.items() if request in present}
    return model._replace(deaths_survived=survived, suspects=model.suspects & survived.keys())


def load_failure(builder: StateBuilder, model: ModelState) -> ModelLoadFailed:
    """Return the error that says why the model failed, and when it is tried again."""
    retry_s = max(1, math.ceil(model.retry_at - builder.state.now))
    return ModelLoadFailed(model.policy.name, model.reason, retry_s)


def _keepable_bytes(state: Residency, victim: str, claimant: str | None, claimed: Footprint | None = None) -> int:
    """Return the host memory that may be kept for ``victim`` when it is freed, never exceeding the budget.

    Its state is saved while it is still resident, and stays in memory while ``claimant`` loads, which takes
    ``claimed``; None: its present footprint.
    """
    others, alone = [name for name in state.resident() if name != victim], state.weights_alone()
    after = others if claimant is None else {*others, claimant}
    instead = {} if claimant is None or claimed is None else {claimant: claimed}
    peak = max(state.taken_bytes([*others, victim], alone), state.taken(after, alone - {claimant}, instead)[HOST_NAME])
    return max(0, state.budget_bytes - state.kept_bytes - peak)

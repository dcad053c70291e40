"""Records what the residency does, for those who want to understand it: the way of each request, and of each model."""

from __future__ import annotations

import time
from collections.abc import Sequence

from modelyard.yard.residency import events
from modelyard.yard.residency.effects import Effect
from modelyard.yard.residency.state import ModelState, Residency
from modelyard.yard.residency.waiting import RequestId
from modelyard.yard.stats.request_log import RequestLog
from modelyard.yard.stats.request_phases import Step
from modelyard.yard.stats.residency_history import ResidencyHistory
from modelyard.yard.stats.wait_reason import WaitReason, wait_reason


class Recorder:
    """Keeps the requests and the history of one yard.

    Attributes:
        requests: the requests.
        history: what was in memory when.
    """

    def __init__(self) -> None:
        self.requests = RequestLog()
        self.history = ResidencyHistory()
        # Requests that may wait since the last call of ``explain_waits``, by the name of their model.
        self._arrived: list[tuple[str, RequestId]] = []
        self._changed: set[str] = set()
        # Planning a load takes up to milliseconds, and many requests may arrive for one model.
        self._reasons: dict[str, WaitReason] = {}

    def record(
        self, before: Residency, after: Residency, event: events.ResidencyEvent, effects: Sequence[Effect]
    ) -> None:
        """Record one event and what came of it."""
        if isinstance(event, events.RequestArrived | events.RequestSuspended):
            self._arrived.append((event.model, event.request))
        changed = _changed(before, after)
        if changed:
            self.history.record(before, after, changed, effects)
            self._changed |= changed
            self._reasons.clear()

    def explain_waits(self, state: Residency) -> None:
        """Note of the requests that have begun to wait why they do, and of others that wait what has changed."""
        arrived, changed = self._arrived, self._changed
        self._arrived, self._changed = [], set()
        waiting = {name: model for name in changed if (model := state.models.get(name)) is not None and model.queue}
        for name, request in arrived:
            model = state.models.get(name)
            if model is not None and name not in waiting and any(each.request == request for each in model.queue):
                self._explain(state, name, request)
        for name, model in waiting.items():
            for waiter in model.queue:
                if waiter.is_request:
                    self._explain(state, name, waiter.request)

    def _explain(self, state: Residency, name: str, request: RequestId) -> None:
        if name not in self._reasons:
            self._reasons[name] = wait_reason(state, name)
        kind, text, models = self._reasons[name]
        self.requests.step(request, Step(time.monotonic(), False, kind, text, models))


def _changed(before: Residency, after: Residency) -> set[str]:
    """Return the models whose load state or memory has changed, and those that were added or removed."""
    if before.models is after.models:
        return set()
    # A model that is at rest in both states can only have been added or removed, which is one model in a step.
    names = before.active | after.active
    if len(before.models) != len(after.models):
        names |= before.models.keys() ^ after.models.keys()
    return {name for name in names if _differs(before.models.get(name), after.models.get(name))}


def _differs(old: ModelState | None, new: ModelState | None) -> bool:
    if old is new:
        return False
    if old is None or new is None:
        return True
    return (
        old.load_state is not new.load_state
        or old.footprint is not new.footprint
        or old.makes_room_since != new.makes_room_since
    )

"""A policy that knows all requests beforehand."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Sequence

from modelyard.yard.residency.effects import Effect
from support.costs.machine import Machine
from support.costs.policies import Simple
from support.costs.traffic import Day

STARVING_S = 60.0
"""A model that is waited for longer than this gets memory before all others."""


class Oracle(Simple):
    """Belady's choice with costs: of idle models those go whose bytes and time until their next use are worth least.

    What keeping a model is worth is the time that its load would take. Models that are waited for are loaded by the
    shortest load a waiting request first.

    Args:
        day, machine: what is simulated.
        loads_ahead: whether a model is also loaded before it is asked for, where that displaces only models that are
            used later.
    """

    def __init__(self, day: Day, machine: Machine, *, loads_ahead: bool) -> None:
        super().__init__(day, machine)
        self._sizes = {name: model.total_bytes for name, model in day.models.items()}
        self._load_s = {name: model.load_s(machine) for name, model in day.models.items()}
        self._uses: dict[str, list[float]] = {name: [] for name in day.models}
        for arrival in day.arrivals:
            self._uses[arrival.model].append(arrival.at)
        self._ahead: list[tuple[float, str]] = []
        self._wanted_ahead: dict[str, float] = {}
        if loads_ahead:
            self._ahead = [
                (arrival.at - 1.5 * self._load_s[arrival.model] - machine.free_s, arrival.model)
                for arrival in day.arrivals
            ]
            heapq.heapify(self._ahead)

    @property
    def due_at(self) -> float:
        return self._ahead[0][0] if self._ahead else math.inf

    def tick(self, now: float) -> Sequence[Effect]:
        self.now = now
        has_more = False
        while self._ahead and self._ahead[0][0] <= now:
            _, name = heapq.heappop(self._ahead)
            if name not in self.resident and name not in self.waiting:
                self._wanted_ahead[name] = self._next_use(name)
                has_more = True
        return self.allocate() if has_more else ()

    def _next_use(self, name: str) -> float:
        uses = self._uses[name]
        at = bisect_right(uses, self.now)
        return uses[at] if at < len(uses) else math.inf

    def allocate(self) -> Sequence[Effect]:
        effects: list[Effect] = []
        waiting = [name for name in self.waiting if name not in self.loading and name not in self.freeing]
        # The last used is the arrival of its last request, so that a sum over requests is not needed.
        waiting.sort(key=lambda name: self._load_s[name] / len(self.waiting[name]))
        starving = [name for name in waiting if self.now - self.day.arrivals[self.waiting[name][0]].at > STARVING_S]
        for name in [*starving, *(other for other in waiting if other not in starving)]:
            if not self._make_room(name, effects, self.now) and name in starving:
                return effects
        for name, used_at in sorted(self._wanted_ahead.items(), key=lambda each: each[1]):
            if name in self.resident or name in self.waiting or used_at < self.now:
                del self._wanted_ahead[name]
            elif not waiting and self._make_room(name, effects, used_at):
                self._wanted_ahead.pop(name, None)
        return effects

    def _make_room(self, name: str, effects: list[Effect], used_at: float) -> bool:
        """Load a model that is used at a time, or free what has to go for it; return whether it is on its way."""
        short = self._sizes[name] + sum(self._sizes[other] for other in self.resident) - self.machine.budget_bytes
        if short <= 0:
            effects.append(self.load(name))
            return True
        leaving = sum(self._sizes[other] for other in self.freeing)
        if short <= leaving:
            return False
        short -= leaving
        victims: list[str] = []
        candidates = [other for other in self.idle() if self._next_use(other) > used_at + self._load_s[name]]
        for other in sorted(candidates, key=self._worth):
            if short <= 0:
                break
            victims.append(other)
            short -= self._sizes[other]
        if short > 0:
            return False
        for other in reversed(victims):
            if short + self._sizes[other] <= 0:
                short += self._sizes[other]
            else:
                effects.append(self.free(other))
        return False

    def _worth(self, name: str) -> tuple[float, str]:
        """Return what a second and a byte of keeping a model save."""
        return self._load_s[name] / (self._sizes[name] * (self._next_use(name) - self.now + 1e-9)), name

"""The residency that serves, and what other servers do: the least recently used model goes, by count or by bytes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

from modelyard.yard.residency import advance_clock, step
from modelyard.yard.residency.effects import Effect, Free, Grant, StartLoad
from modelyard.yard.residency.events import EngineFreed, EngineLoaded, RequestArrived, RequestEnded, ResidencyEvent
from modelyard.yard.residency.policy import ModelPolicy, WaitPolicy
from modelyard.yard.residency.state import Residency
from modelyard.yard.residency.waiting import RequestId
from support.costs.machine import Machine
from support.costs.traffic import Day


class Served:
    """The residency of a server."""

    def __init__(self, day: Day, machine: Machine, policy: WaitPolicy | None = None) -> None:
        policies = {name: ModelPolicy(name, max_requests=1_000) for name in day.models}
        self.state = Residency.of(policies, machine.budget_bytes, policy)

    @property
    def due_at(self) -> float:
        return self.state.due_at

    def tick(self, now: float) -> Sequence[Effect]:
        self.state, effects = advance_clock(self.state, now)
        return effects

    def feed(self, event: ResidencyEvent) -> Sequence[Effect]:
        self.state, effects = step(self.state, event)
        return effects


class Simple(ABC):
    """What policies have in common that serve requests one model after the other and never suspend one.

    Attributes:
        now: the time.
        loaded, loading, freeing: models.
        leases: requests that each model serves.
        waiting: requests that wait for models that are not loaded, by model; the first model has waited longest.
        last_used: last arrival or end of a request.
    """

    def __init__(self, day: Day, machine: Machine) -> None:
        self.day, self.machine = day, machine
        self.now = 0.0
        self.loaded: set[str] = set()
        self.loading: set[str] = set()
        self.freeing: set[str] = set()
        self.leases: Counter[str] = Counter()
        self.waiting: dict[str, list[RequestId]] = {}
        self.last_used: dict[str, float] = {}

    @property
    def due_at(self) -> float:
        return math.inf

    def tick(self, now: float) -> Sequence[Effect]:
        self.now = now
        return ()

    def feed(self, event: ResidencyEvent) -> Sequence[Effect]:
        effects: list[Effect] = []
        match event:
            case RequestArrived(name, request):
                self.last_used[name] = self.now
                if name in self.loaded:
                    self.leases[name] += 1
                    effects.append(Grant(name, request))
                else:
                    self.waiting.setdefault(name, []).append(request)
            case RequestEnded(name):
                self.last_used[name] = self.now
                self.leases[name] -= 1
            case EngineLoaded(name):
                self.loading.discard(name)
                self.loaded.add(name)
                requests = self.waiting.pop(name, [])
                self.leases[name] += len(requests)
                effects += [Grant(name, request) for request in requests]
            case EngineFreed(name):
                self.freeing.discard(name)
            case _:
                raise AssertionError(event)
        return [*effects, *self.allocate()]

    @abstractmethod
    def allocate(self) -> Sequence[Effect]:
        """Return the loads and frees that follow."""

    @property
    def resident(self) -> set[str]:
        """All models that take memory."""
        return self.loaded | self.loading | self.freeing

    def idle(self) -> list[str]:
        """Return the loaded models without requests."""
        return [name for name in self.loaded if not self.leases[name]]

    def load(self, name: str) -> Effect:
        self.loading.add(name)
        return StartLoad(name)

    def free(self, name: str) -> Effect:
        self.loaded.discard(name)
        self.freeing.add(name)
        return Free(name, suspends=False, keep_bytes=0, why="")


class LeastRecentlyUsed(Simple):
    """The model that has waited longest is loaded next, and the least recently used idle ones go until it fits.

    Args:
        day, machine: what is simulated.
        by_count: at most as many models are loaded as fit whichever they are, as where a number is configured
            (``--models-max`` of llama.cpp's server, ``OLLAMA_MAX_LOADED_MODELS``); otherwise their bytes count.
    """

    def __init__(self, day: Day, machine: Machine, *, by_count: bool) -> None:
        super().__init__(day, machine)
        self._sizes = {name: 1 if by_count else model.total_bytes for name, model in day.models.items()}
        largest = max(model.total_bytes for model in day.models.values())
        self._budget = machine.budget_bytes // largest if by_count else machine.budget_bytes

    def allocate(self) -> Sequence[Effect]:
        effects: list[Effect] = []
        for name in list(self.waiting):
            if name in self.loading or name in self.freeing:
                continue
            short = self._sizes[name] + sum(self._sizes[other] for other in self.resident) - self._budget
            if short <= 0:
                effects.append(self.load(name))
                continue
            # What is being freed already is room for the first, which all others wait behind.
            short -= sum(self._sizes[other] for other in self.freeing)
            for other in sorted(self.idle(), key=lambda other: (self.last_used[other], other)):
                if short <= 0:
                    break
                short -= self._sizes[other]
                effects.append(self.free(other))
            break
        return effects

"""The events of a day in their order: arrivals, loads, tokens, and what a policy makes of them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.effects import ComputeFootprint, Effect, Free, Grant, Reject, StartLoad
from modelyard.yard.residency.events import (
    EngineFreed,
    EngineLoaded,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    ResidencyEvent,
    Sized,
)
from modelyard.yard.residency.waiting import RequestId
from support.costs.engine import Engine, Job
from support.costs.machine import Machine, SimulatedModel
from support.costs.sharing import Shared
from support.costs.traffic import Arrival, Day


class Policy(Protocol):
    """Decides which models are loaded, with the events and effects of the residency."""

    @property
    def due_at(self) -> float:
        """When it can do something without an event."""
        ...

    def tick(self, now: float) -> Sequence[Effect]:
        """Hear of the time."""
        ...

    def feed(self, event: ResidencyEvent) -> Sequence[Effect]:
        """Hear of an event at the time of the last tick."""
        ...


@dataclass(slots=True)
class Outcome:
    """What callers saw of a day.

    Attributes:
        duration_s: of the day.
        first_token_s: by request in the order of arrival: how long its first token took; infinite where none came.
        tokens: of its answer, by request.
        loads, wakes, suspensions: how many there were; a wake is the load of a model whose weights were parked.
        load_s: seconds that all loads took together.
        peak_bytes: the most memory that models took.
    """

    duration_s: float
    first_token_s: list[float]
    tokens: list[int]
    loads: int = 0
    wakes: int = 0
    suspensions: int = 0
    load_s: float = 0.0
    peak_bytes: int = 0

    def goodput(self, bound_s: float) -> float:
        """Return the requests a second whose first token came within ``bound_s``."""
        return sum(first_s <= bound_s for first_s in self.first_token_s) / self.duration_s

    def good_tokens_per_s(self, bound_s: float) -> float:
        """Return the tokens a second of those requests."""
        pairs = zip(self.first_token_s, self.tokens, strict=True)
        return sum(tokens for first_s, tokens in pairs if first_s <= bound_s) / self.duration_s

    def quantile(self, share: float) -> float:
        """Return the seconds within which a share of the requests had their first token."""
        return sorted(self.first_token_s)[min(len(self.first_token_s) - 1, int(share * len(self.first_token_s)))]


def play(day: Day, machine: Machine, policy: Policy) -> Outcome:
    """Have a policy serve a day; requests that are not answered a quarter of an hour after its end never are.

    Raises:
        AssertionError: the policy loads what does not fit, or frees what it may not.
    """
    world = _World(day, machine, policy)
    world.run(day.duration_s + 900.0)
    return world.outcome


@dataclass(slots=True)
class _Loading:
    """A load under way: of which version of the model, and at which work done it ends."""

    began_at: float
    end_s: float


@dataclass
class _World:
    """All that is loaded, computed and waited for."""

    day: Day
    machine: Machine
    policy: Policy
    now: float = 0.0
    outcome: Outcome = field(init=False)

    def __post_init__(self) -> None:
        arrivals = self.day.arrivals
        count = len(arrivals)
        self.outcome = Outcome(self.day.duration_s, [math.inf] * count, [each.answer for each in arrivals])
        self._engines: dict[str, Engine] = {}
        self._loading: dict[str, _Loading] = {}
        self._parked: set[str] = set()
        self._freeing: dict[str, bool] = {}
        self._suspended: dict[int, Job] = {}
        self._nodes, self._disks = Shared(self.machine.nodes), Shared(self.machine.nodes)
        # By work done, with the number that an entry is valid for.
        self._computing: list[tuple[float, int, str]] = []
        self._valid: dict[str, int] = {}
        self._reading: list[tuple[float, str]] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._taken_bytes = 0

    # Time

    def run(self, until: float) -> None:
        """Let everything happen until a time."""
        arrivals, at = self.day.arrivals, 0
        while True:
            self._drop_invalid()
            times = (
                arrivals[at].at if at < len(arrivals) else math.inf,
                self._nodes.time_of(self._computing[0][0]) if self._computing else math.inf,
                self._disks.time_of(self._reading[0][0]) if self._reading else math.inf,
                self._later[0][0] if self._later else math.inf,
                self.policy.due_at,
            )
            now = min(times)
            if now > until:
                return
            self.now = max(now, self.now)
            self._nodes.advance(self.now)
            self._disks.advance(self.now)
            if effects := self.policy.tick(self.now):
                # What was next may be another event by now.
                self._run_all(effects)
                continue
            match times.index(now):
                case 0:
                    self._arrive(at, arrivals[at])
                    at += 1
                case 1:
                    self._compute(heapq.heappop(self._computing)[2])
                case 2:
                    self._loaded(heapq.heappop(self._reading)[1])
                case 3:
                    heapq.heappop(self._later)[2]()

    def _drop_invalid(self) -> None:
        while self._computing and self._valid.get(self._computing[0][2]) != self._computing[0][1]:
            heapq.heappop(self._computing)

    def _in(self, seconds: float, outcome: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._later, (self.now + seconds, self._number, outcome))

    # Requests

    def _arrive(self, number: int, arrival: Arrival) -> None:
        self._feed(RequestArrived(arrival.model, RequestId(number)))

    def _grant(self, name: str, request: int) -> None:
        job = self._suspended.pop(request, None)
        if job is None:
            arrival = self.day.arrivals[request]
            job = Job(request, arrival.prompt, arrival.answer)
        engine = self._engines[name]
        self._settle(name, engine)
        engine.add(job)
        self._schedule(name, engine)

    def _compute(self, name: str) -> None:
        """A prompt or an answer of a model has ended."""
        engine = self._engines[name]
        begun, ended = engine.advance(self._nodes.done_s)
        self._note_first(begun)
        self._schedule(name, engine)
        for job in ended:
            self._feed(RequestEnded(name, RequestId(job.request)))

    def _settle(self, name: str, engine: Engine) -> None:
        """Bring an engine to the present; what ends there by rounding ends with its next event."""
        begun, ended = engine.advance(self._nodes.done_s)
        self._note_first(begun)
        for job in ended:
            self._in(0.0, lambda job=job: self._feed(RequestEnded(name, RequestId(job.request))))

    def _note_first(self, begun: Sequence[Job]) -> None:
        for job in begun:
            if self.outcome.first_token_s[job.request] == math.inf:
                self.outcome.first_token_s[job.request] = self.now - self.day.arrivals[job.request].at

    def _schedule(self, name: str, engine: Engine) -> None:
        self._number += 1
        self._valid[name] = self._number
        self._nodes.jobs = sum(other.is_busy for other in self._engines.values())
        if engine.is_busy:
            heapq.heappush(self._computing, (engine.next_at(), self._number, name))

    # Loads and frees

    def _start_load(self, name: str) -> None:
        model = self.day.models[name]
        assert not {name} & (self._engines.keys() | self._loading.keys() | self._freeing.keys()), name
        was_parked = name in self._parked
        self._parked.discard(name)
        seconds = self.machine.wake_s if was_parked else model.load_s(self.machine)
        self.outcome.wakes += was_parked
        self.outcome.loads += not was_parked
        self._loading[name] = _Loading(self.now, self._disks.done_s + seconds)
        self._disks.jobs += 1
        heapq.heappush(self._reading, (self._loading[name].end_s, name))
        self._count()

    def _loaded(self, name: str) -> None:
        loading = self._loading.pop(name)
        self._disks.jobs -= 1
        self.outcome.load_s += self.now - loading.began_at
        self._engines[name] = Engine(self.day.models[name], self.machine, self._nodes.done_s)
        self._feed(EngineLoaded(name))

    def _free(self, effect: Free) -> None:
        name = effect.model
        if name in self._parked:
            self._freeing[name] = True
            self._in(self.machine.free_s, lambda: self._freed(name, keeps_weights=False, was_parked=True))
            return
        engine = self._engines.pop(name)
        engine.advance(self._nodes.done_s)
        jobs = engine.take_all()
        assert effect.suspends or not jobs, f"{name} is freed while it serves"
        self._valid.pop(name, None)
        self._nodes.jobs = sum(other.is_busy for other in self._engines.values())
        self._freeing[name] = False
        room = effect.keep_bytes
        for job in jobs:
            arrival = self.day.arrivals[job.request]
            tokens = arrival.prompt + arrival.answer - round(job.answer)
            kept = min(tokens * self.day.models[name].token_bytes, room)
            room -= kept
            if not kept:
                job.prompt = max(job.prompt, tokens)
            self._suspended[job.request] = job
            self.outcome.suspensions += 1
            request = RequestId(job.request)
            self._in(0.0, lambda request=request, kept=kept: self._feed(RequestSuspended(name, request, kept)))
        self._in(self.machine.free_s, lambda: self._freed(name, keeps_weights=effect.keeps_weights, was_parked=False))

    def _freed(self, name: str, *, keeps_weights: bool, was_parked: bool) -> None:
        del self._freeing[name]
        if was_parked:
            self._parked.discard(name)
        if keeps_weights:
            self._parked.add(name)
        self._feed(EngineFreed(name, 0, keeps_weights))

    def _count(self) -> None:
        models = self.day.models
        whole = [*self._engines, *self._loading, *(name for name, parked in self._freeing.items() if not parked)]
        taken = sum(models[name].total_bytes for name in whole)
        taken += sum(models[name].weights_bytes for name in self._parked)
        self.outcome.peak_bytes = max(self.outcome.peak_bytes, taken)
        assert taken <= self.machine.budget_bytes, f"{taken} bytes are taken of {self.machine.budget_bytes}"

    # The policy

    def _feed(self, event: ResidencyEvent) -> None:
        self._run_all(self.policy.feed(event))

    def _run_all(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Grant(name, request):
                    self._grant(name, request)
                case StartLoad(name):
                    self._start_load(name)
                case Free():
                    self._free(effect)
                case ComputeFootprint(name):
                    self._in(0.0, lambda name=name: self._feed(Sized(name, footprint_of(self.day.models[name]))))
                case Reject(_, request):
                    self._suspended.pop(request, None)


def footprint_of(model: SimulatedModel) -> Footprint:
    """Return what the header of the model's file tells."""
    return Footprint(model.name, model.weights_bytes, model.context_bytes)

"""What is known of every model: the state of the residency machine. Values only; ``step`` makes the next one.

Named tuples, because changing a field makes a new value several times a step, which dataclasses do five times slower.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, NewType

from modelyard.yard.memory.footprint import Footprint

RequestId = NewType("RequestId", int)

NO_FOOTPRINT = Footprint("", 0, 0)
_NO_LEASES: Mapping[RequestId, int] = {}
_NO_DEATHS: Mapping[RequestId, int] = {}
_NO_POISON: Mapping[str, float] = {}


class LoadState(Enum):
    """Where a model's weights are."""

    UNLOADED = "unloaded"
    SIZING = "sizing"
    """Its files are being looked at, to know what it will take. It takes nothing yet."""
    LOADING = "loading"
    LOADED = "loaded"
    FREEING = "freeing"
    PARKED = "parked"
    """Its weights are in memory, and nothing else: to serve again, it only needs a context."""
    FAILED = "failed"


# From the effect that starts a load to the event that says all is free, memory is taken.
RESIDENT = frozenset({LoadState.LOADING, LoadState.LOADED, LoadState.FREEING, LoadState.PARKED})

# It does not serve, and a load can begin.
ABSENT = frozenset({LoadState.UNLOADED, LoadState.PARKED, LoadState.FAILED})


class WaitKind(Enum):
    """What somebody in a model's line waits for."""

    LEASE = "lease"
    RESUME = "resume"
    """A lease again: the request was suspended in the middle of its answer."""
    LOAD = "load"
    UNLOAD = "unload"


class UnloadMode(Enum):
    """What an unload does to the requests that the model is serving."""

    DRAIN = "drain"
    """It waits for them."""
    SUSPEND = "suspend"
    """They pause, and go on when the model is loaded again."""
    FORCE = "force"
    """They end with an error."""
    PARK = "park"
    """It waits for them, and then frees all but the weights."""

    @property
    def waits(self) -> bool:
        """Whether it waits for the requests before it."""
        return self in (UnloadMode.DRAIN, UnloadMode.PARK)


class Waiter(NamedTuple):
    """Somebody in a model's line.

    Attributes:
        order: of arrival, over all models.
        since, until: on the clock of Tick; at ``until`` it is refused.
        priority: of a request; higher goes first.
        mode: of an unload.
        does_not_trigger_load: a suspended request that waits for others to bring its model back.
        kept_bytes: of host memory that a suspended request holds.
    """

    kind: WaitKind
    request: RequestId
    order: int
    since: float
    until: float
    priority: int = 0
    mode: UnloadMode = UnloadMode.DRAIN
    does_not_trigger_load: bool = False
    kept_bytes: int = 0

    @property
    def wants_load(self) -> bool:
        """Whether it is served by a loaded model."""
        return self.kind is not WaitKind.UNLOAD


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """How a model is to be treated, as configured.

    Attributes:
        name: as people know it.
        max_requests: leases and waiting requests, together; one more is refused.
        is_pinned: it is never unloaded to make room, nor for being idle.
        priority: of requests that name none; higher goes first.
        idle_unload_s: seconds without a request after which it is unloaded; infinite: never.
    """

    name: str
    max_requests: int
    is_pinned: bool = False
    priority: int = 0
    idle_unload_s: float = math.inf


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """The bounds of waiting, in seconds.

    Attributes:
        max_wait_s: that anybody stands in a line. OpenAI's clients give up after as long.
        min_residency_s: that a busy model stays before it makes room for another, and at least
            ``residency_per_load`` times as long as its load took: loading never takes most of the time.
        drain_s: that a model which makes room lets its running requests go on before they are suspended.
        patience_s: after which a request counts as urgent as any that holds its memory, whatever the priorities.
    """

    max_wait_s: float = 600.0
    min_residency_s: float = 10.0
    residency_per_load: float = 4.0
    drain_s: float = 2.0
    patience_s: float = 60.0


class ModelState(NamedTuple):
    """One model.

    Attributes:
        policy: how it is configured.
        footprint: what it takes, predicted or measured; None until its files were looked at.
        queue: who waits for something.
        leases: requests that the model is serving, with their priorities.
        prefix_bytes: of host memory, for prompts that outlived its last unload.
        promised_bytes: of host memory that may yet be kept, while it is being freed.
        reason: why the last load or the engine failed, while FAILED, or while FREEING what a dying engine took.
        failures: in a row.
        retry_at: on the clock of Tick; before that a request does not start another load.
        load_began, last_used: on the clock of Tick; of the last load, and the last end of a request.
        loaded_at: on the clock of Tick; when its engine was loaded. Infinite where it has no engine that was.
        load_s: seconds that its last load took; None before the first.
        wake_s: the same of its last load that found the weights parked.
        idle_unload_s: as its last request, or its traits, want it.
        draining_since: on the clock of Tick, while it makes room: it grants nothing, and goes when it can.
        was_parked: of a model that is loading or being freed: what was there before were its weights alone.
        was_serving: of a model that is being freed: its engine died while it served; nobody had freed it.
        restarts: deaths of its engines since the server began.
        deaths_in_row: of its engines, without one that served for long between them.
        deaths_while_loading: in a row.
        last_death: the reason of the last one; "" where there was none.
        is_isolated: whether its last engine ran in a process of its own.
        deaths_survived: of requests that held a lease when an engine died, how often they did.
        suspects: requests that an engine was computing when it died, and of which no other has computed a token since.
        is_retired: it is to be forgotten as soon as nobody needs it.
        is_stale: a file that it has mapped was written over. It is being freed, and nothing of it is kept.
    """

    policy: ModelPolicy
    load_state: LoadState = LoadState.UNLOADED
    footprint: Footprint | None = None
    queue: tuple[Waiter, ...] = ()
    leases: Mapping[RequestId, int] = _NO_LEASES
    prefix_bytes: int = 0
    promised_bytes: int = 0
    reason: str = ""
    failures: int = 0
    retry_at: float = 0.0
    load_began: float = 0.0
    loaded_at: float = math.inf
    last_used: float = 0.0
    load_s: float | None = None
    wake_s: float | None = None
    idle_unload_s: float = math.inf
    draining_since: float | None = None
    was_parked: bool = False
    was_serving: bool = False
    restarts: int = 0
    deaths_in_row: int = 0
    deaths_while_loading: int = 0
    last_death: str = ""
    is_isolated: bool = False
    deaths_survived: Mapping[RequestId, int] = _NO_DEATHS
    suspects: AbstractSet[RequestId] = frozenset()
    is_retired: bool = False
    is_stale: bool = False

    @property
    def is_draining(self) -> bool:
        """Whether it is loaded, but is to go as soon as its leases end."""
        return self.load_state is LoadState.LOADED and bool(self.queue) and self.queue[0].kind is WaitKind.UNLOAD

    @property
    def failure(self) -> str | None:
        """Why its last load or its engine failed, until it is tried again; None of a model that did not fail."""
        has_failed = self.load_state is LoadState.FAILED or (self.load_state is LoadState.FREEING and self.reason)
        return self.reason if has_failed else None

    @property
    def is_idle(self) -> bool:
        """Whether it is loaded and nobody wants anything of it."""
        return self.load_state is LoadState.LOADED and not self.leases and not self.queue

    @property
    def is_unused(self) -> bool:
        """Whether it is idle, or parked and nobody wants anything of it."""
        return self.is_idle or (self.load_state is LoadState.PARKED and not self.queue)

    @property
    def is_resident(self) -> bool:
        """Whether it takes memory, if only for its weights."""
        return self.load_state in RESIDENT

    @property
    def has_only_weights(self) -> bool:
        """Whether the memory that it takes is that of its weights alone."""
        return self.load_state is LoadState.PARKED or (self.load_state is LoadState.FREEING and self.was_parked)

    @property
    def kept_bytes(self) -> int:
        """Host memory for what outlives its unloads: prompts, the state of suspended requests, what may yet be kept."""
        return self.prefix_bytes + self.promised_bytes + sum(waiter.kept_bytes for waiter in self.queue)

    @property
    def first(self) -> Waiter | None:
        """Who decides what happens next: the head of the line, of an absent model the first that is not passive."""
        if self.load_state is LoadState.LOADED:
            return self.queue[0] if self.queue else None
        return next((waiter for waiter in self.queue if not waiter.does_not_trigger_load), None)

    @property
    def urgency(self) -> int:
        """The highest priority of those that it serves, or that wait for it; of nobody: lower than any."""
        waiting = [waiter.priority for waiter in self.queue if waiter.wants_load and not waiter.does_not_trigger_load]
        return max([*waiting, *self.leases.values()], default=-sys.maxsize)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing about it can change without an event of its own."""
        return (
            not self.is_resident
            and self.load_state is not LoadState.SIZING
            and not self.queue
            and not self.leases
            and not self.prefix_bytes
        )


class Residency(NamedTuple):
    """All models.

    Attributes:
        budget_bytes: that they may take together.
        now: the time of the last Tick, in seconds.
        due_at: when the next Tick can change something by itself; infinite: none can.
        orders: wishes that were ever made.
        active: the models that are not at rest.
        poison: contents of requests that have ended their engines twice, and until when each is refused.
    """

    models: Mapping[str, ModelState]
    budget_bytes: int
    policy: WaitPolicy = WaitPolicy()
    now: float = 0.0
    due_at: float = math.inf
    orders: int = 0
    active: AbstractSet[str] = frozenset()
    is_closing: bool = False
    poison: Mapping[str, float] = _NO_POISON

    @classmethod
    def of(cls, models: Mapping[str, ModelPolicy], budget_bytes: int, policy: WaitPolicy | None = None) -> Residency:
        """All ``models``, unloaded."""
        states = {name: ModelState(traits, idle_unload_s=traits.idle_unload_s) for name, traits in models.items()}
        return cls(states, budget_bytes, policy or WaitPolicy())

    def resident(self) -> list[str]:
        """The models that take memory, in a stable order."""
        return sorted(name for name in self.active if self.models[name].is_resident)

    def weights_alone(self) -> set[str]:
        """The models that take memory for their weights alone."""
        return {name for name in self.active if self.models[name].has_only_weights}

    def taken_bytes(self, names: Iterable[str], weights_alone: AbstractSet[str] = frozenset()) -> int:
        """What ``names`` take together when they are resident; weights that several share count once.

        Those of them that are in ``weights_alone`` have no context.
        """
        weights: dict[str, int] = {}
        context = 0
        for name in names:
            footprint = self.models[name].footprint or NO_FOOTPRINT
            context += 0 if name in weights_alone else footprint.context_bytes
            for key, size in footprint.weights.items():
                weights[key] = max(weights.get(key, 0), size)
        return context + sum(weights.values())

    @property
    def kept_bytes(self) -> int:
        """Host memory for what outlived unloads, of all models."""
        return sum(self.models[name].kept_bytes for name in self.active)

    @property
    def used_bytes(self) -> int:
        """Everything that counts against the budget now."""
        return self.taken_bytes(self.resident(), self.weights_alone()) + self.kept_bytes

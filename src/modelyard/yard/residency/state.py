"""The state of the residency machine: what is known of every model. Values only; ``step`` makes the next state.

States are named tuples, because a step replaces fields several times, which is five times slower with dataclasses.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import NamedTuple

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint, taken_together
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.residency.policy import ModelPolicy, WaitPolicy
from modelyard.yard.residency.waiting import MOVE, Growth, Hold, RequestId, Resizing, Waiter, WaitKind

NO_FOOTPRINT = Footprint("", 0, 0)
_NO_LEASES: Mapping[RequestId, int] = {}
_NO_HOLDS: Mapping[RequestId, Hold] = {}
_NO_DEATHS: Mapping[RequestId, int] = {}
_NO_POISON: Mapping[str, float] = {}
_NO_BUDGETS: Mapping[str, int] = {}
_NO_FOOTPRINTS: Mapping[str, Footprint] = {}


class LoadState(Enum):
    """Where a model's weights are."""

    UNLOADED = "unloaded"
    SIZING = "sizing"
    """The headers of its files are read, to predict its footprint. It takes no memory yet."""
    LOADING = "loading"
    LOADED = "loaded"
    FREEING = "freeing"
    PARKED = "parked"
    """Only its weights are in memory: to serve again, it needs a context."""
    FAILED = "failed"


# The states in which a model does not serve, and its load can begin.
ABSENT = frozenset({LoadState.UNLOADED, LoadState.PARKED, LoadState.FAILED})


class ModelState(NamedTuple):
    """The state of one model. Times are on the clock of Tick.

    Attributes:
        policy: how it is configured.
        load_state: where its weights are.
        footprint: memory that it takes where it was put last, or else would be put first, predicted or measured; None
            until its files were read.
        choices: its footprints in all placements that it may have, the fastest first; () until its files were read.
        is_outdated: whether it is sized again before it is loaded, because the memory of devices has changed.
        has_fallen_back: whether its load failed for memory of a device, and no load has ended since.
        queue: who waits for something.
        leases: requests that the model is serving, with their priorities.
        holds: by request that has ended: those whose answers go on with a further request.
        prefix_bytes: host memory for prompts that outlived its last unload.
        promised_bytes: host memory that its engine may keep, while it is being freed.
        reason: why the last load or the engine failed, while FAILED, or while FREEING what a dying engine took.
        failures: failed loads in a row.
        retry_at: earliest time at which a request starts another load.
        load_began: start of the last load.
        loaded_at: when its engine was loaded; infinite without a loaded engine.
        last_used: last end of a request.
        load_s: seconds that its last load took; None before the first.
        wake_s: seconds that its last load took which found the weights parked; None before the first.
        demand, demand_as_of: how many requests it has had, those of long ago counting less, and the time of that count;
            see ``expected_cost``.
        idle_unload_s: seconds without a request after which it is unloaded: of its last request, or of its policy.
        has_claim: whether it is the model that others make room for (the claimant): what they give back is kept for it,
            until it loads or nobody waits for it.
        makes_room_since: since when it makes room for another model: it grants no leases, and what still runs after
            ``WaitPolicy.drain_s`` is suspended; None where it does not.
        was_parked: whether a model that is loading or being freed had its weights alone in memory before.
        was_serving: whether a model is being freed because its engine died while it served.
        restarts: deaths of its engines since the server began.
        deaths_in_row: deaths of its engines without a long-serving one between them.
        deaths_while_loading: deaths of its engines in a row while they loaded.
        last_death: reason of the last death; "" where there was none.
        is_isolated: whether its last engine ran in a process of its own.
        deaths_survived: by request: how many engines died while it held a lease.
        suspects: requests that an engine was computing when it died, and for which no engine computed a token since.
        is_retired: whether it is removed as soon as no request needs it.
        is_stale: whether a mapped file was written over: the model is being freed, and nothing of it is kept.
        growth: the larger context that it waits for; None: it needs none.
        resizing: what its engine was asked for; None: its context has the size of ``footprint``. Meanwhile, the larger
            of both counts.
        keeps_size: whether its context turned out to be used, so that it is not asked for again.
    """

    policy: ModelPolicy
    load_state: LoadState = LoadState.UNLOADED
    footprint: Footprint | None = None
    choices: tuple[Footprint, ...] = ()
    is_outdated: bool = False
    has_fallen_back: bool = False
    queue: tuple[Waiter, ...] = ()
    leases: Mapping[RequestId, int] = _NO_LEASES
    holds: Mapping[RequestId, Hold] = _NO_HOLDS
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
    demand: float = 0.0
    demand_as_of: float = 0.0
    idle_unload_s: float = math.inf
    has_claim: bool = False
    makes_room_since: float | None = None
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
    growth: Growth | None = None
    resizing: Resizing | None = None
    keeps_size: bool = False

    @property
    def has_unload_next(self) -> bool:
        """Whether it is loaded, and an unload heads its queue: it is freed at the latest when its leases have ended."""
        return self.load_state is LoadState.LOADED and bool(self.queue) and self.queue[0].kind is WaitKind.UNLOAD

    @property
    def failure(self) -> str | None:
        """Why its last load or its engine failed, until it is tried again; None for a model that did not fail."""
        has_failed = self.load_state is LoadState.FAILED or (self.load_state is LoadState.FREEING and self.reason)
        return self.reason if has_failed else None

    @property
    def is_idle(self) -> bool:
        """Whether it is loaded, without leases and holds, and with an empty queue."""
        return self.load_state is LoadState.LOADED and not self.leases and not self.holds and not self.queue

    @property
    def is_unused(self) -> bool:
        """Whether it is idle, or parked without holds and with an empty queue."""
        return self.is_idle or (self.load_state is LoadState.PARKED and not self.queue and not self.holds)

    @property
    def is_resident(self) -> bool:
        """Whether it takes memory, at least for its weights: from the start of a load to the end of a free."""
        state = self.load_state
        # Compared one by one, because each step of a server asks for all models, and enums are slow to hash.
        return (
            state is LoadState.LOADED
            or state is LoadState.LOADING
            or state is LoadState.FREEING
            or state is LoadState.PARKED
        )

    @property
    def has_only_weights(self) -> bool:
        """Whether it takes memory for its weights alone."""
        return self.load_state is LoadState.PARKED or (self.load_state is LoadState.FREEING and self.was_parked)

    @property
    def kept_bytes(self) -> int:
        """Host memory for what outlives its unloads: prompts, suspended requests, and what a free may still keep."""
        kept = self.prefix_bytes + self.promised_bytes
        return kept + sum(waiter.kept_bytes for waiter in self.queue) if self.queue else kept

    @property
    def lasting_bytes(self) -> int:
        """The ``kept_bytes`` without those of a context that is being resized, which are free when that is done."""
        return self.kept_bytes - (0 if self.resizing is None else self.resizing.kept_bytes)

    @property
    def first(self) -> Waiter | None:
        """The waiter that decides what happens next; None where there is none.

        It is the head of the queue, or, while the model is not loaded, the first waiter that triggers a load.
        """
        if self.load_state is LoadState.LOADED:
            return self.queue[0] if self.queue else None
        return next((waiter for waiter in self.queue if not waiter.does_not_trigger_load), None)

    @property
    def is_waited_for(self) -> bool:
        """Whether it has no memory, and a caller waits until it is loaded; its own move does not count."""
        if not self.queue or self.load_state in (LoadState.LOADED, LoadState.LOADING):
            return False
        first = self.first
        return first is not None and first.wants_load and first.request != MOVE

    @property
    def only_moves(self) -> bool:
        """Whether it was freed to be loaded in a faster placement, and no caller waits for it."""
        return bool(self.queue) and all(waiter.request == MOVE for waiter in self.queue)

    @property
    def urgency(self) -> int:
        """The highest priority of its leases, holds and waiting requests; without any, the lowest number."""
        waiting = [waiter.priority for waiter in self.queue if waiter.wants_load and not waiter.does_not_trigger_load]
        holds = [hold.priority for hold in self.holds.values()]
        return max([*waiting, *self.leases.values(), *holds], default=-sys.maxsize)

    @property
    def is_at_rest(self) -> bool:
        """Whether it can only change by an event of its own."""
        return (
            not self.is_resident
            and self.load_state is not LoadState.SIZING
            and not self.queue
            and not self.leases
            and not self.holds
            and not self.prefix_bytes
        )


class Residency(NamedTuple):
    """The state of all models.

    Attributes:
        models: by ``ResidencyName``.
        budget_bytes: memory of the host that they may take together.
        device_budgets: memory that they may take together of each device, by the name of its pool.
        policy: the bounds of waiting.
        now: the time of the last Tick, in seconds.
        event_at: the time of the last event but Ticks. Models are ranked as of then, so that time alone changes no
            choice among them.
        due_at: when the next Tick can change something by itself; infinite: none can.
        orders: waiters that were ever made.
        active: the models that are not at rest.
        is_closing: whether everything is being freed, and every request refused.
        poison: contents of requests that ended their engines twice, and until when each is refused.
    """

    models: Mapping[str, ModelState]
    budget_bytes: int
    device_budgets: Mapping[str, int] = _NO_BUDGETS
    policy: WaitPolicy = WaitPolicy()
    now: float = 0.0
    event_at: float = 0.0
    due_at: float = math.inf
    orders: int = 0
    active: AbstractSet[str] = frozenset()
    is_closing: bool = False
    poison: Mapping[str, float] = _NO_POISON

    @classmethod
    def of(
        cls,
        models: Mapping[str, ModelPolicy],
        budget_bytes: int,
        policy: WaitPolicy | None = None,
        device_budgets: Mapping[str, int] = _NO_BUDGETS,
    ) -> Residency:
        """Return the state in which all ``models`` are unloaded."""
        states = {name: ModelState(each, idle_unload_s=each.idle_unload_s) for name, each in models.items()}
        return cls(states, budget_bytes, device_budgets, policy or WaitPolicy())

    def display_name(self, model: str) -> ModelId:
        """Return the id of ``model`` as users know it; the model may have been removed with its last event."""
        state = self.models.get(model)
        return ModelId(model) if state is None else state.policy.name

    def resident(self) -> list[str]:
        """Return the models that take memory, in a stable order."""
        return sorted(name for name in self.active if self.models[name].is_resident)

    def weights_alone(self) -> set[str]:
        """Return the models that take memory for their weights alone."""
        return {name for name in self.active if self.models[name].has_only_weights}

    def taken(
        self,
        names: Iterable[str],
        weights_alone: AbstractSet[str] = frozenset(),
        instead: Mapping[str, Footprint] = _NO_FOOTPRINTS,
    ) -> dict[str, int]:
        """Return the bytes that ``names`` take together of each pool when they are resident; shared weights count once.

        Args:
            names: of models.
            weights_alone: models that take nothing beside their weights.
            instead: footprints that count in place of those in the state.
        """
        models = self.models
        return taken_together(
            (
                (instead.get(name) if instead else None) or models[name].footprint or NO_FOOTPRINT,
                name not in weights_alone,
            )
            for name in names
        )

    def taken_bytes(self, names: Iterable[str], weights_alone: AbstractSet[str] = frozenset()) -> int:
        """Return the bytes of the host that ``names`` take together; see ``taken``."""
        return self.taken(names, weights_alone)[HOST_NAME]

    def budget_of(self, pool: str) -> int:
        """Return the bytes that models may take of a pool; 0 for a device that is gone."""
        return self.budget_bytes if pool == HOST_NAME else self.device_budgets.get(pool, 0)

    def exceeded(self, taken: Mapping[str, int]) -> list[str]:
        """Return the pools whose budgets ``taken`` exceeds."""
        return [pool for pool, size in taken.items() if size > self.budget_of(pool)]

    @property
    def kept_bytes(self) -> int:
        """Host memory for what outlived unloads of all models."""
        return sum(self.models[name].kept_bytes for name in self.active)

    @property
    def used(self) -> dict[str, int]:
        """All bytes that count against the budgets now, by pool."""
        active = map(self.models.__getitem__, self.active)
        used = taken_together(
            (model.footprint or NO_FOOTPRINT, not model.has_only_weights) for model in active if model.is_resident
        )
        used[HOST_NAME] += self.kept_bytes
        return used

    @property
    def used_bytes(self) -> int:
        """All bytes of the host that count against its budget now."""
        return self.used[HOST_NAME]

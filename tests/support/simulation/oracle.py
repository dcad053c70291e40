"""What the world knows of models, engines and requests: from effects, and from the events that it makes itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from modelyard.protocol.placement import HOST_NAME, Placement
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.deaths import MAX_DEATHS_IN_ROW, MAX_DEATHS_WHILE_LOADING, POISON_S
from modelyard.yard.residency.effects import (
    Abort,
    Blame,
    Complete,
    ComputeFootprint,
    DiscardKept,
    Effect,
    Free,
    Grant,
    RefuseGrowth,
    Reject,
    Remove,
    Resize,
    StartLoad,
)
from modelyard.yard.residency.events import ResidencyEvent
from modelyard.yard.residency.failures import MAX_BACKOFF_S
from modelyard.yard.residency.policy import ModelPolicy, WaitPolicy
from modelyard.yard.residency.state import Residency
from modelyard.yard.residency.waiting import RequestId, UnloadMode

# Sums of floats of the simulation and of the residency may differ by their last bits.
ROUNDING_S = 1e-9


@dataclass(slots=True)
class Engine:
    """An engine of a model, from StartLoad until its memory is free.

    Attributes:
        loaded_at: None while it loads.
        keep_left: of the host memory that its Free allows, what is not used by suspended requests yet.
        keeps_weights: its Free leaves them.
        is_dying: it has failed, and has not freed its memory yet.
        was_serving: nobody had freed it before.
        is_isolated: what it serves when it dies is suspended, and not ended.
        resizing: sizes of its context that were asked for, and of the present one; () where none is asked for.
        resize_bytes: host memory that states may take until then.
        wanted: KV cells that it waits for, and since when; None where it has enough.
        has_failed_to_grow: there was no memory for its last larger context, and it has not asked again.
    """

    footprint: Footprint
    began_at: float
    loaded_at: float | None = None
    is_freeing: bool = False
    keep_left: int = 0
    keeps_weights: bool = False
    is_dying: bool = False
    was_serving: bool = False
    is_isolated: bool = False
    resizing: tuple[int, ...] = ()
    resize_bytes: int = 0
    wanted: tuple[int, float] | None = None
    has_failed_to_grow: bool = False

    @property
    def is_serving(self) -> bool:
        return self.loaded_at is not None and not self.is_freeing


@dataclass(slots=True)
class Weights:
    """What stays of a parked model, until its Free is done."""

    footprint: Footprint
    is_freeing: bool = False


class Phase(Enum):
    """Where a request is that has not ended."""

    WAITING = "waiting"
    LEASED = "leased"
    SUSPENDED = "suspended"


class End(Enum):
    """How a request ended."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    BLAMED = "blamed"
    ABORTED = "aborted"
    LEFT = "left"


@dataclass(slots=True)
class Request:
    """A request that has not ended.

    Attributes:
        since, until: of its present wait.
        has_left: its client is gone, and its engine has not said so yet.
        behind_drain: it, or its model, has to do with an unload: its wait has no bound of its own.
        content: what it asks; "" where that is not known.
        deaths: of engines that it held leases of.
        is_suspect: an engine was computing it when it died, and no other has computed a token of it since.
        continues: it goes on with the answer of another.
        lost_hold: the hold of the other was gone when it arrived.
    """

    model: str
    phase: Phase
    since: float
    until: float
    kept_bytes: int = 0
    has_left: bool = False
    behind_drain: bool = False
    content: str = ""
    deaths: int = 0
    is_suspect: bool = False
    continues: bool = False
    lost_hold: bool = False


@dataclass(slots=True)
class Caller:
    """The caller of an unload, or of a reload (mode None), who has not been answered."""

    model: str
    since: float
    mode: UnloadMode | None


class Moment(NamedTuple):
    """One step of the machine; ``used``: bytes of each pool afterwards, by the books."""

    before: Residency
    event: ResidencyEvent
    after: Residency
    effects: Sequence[Effect]
    used: Mapping[str, int]


@dataclass
class Oracle:
    """All that the world knows.

    Attributes:
        budgets: bytes of each pool.
        choices: footprints of models whose files were looked at, in all placements, and what was measured since.
        moving: models that were freed to be loaded elsewhere.
        moves: of models since anything happened in the world but moves.
        fallen: models whose load failed for memory of a device, and none has ended since.
        parked: models of which the weights are there, and no engine.
        ends: of requests, once they have one.
        warm: requests that did not wait: they were refused, but their loads go on under their names.
        prefixes: bytes that outlived the last unload.
        failed: models whose last load failed, or of which too many engines died in a row.
        deaths, row, load_deaths: of a model's engines: all, in a row, and in a row while they loaded.
        guilty: requests that have to be blamed now.
        poison: contents that are refused, and until when.
        idle_s: how long a model stays when it is idle: at least, at most.
        used_at: when a model was loaded, or last had a lease.
        unloads: in which step a model was last unloaded on purpose, and how.
        drains: when unloads that wait were done.
        gave_way: busy models that were freed, and the oldest of those that it was for, with the beginning of its wait.
        holds: requests that have ended and whose answers go on, with their models.
        stale: models whose files were written over while they, or their parked weights, were mapped.
        excused: pools of which more may be used than there is: a load took more than predicted, or the budget shrank.
    """

    policy: WaitPolicy
    is_fair: bool = False
    budgets: dict[str, int] = field(default_factory=dict)
    now: float = 0.0
    step: int = 0
    traits: dict[str, ModelPolicy] = field(default_factory=dict)
    retired: set[str] = field(default_factory=set)
    sizing: set[str] = field(default_factory=set)
    choices: dict[str, tuple[Footprint, ...]] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    moves: int = 0
    fallen: set[str] = field(default_factory=set)
    engines: dict[str, Engine] = field(default_factory=dict)
    parked: dict[str, Weights] = field(default_factory=dict)
    requests: dict[RequestId, Request] = field(default_factory=dict)
    ends: dict[RequestId, End] = field(default_factory=dict)
    callers: dict[RequestId, Caller] = field(default_factory=dict)
    warm: dict[RequestId, str] = field(default_factory=dict)
    prefixes: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    deaths: dict[str, int] = field(default_factory=dict)
    row: dict[str, int] = field(default_factory=dict)
    load_deaths: dict[str, int] = field(default_factory=dict)
    guilty: set[RequestId] = field(default_factory=set)
    poison: dict[str, float] = field(default_factory=dict)
    idle_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    used_at: dict[str, float] = field(default_factory=dict)
    unloads: dict[str, tuple[int, UnloadMode]] = field(default_factory=dict)
    drains: list[float] = field(default_factory=list)
    stale: set[str] = field(default_factory=set)
    gave_way: dict[str, tuple[RequestId, float] | None] = field(default_factory=dict)
    holds: dict[RequestId, str] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)
    is_closing: bool = False

    # Questions

    @property
    def budget(self) -> int:
        """Bytes of the host."""
        return self.budgets[HOST_NAME]

    def choice(self, model: str, placement: Placement) -> Footprint:
        """The footprint of a model in a placement; the fastest where it does not have that one."""
        choices = self.choices[model]
        return next((choice for choice in choices if choice.placement == placement), choices[0])

    def begun(self, effect: StartLoad) -> Footprint:
        """What a load takes, with the context that it begins with."""
        choice = self.choice(effect.model, effect.placement)
        return choice.with_cells(effect.cells) if effect.cells else choice

    def is_anyone_growing(self) -> bool:
        """Whether any model waits for a larger context."""
        return any(engine.wanted and engine.is_serving for engine in self.engines.values())

    def used(self, loading: str | None = None, footprint: Footprint | None = None) -> dict[str, int]:
        """Bytes that count against the budgets, also when ``loading`` is loaded beside what is there."""
        engines = [engine.footprint for engine in self.engines.values()]
        engines += [] if footprint is None else [footprint]
        used = taken(engines, (w.footprint for name, w in self.parked.items() if name != loading))
        used[HOST_NAME] += self.kept()
        return used

    def used_instead(self, model: str, footprint: Footprint) -> dict[str, int]:
        """Bytes that count against the budgets when the engine of a model has another footprint."""
        engines = [engine.footprint for name, engine in self.engines.items() if name != model]
        used = taken([*engines, footprint], (weights.footprint for weights in self.parked.values()))
        used[HOST_NAME] += self.kept()
        return used

    def short_beside_pinned(self, model: str, footprint: Footprint) -> list[str]:
        """The pools that a model takes of, and that are too small for it together with all that is pinned and stays."""
        # A model that is retired is not pinned any longer.
        pinned = {name for name, traits in self.traits.items() if traits.is_pinned} - self.retired - {model}
        # One whose unload only waits for the end of its requests, and of those that may follow them, leaves.
        in_use = {name for name in pinned if self.of(name, Phase.LEASED)} | set(self.holds.values())
        pinned = {name for name in pinned if not (self.asked_modes(name) and name in in_use)}
        engines = [e.footprint.whole for name, e in self.engines.items() if name in pinned and not e.is_freeing]
        parked = [w.footprint for name, w in self.parked.items() if name in pinned and not w.is_freeing]
        return self.short(footprint, taken([*engines, footprint.whole], parked))

    def short(self, footprint: Footprint, used: Mapping[str, int]) -> list[str]:
        """The pools of which more is used than there is, of those that are taken of: others are no obstacle to it."""
        return [pool for pool in exceeded(used, self.budgets) if pool in taken([footprint])]

    def fits_somewhere(self, model: str) -> bool:
        """Whether a placement of the model fits beside what is pinned."""
        return not all(self.short_beside_pinned(model, each) for each in self.choices[model])

    def lacks_memory(self, model: str) -> bool:
        """Whether anybody waits for a model that has no memory to serve from yet; its own move does not count."""
        engine = self.engines.get(model)
        # What was suspended by an unload waits until others load the model.
        _, last = self.unloads.get(model, (0, None))
        is_waited_for = any(caller.model == model and caller.mode is None for caller in self.callers.values()) or any(
            request.model == model
            and request.phase is not Phase.LEASED
            and not (last is UnloadMode.SUSPEND and (request.phase is Phase.SUSPENDED or request.continues))
            for request in self.requests.values()
        )
        # Who stands behind an unload waits for that first.
        return is_waited_for and not self.asked_modes(model) and (engine is None or engine.is_freeing)

    def kept(self) -> int:
        """Bytes of what outlived engines, but for weights, and of what may yet outlive them."""
        kept = sum(self.prefixes.values()) + sum(request.kept_bytes for request in self.requests.values())
        return kept + sum(engine.keep_left + engine.resize_bytes for engine in self.engines.values())

    def of(self, model: str, phase: Phase) -> list[RequestId]:
        return [r for r, request in self.requests.items() if request.model == model and request.phase is phase]

    def oldest_of(self, model: str) -> tuple[RequestId, float] | None:
        """Who waits for the longest time for a model, and since when; None where that is not known."""
        waiting = [(n, r.since) for n, r in self.requests.items() if r.model == model and r.phase is not Phase.LEASED]
        oldest = min(waiting, key=lambda each: each[1], default=None)
        # Of those behind a drain it is not known here whose turn it is.
        return None if oldest is None or self.requests[oldest[0]].behind_drain else oldest

    def waiting_or_served(self, model: str) -> int:
        """How many requests and holds take places of a model."""
        return sum(r.model == model for r in self.requests.values()) + list(self.holds.values()).count(model)

    def asked_modes(self, model: str) -> set[UnloadMode]:
        """Return the modes of the unloads that the model's callers wait for."""
        return {caller.mode for caller in self.callers.values() if caller.model == model and caller.mode is not None}

    def is_wanted(self, model: str) -> bool:
        """Whether anybody waits for the model to serve."""
        return (
            any(r.model == model and r.phase is not Phase.LEASED for r in self.requests.values())
            or any(caller.model == model and caller.mode is None for caller in self.callers.values())
            or model in self.warm.values()
        )

    def is_poison(self, content: str) -> bool:
        """Whether requests of this content are refused."""
        return self.now < self.poison.get(content, 0.0)

    # Effects

    def note(self, effect: Effect) -> None:
        """Write down what an effect changes at once; the engines' outcomes come as events."""
        match effect:
            case ComputeFootprint(model):
                self.sizing.add(model)
            case StartLoad(model):
                self.engines[model] = Engine(self.begun(effect), self.now)
                self.parked.pop(model, None)
                self.gave_way.clear()
            case Resize(model, sizes, keep_bytes):
                engine = self.engines[model]
                present = engine.footprint.cells
                engine.resizing, engine.resize_bytes = (*sizes, present), keep_bytes
                engine.footprint = engine.footprint.with_cells(max(*sizes, present))
            case RefuseGrowth(model):
                self.engines[model].wanted = None
            case Free(model) if model in self.sizing:
                self.sizing.discard(model)
            case Free(model) if model in self.parked:
                self.parked[model].is_freeing = True
            case Free(model, _, keep_bytes, _, keeps_weights):
                engine = self.engines[model]
                engine.is_freeing, engine.keep_left, engine.keeps_weights = True, keep_bytes, keeps_weights
                if effect.reason == "move":
                    self.moving.add(model)
                    self.moves += 1
                else:
                    self.moving.discard(model)
                made_room_for = effect.why.removeprefix("to make room for ")
                self.gave_way[model] = self.oldest_of(made_room_for) if self.of(model, Phase.LEASED) else None
            case DiscardKept(model):
                self.prefixes.pop(model, None)
                for request in self.requests.values():
                    if request.model == model:
                        request.kept_bytes = 0
            case Grant(_, request_id):
                request = self.requests[request_id]
                request.phase, request.kept_bytes = Phase.LEASED, 0
            case Reject(model, request_id):
                if self.requests.get(request_id) is not None:
                    self.refuse(request_id)
                else:
                    self.warm.pop(request_id, None)
                    self.callers.pop(request_id, None)
            case Blame(_, request_id):
                self.guilty.discard(request_id)
                if (content := self.requests[request_id].content) != "":
                    self.poison[content] = self.now + POISON_S
                self.end(request_id, End.BLAMED)
            case Abort(_, request_id):
                self.end(request_id, End.ABORTED)
            case Complete(model, request_id):
                self.warm.pop(request_id, None)
                caller = self.callers.pop(request_id, None)
                if caller is not None and caller.mode is not None:
                    self.unloads[model] = (self.step, caller.mode)
                    # Those who stood behind it are first now, and may be older than whom others made room for.
                    self.gave_way.clear()
                    if caller.mode is UnloadMode.FORCE:
                        self.holds = {r: held for r, held in self.holds.items() if held != model}
                    if caller.mode.waits:
                        self.drains.append(self.now)
            case Remove(model):
                del self.traits[model]

    def refuse(self, request_id: RequestId) -> None:
        """A request is rejected; one that did not wait leaves its load behind."""
        request = self.requests[request_id]
        if request.until == request.since:
            self.warm[request_id] = request.model
            least, most = self.idle_s[request.model]
            idle_s = self.traits[request.model].idle_unload_s
            self.idle_s[request.model] = (min(least, idle_s), max(most, idle_s))
        self.end(request_id, End.REJECTED)

    # Events

    def end(self, request_id: RequestId, how: End) -> None:
        request = self.requests.pop(request_id)
        self.ends[request_id] = how
        if request.phase is Phase.LEASED:
            self.used_at[request.model] = self.now
            if not self.of(request.model, Phase.LEASED):
                self.engines[request.model].wanted = None

    def suspend(self, request_id: RequestId, kept_bytes: int) -> None:
        request = self.requests[request_id]
        request.phase, request.kept_bytes = Phase.SUSPENDED, kept_bytes
        request.since, request.until = self.now, self.now + self.policy.max_wait_s
        self.engines[request.model].keep_left -= kept_bytes

    def loaded(self, model: str, measured: Footprint | None) -> None:
        engine = self.engines[model]
        engine.loaded_at = self.now
        if model not in self.moving or self.is_wanted(model):
            self.used_at[model] = self.now
        self.moving.discard(model)
        self.fallen.discard(model)
        self.load_deaths.pop(model, None)
        # What was kept is in the engine's own memory again.
        self.prefixes.pop(model, None)
        self.failed.discard(model)
        if measured is not None:
            engine.footprint = measured
            self.correct(model, measured)
            self.excused.update(taken([measured]))

    def resized(self, model: str, cells: int) -> None:
        """The context of a model has another size, or did not get one."""
        engine = self.engines[model]
        *asked, _ = engine.resizing or (cells, cells)
        if cells > min(asked):
            # It gave back less than was planned with, so that others make room in place of those that went for it.
            self.gave_way.clear()
        engine.footprint, engine.resizing, engine.resize_bytes = engine.footprint.with_cells(cells), (), 0
        if engine.wanted is not None and cells >= engine.footprint.with_cells(engine.wanted[0]).cells:
            engine.wanted = None

    def correct(self, model: str, footprint: Footprint) -> None:
        """A model takes other bytes in one placement than was known."""
        self.choices[model] = tuple(
            footprint if each.placement == footprint.placement else each for each in self.choices[model]
        )

    def lacked(self, model: str) -> bool:
        """The load of a model fails for memory of a device; whether it is loaded elsewhere."""
        footprint, used = self.engines[model].footprint, self.used()
        self.gone(model)
        may_fall_back = len(self.choices[model]) > 1 and model not in self.fallen
        self.fallen ^= {model}
        if not may_fall_back:
            self.fallen.discard(model)
            return False
        shares = list(footprint.devices)
        for pool in {share.pool for share in shares}:
            at = next(index for index, share in enumerate(shares) if share.pool == pool)
            missing = max(0, self.budgets.get(pool, 0) - used[pool] + 1)
            shares[at] = replace(shares[at], context_bytes=shares[at].context_bytes + missing)
        self.correct(model, replace(footprint, devices=tuple(shares)))
        if self.fits_somewhere(model):
            return True
        self.fallen.discard(model)
        return False

    def begin_to_die(self, model: str, active: Iterable[RequestId]) -> None:
        """The engine of a model dies while it computes ``active``, all of which hold leases of it."""
        engine = self.engines[model]
        engine.was_serving = engine.is_serving
        engine.is_freeing = engine.is_dying = True
        for number in self.of(model, Phase.LEASED):
            self.requests[number].deaths += 1
        self.guilty = {number for number in active if self.requests[number].is_suspect}
        if not self.guilty:
            for number in active:
                self.requests[number].is_suspect = True

    def died(self, model: str) -> None:
        """The engine of a model is dead."""
        engine, is_stale = self.engines[model], model in self.stale
        self.note_service(model)
        self.gone(model)
        is_loading = engine.loaded_at is None
        self.deaths[model] = self.deaths.get(model, 0) + 1
        if is_stale:
            self.failed.discard(model)
            return
        self.row[model] = self.row.get(model, 0) + 1
        self.load_deaths[model] = self.load_deaths.get(model, 0) + 1 if is_loading else 0
        self.failed.discard(model)
        is_too_often = self.row[model] >= MAX_DEATHS_IN_ROW or self.load_deaths[model] >= MAX_DEATHS_WHILE_LOADING
        if is_too_often and (engine.was_serving or (is_loading and not engine.is_freeing)):
            self.failed.add(model)

    def note_service(self, model: str) -> None:
        """The engine of a model has ended: one that was loaded for long ends a row of deaths."""
        loaded_at = self.engines[model].loaded_at
        if loaded_at is not None and self.now - loaded_at >= MAX_BACKOFF_S:
            self.row.pop(model, None)

    def gone(self, model: str, prefix_bytes: int = 0, *, keeps_weights: bool = False) -> None:
        engine = self.engines.pop(model)
        if keeps_weights:
            self.parked[model] = Weights(engine.footprint)
        else:
            self.stale.discard(model)
        self.prefixes.pop(model, None)
        if prefix_bytes:
            self.prefixes[model] = prefix_bytes

    def stays(self, model: str, idle_s: float) -> None:
        self.idle_s[model] = (idle_s, idle_s)


def taken(engines: Iterable[Footprint], parked: Iterable[Footprint] = ()) -> dict[str, int]:
    """What engines and parked weights take together of each pool; weights that several share count once."""
    weights: dict[tuple[str, str], int] = {}
    taken = {HOST_NAME: 0}
    for footprint, has_context in [(f, True) for f in engines] + [(f, False) for f in parked]:
        resident = footprint.weights_bytes - (0 if has_context else footprint.mapped_bytes)
        parts = [(HOST_NAME, footprint.weights_key, resident, footprint.context_bytes)]
        if footprint.draft_key:
            parts.append((HOST_NAME, footprint.draft_key, footprint.draft_bytes, 0))
        parts += [(s.pool, s.weights_key, s.weights_bytes, s.context_bytes) for s in footprint.devices]
        for pool, key, size, context in parts:
            weights[pool, key] = max(weights.get((pool, key), 0), size)
            taken[pool] = taken.get(pool, 0) + (context if has_context else 0)
    for (pool, _), size in weights.items():
        taken[pool] += size
    return taken


def exceeded(used: Mapping[str, int], budgets: Mapping[str, int]) -> list[str]:
    """The pools of which more is used than there is."""
    return [pool for pool, size in used.items() if size > budgets.get(pool, 0)]


def least_stay_s(policy: WaitPolicy, engine: Engine) -> float:
    """How long a busy model stays."""
    load_s = math.inf if engine.loaded_at is None else engine.loaded_at - engine.began_at
    return max(policy.min_residency_s, policy.residency_per_load * load_s)

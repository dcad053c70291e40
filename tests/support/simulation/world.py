"""The world around the machine: a clock, a controller, and engines whose outcomes come later."""

from __future__ import annotations

import copy
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, MutableSequence

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency import step as real_step
from modelyard.yard.residency.effects import ComputeFootprint, Effect, Free, Grant, Resize, StartLoad
from modelyard.yard.residency.events import (
    EngineDied,
    EngineDying,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    EngineResized,
    FilesReplaced,
    FilesWrittenOver,
    GrowthWanted,
    HoldReleased,
    Outgrown,
    RequestArrived,
    RequestCleared,
    RequestEnded,
    RequestSuspended,
    ResidencyEvent,
    Sized,
    Tick,
    WeightsLost,
)
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import Residency
from modelyard.yard.residency.waiting import RequestId, UnloadMode
from support.simulation.contexts import ASK_AGAIN_S, MAX_GROWTH_FAILURES_S, MAX_RESIZE_S, Contexts, with_context
from support.simulation.durations import MAX_FREE_S, MAX_LOAD_S, MAX_SIZE_S, POLICY, SLOWNESS, longest_wait_s
from support.simulation.effect_invariants import OF_EFFECTS
from support.simulation.oracle import End, Engine, Moment, Oracle, Phase, Request
from support.simulation.pools import Devices
from support.simulation.report import TRACED, Violation, picture
from support.simulation.step_invariants import OF_STEPS

Step = Callable[[Residency, ResidencyEvent], tuple[Residency, list[Effect]]]

# A settled world needs far fewer; more mean that it never comes to rest.
MAX_STEPS = 4_000
# One step in so many is done again, to see that it is pure, and that nothing is left to do after it.
AGAIN_EVERY = 40


class World:
    """One interleaving.

    Args:
        seed: decides everything.
        step: the machine; a broken one, to see that it is noticed.
        is_fair: a world in which nobody may starve: equal priorities, nothing pinned, every model fits by itself,
            loads and frees end in time, nobody ends anything by force. Answers take as long as they like.
        is_traced: all events and effects are kept in ``trace``, not only the last.
    """

    def __init__(self, seed: int, step: Step = real_step, *, is_fair: bool = False, is_traced: bool = False) -> None:
        self.seed, self.step, self.is_fair = seed, step, is_fair
        self.rng = random.Random(seed)
        self.trace: MutableSequence[tuple[float, ResidencyEvent | Effect]] = [] if is_traced else deque(maxlen=TRACED)
        self.oracle = Oracle(POLICY, is_fair=is_fair)
        self.resizes = self.swaps = self.moved = self.fell_back = self.outgrew = 0
        self.longest_wait = 0.0
        self.names = 0
        self.is_ending = False
        # In some worlds engines die of many requests, and while they load.
        self.is_cursed = not is_fair and self.rng.random() < 0.25
        self._outcomes: list[tuple[float, int, Callable[[], None]]] = []
        # What a model's files say, before anybody has looked.
        self.files: dict[str, tuple[Footprint, ...]] = {}
        self.devices = Devices(seed, is_fair=is_fair)
        self.contexts = Contexts(seed)
        # Timers and threads are late in a real process, by so much at most.
        self.lag_s = self.rng.choice((0.0, 0.0, 0.3))
        for name in "abcdef"[: self.rng.randint(2 if is_fair else 1, 6)]:
            self.invent(name)
        sizes = [choices[-1].total_bytes for choices in self.files.values()]
        least = max(sizes) if is_fair else min(sizes) // 2
        budget = self.rng.randint(least, max(least, sum(sizes)) + 20)
        device_budgets = self.devices.budgets(self.files.values())
        self.oracle.budgets = {HOST_NAME: budget, **device_budgets}
        self.state = Residency.of(self.oracle.traits, budget, POLICY, device_budgets)

    @property
    def now(self) -> float:
        return self.oracle.now

    @property
    def steps(self) -> int:
        return self.oracle.step

    @property
    def is_busy(self) -> bool:
        """Whether anything is being freed."""
        held = (*self.oracle.engines.values(), *self.oracle.parked.values())
        return any(what.is_freeing for what in held)

    # Models

    def invent(self, name: str) -> None:
        """A new model, with files and traits."""
        self.files[name] = self.new_files(name)
        self.oracle.traits[name] = self.new_traits(name)
        self.oracle.stays(name, self.oracle.traits[name].idle_unload_s)

    def new_files(self, name: str) -> tuple[Footprint, ...]:
        """What the files of a model say: its footprints, the fastest first."""
        return self.devices.choices(self.new_footprint(name))

    def new_footprint(self, name: str) -> Footprint:
        key = name if self.is_fair else self.rng.choice(("x", "y", name, name))
        weights = {"x": 60, "y": 30}.get(key, self.rng.randint(10, 100))
        # Some have a draft model, which may be another model too.
        draft = {} if self.is_fair else self.rng.choice(({}, {}, {"draft_key": "x", "draft_bytes": 60}))
        return self.contexts.elastic(Footprint(key, weights, self.rng.randint(5, 40), **draft))

    def new_traits(self, name: str) -> ModelPolicy:
        rng = self.rng
        if self.is_fair:
            return ModelPolicy(name, 50)
        idle_s = rng.choice((math.inf, math.inf, 3.0, 0.0))
        return ModelPolicy(name, rng.choice((1, 3, 50)), rng.random() < 0.15, rng.choice((0, 0, 0, 5, -5)), idle_s)

    def new_request(self) -> RequestId:
        self.names += 1
        return RequestId(self.names)

    # Time

    def later(self, longest_s: float, outcome: Callable[[], None], *, least_s: float = 0.0) -> None:
        """Have ``outcome`` happen at a random time."""
        self.at(self.now + least_s + self.rng.random() * (longest_s - least_s), outcome)

    def at(self, when: float, outcome: Callable[[], None]) -> None:
        """Have ``outcome`` happen at a time."""
        self.names += 1
        heapq.heappush(self._outcomes, (when, self.names, outcome))

    def pass_time(self, until: float) -> None:
        """Let everything happen that is due before ``until``."""
        while True:
            due = self.state.due_at + (self.lag_s * self.rng.random() if self.lag_s else 0.0)
            next_outcome = self._outcomes[0][0] if self._outcomes else math.inf
            at = min(due, next_outcome)
            if at > until or at == math.inf:
                break
            self.oracle.now = max(at, self.now)
            self.catch_up()
            if next_outcome <= due:
                heapq.heappop(self._outcomes)[2]()
        if until < math.inf:
            self.oracle.now = max(until, self.now)
            self.catch_up()

    def catch_up(self) -> None:
        """The controller feeds a Tick before what happens at a time at which one is due."""
        if self.now >= self.state.due_at:
            self._step(Tick(self.now))

    # The controller: events in, effects out

    def feed(self, event: ResidencyEvent) -> None:
        """Have the machine hear of an event; time it has heard of before, or nothing was due."""
        if self.rng.random() < 0.05:
            self._check_nothing_is_due()
        self.state = self.state._replace(now=self.now)
        self._step(event)

    def _step(self, event: ResidencyEvent) -> None:
        self.oracle.step += 1
        if not isinstance(event, Tick | EngineFreed | EngineLoaded):
            self.oracle.moves = 0
        self.trace.append((self.now, event))
        if self.steps > MAX_STEPS:
            self.fail("the_world_comes_to_rest", f"{MAX_STEPS} steps, and it goes on")
        before = self.state
        is_done_again = self.steps % AGAIN_EVERY == 0
        copied = copy.deepcopy(before) if is_done_again else None
        self.state, effects = self.step(before, event)
        for effect in effects:
            self.trace.append((self.now, effect))
            self._run(effect)
        # A move that finds no room is given up, and has no engine then, unless somebody waits for the model by now.
        moving = self.oracle.moving
        self.oracle.moving = {name for name in moving if name in self.oracle.engines or self.oracle.is_wanted(name)}
        moment = Moment(before, event, self.state, effects, self.oracle.used())
        for invariant in OF_STEPS:
            wrong = invariant(self.oracle, moment)
            if wrong is not None:
                self.fail(invariant.__name__, wrong)
        if copied is not None:
            self._check_purity(moment, copied)
            self._check_nothing_is_due()

    def _run(self, effect: Effect) -> None:
        for invariant in OF_EFFECTS.get(type(effect), ()):
            wrong = invariant(self.oracle, effect)
            if wrong is not None:
                self.fail(invariant.__name__, wrong)
        leased = self.oracle.of(effect.model, Phase.LEASED) if isinstance(effect, Free) else []
        was_sizing = effect.model in self.oracle.sizing
        if isinstance(effect, Grant):
            self._check_fairness(effect)
        self.oracle.note(effect)
        match effect:
            case ComputeFootprint(model):
                self.later(MAX_SIZE_S, lambda: self._sized(model))
            case StartLoad(model):
                self.swaps += 1
                self._load(model, self.oracle.engines[model])
            case Free(model) if was_sizing:
                self.later(0.0, lambda: self._closed(model))
            case Free(model) if model in self.oracle.parked:
                self.later(MAX_FREE_S, lambda: self._dropped(model))
            case Free():
                self.moved += effect.reason == "move"
                self._free(effect, self.oracle.engines[effect.model], leased)
            case Grant(_, request):
                if effect.alone or (self.is_cursed and self.rng.random() < 0.5):
                    self._compute(request, self.oracle.engines[effect.model])
                if not self.is_fair or self.is_ending or self.rng.random() < 0.5:
                    self.later(self.rng.choice((0.5, 5.0, 30.0)), lambda: self.end_lease(request))
                self._use_context(effect.model)
            case Resize(model):
                self.resizes += 1
                self._resize(model, self.oracle.engines[model])

    # Engines

    def _sized(self, model: str) -> None:
        if model not in self.oracle.sizing:
            return
        self.oracle.sizing.discard(model)
        if not self.is_fair and self.rng.random() < 0.1:
            self.oracle.failed.add(model)
            self.feed(EngineLoadFailed(model, "no such file"))
        else:
            self.oracle.choices[model] = self.files[model]
            self.oracle.fallen.discard(model)
            self.devices.planned = {place for place in self.devices.planned if place[0] != model}
            self.feed(Sized(model, self.files[model][0], self.files[model][1:]))

    def _load(self, model: str, engine: Engine) -> None:
        fate = 0.0 if self.is_fair else self.rng.random()
        if self.is_cursed and self.rng.random() < 0.2:
            fate = 0.95
        if (grown := self.devices.outgrown(model, engine.footprint)) is not None:
            self.later(MAX_SIZE_S, lambda: self._outgrown(model, engine, grown))
            return
        if self.devices.lacks_memory(engine.footprint):
            self.later(MAX_LOAD_S, lambda: self._lacked(model, engine))
            return
        # Not at once: a load that takes no time at all is freed at once in turn, and nobody would see a swap.
        if fate < 0.85:
            slowness = SLOWNESS if 0.5 < fate < 0.55 else 1.0
            self.later(MAX_LOAD_S * slowness, lambda: self._loaded(model, engine, is_measured=fate > 0.6))
        elif fate < 0.97:
            self.later(MAX_LOAD_S, lambda: self._failed(model, engine, "bad" if fate < 0.92 else None))
        elif fate < 0.99:
            self.later(MAX_LOAD_S, lambda: self._replaced(model, engine))
        # The rest hangs for ever.

    def _loaded(self, model: str, engine: Engine, *, is_measured: bool) -> None:
        if self.oracle.engines.get(model) is not engine or engine.is_freeing:
            return
        measured = None
        if is_measured:
            context = round(engine.footprint.context_bytes * self.rng.uniform(0.9, 1.1))
            measured = self.devices.measured(with_context(engine.footprint, context))
            # Of some models, weights are computed on in pages of files, which are given back while they are parked.
            measured = measured.mapping(self.rng.choice((0, measured.weights_bytes // 2, measured.weights_bytes)))
        self.oracle.loaded(model, measured)
        engine.is_isolated = self.rng.random() < 0.7
        self.feed(EngineLoaded(model, measured, engine.is_isolated))

    # Contexts

    def _use_context(self, model: str) -> None:
        """The engine of a model may find that it needs a larger context, or could use one."""
        engine = self.oracle.engines[model]
        if engine.footprint.sizes and (wish := self.contexts.wish(engine.footprint)) is not None:
            self.contexts.later(self, 3.0, lambda: self._want_context(model, engine, *wish))

    def _want_context(self, model: str, engine: Engine, needed: int, desired: int) -> None:
        if self.oracle.engines.get(model) is not engine or not engine.is_serving:
            return
        is_needed = needed > engine.footprint.cells and bool(self.oracle.of(model, Phase.LEASED))
        if is_needed:
            since = self.now if engine.wanted is None else engine.wanted[1]
            engine.wanted, engine.has_failed_to_grow = (needed, since), False
        elif needed > engine.footprint.cells or engine.wanted is not None:
            return
        self.feed(GrowthWanted(model, needed, desired))
        if is_needed:
            # Asked for again as long as that is so.
            self.contexts.later(self, ASK_AGAIN_S, lambda: self._want_context(model, engine, needed, desired))

    def _resize(self, model: str, engine: Engine) -> None:
        def is_done() -> None:
            if self.oracle.engines.get(model) is not engine or engine.is_dying:
                return
            sizes, waited_since = engine.resizing, engine.wanted
            cells, failure = self.contexts.outcome(sizes)
            engine.has_failed_to_grow = bool(failure)
            self.oracle.resized(model, cells)
            if waited_since is not None and engine.wanted is None and self.is_fair:
                self._check_growth_time(model, waited_since[1])
            self.feed(EngineResized(model, cells, failure))

        self.contexts.later(self, MAX_RESIZE_S, is_done)

    def _check_growth_time(self, model: str, since: float) -> None:
        waited_s, bound_s = self.now - since, self.bound_s(since) + MAX_GROWTH_FAILURES_S
        if waited_s > bound_s:
            self.fail("no_growth_starves", f"{model} waited {waited_s:.1f} s, longer than {bound_s:.1f}")

    def _outgrown(self, model: str, engine: Engine, grown: Footprint) -> None:
        """It is found to take more than was predicted, and its load does not begin."""
        if self.oracle.engines.get(model) is not engine or engine.is_freeing:
            return
        self.outgrew += 1
        self.oracle.gone(model, self.oracle.prefixes.get(model, 0))
        self.oracle.correct(model, grown)
        self.feed(Outgrown(model, grown))

    def _lacked(self, model: str, engine: Engine) -> None:
        """A device does not have what was predicted."""
        if self.oracle.engines.get(model) is not engine or engine.is_freeing:
            return
        if self.oracle.lacked(model):
            self.fell_back += 1
            self.oracle.failed.discard(model)
        else:
            self.oracle.failed.add(model)
        self.feed(EngineLoadFailed(model, "no memory", lacks_device_memory=True))

    def _failed(self, model: str, engine: Engine, reason: str | None) -> None:
        if self.oracle.engines.get(model) is not engine or engine.is_freeing:
            return
        if reason is None:
            self.oracle.died(model)
            self.feed(EngineDied(model, "crash"))
            return
        self.oracle.gone(model)
        self.oracle.failed.add(model)
        self.oracle.fallen.discard(model)
        # The files may be others the next time.
        if self.rng.random() < 0.2:
            self.files[model] = self.new_files(model)
        self.feed(EngineLoadFailed(model, reason))

    def _replaced(self, model: str, engine: Engine) -> None:
        """The files are others by the time at which they are to be loaded."""
        if self.oracle.engines.get(model) is not engine or engine.is_freeing:
            return
        prefix = self.oracle.prefixes.get(model, 0)
        self.oracle.gone(model, prefix)
        self.files[model] = self.new_files(model)
        self.feed(FilesReplaced(model, "file"))

    def write_over(self, model: str) -> None:
        """The files of a model change under whatever has them mapped."""
        if model in self.oracle.engines or model in self.oracle.parked:
            self.oracle.stale.add(model)
        self.files[model] = self.new_files(model)
        self.feed(FilesWrittenOver(model, "file"))

    def _free(self, effect: Free, engine: Engine, leased: list[RequestId]) -> None:
        """Every lease ends at a time of its own, in any order, and then the engine."""
        model, lasts_s = effect.model, MAX_FREE_S * self.rng.random()
        if self.rng.random() < 0.2:
            # All that an engine says may also come in one batch.
            lasts_s = 0.0
        for request in leased:
            self.later(lasts_s, lambda request=request: self._stop_lease(request, engine, suspends=effect.suspends))
        dies = not self.is_fair and self.rng.random() < 0.05
        if dies and engine.loaded_at is None:
            # Told to stop while it loads, it may come to the end of its load first.
            self.later(lasts_s, lambda: self.feed(EngineLoaded(model)))
        self.later(lasts_s + 1e-6, lambda: self._freed(model, engine, leased, dies=dies), least_s=lasts_s + 1e-6)

    def _stop_lease(self, request: RequestId, engine: Engine, *, suspends: bool) -> None:
        lease = self.oracle.requests.get(request)
        if lease is None or lease.phase is not Phase.LEASED:
            return
        is_over = not self.is_fair and not engine.is_dying and self.rng.random() < 0.2
        if lease.has_left or not suspends or is_over:
            self.end_lease(request)
            return
        # The process that had its state is gone.
        kept = 0 if engine.is_dying else self.rng.choice((0, min(engine.keep_left, 5), engine.keep_left // 2))
        self.oracle.suspend(request, kept)
        self.feed(RequestSuspended(lease.model, request, kept, self.contexts.cells()))

    def _freed(self, model: str, engine: Engine, leased: list[RequestId], *, dies: bool) -> None:
        if dies and not engine.is_dying:
            self._begin_to_die(model, engine)
        for request in leased:
            self._stop_lease(request, engine, suspends=dies and engine.is_isolated)
        if dies:
            self.oracle.died(model)
            self.feed(EngineDied(model, "crash at the end"))
            return
        self.oracle.note_service(model)
        prefix = self.rng.choice((0, engine.keep_left))
        self.oracle.gone(model, prefix, keeps_weights=engine.keeps_weights)
        self.feed(EngineFreed(model, prefix, engine.keeps_weights))

    def _dropped(self, model: str) -> None:
        """The weights of a parked model are free. Its prompts are not touched."""
        del self.oracle.parked[model]
        self.oracle.stale.discard(model)
        self.feed(EngineFreed(model, self.oracle.prefixes.get(model, 0)))

    def _closed(self, model: str) -> None:
        """The files of a model that was being sized are closed."""
        self.feed(EngineFreed(model))

    def lose_weights(self, model: str) -> None:
        """What held the weights of a parked model crashes; of another model, that is of no importance."""
        parked = self.oracle.parked.get(model)
        if parked is not None and not parked.is_freeing:
            del self.oracle.parked[model]
            self.oracle.stale.discard(model)
        self.feed(WeightsLost(model, "crash"))

    def die(self, model: str, cause: RequestId | None = None) -> None:
        """An engine that serves crashes, of a request or whatever else."""
        engine = self.oracle.engines.get(model)
        if engine is None or not engine.is_serving:
            return
        leased, lasts_s = self.oracle.of(model, Phase.LEASED), MAX_FREE_S * self.rng.random()
        if self.rng.random() < 0.5:
            # All in one batch.
            lasts_s = 0.0
        self._begin_to_die(model, engine, cause)
        for request in leased:
            self.later(lasts_s, lambda request=request: self._stop_lease(request, engine, suspends=engine.is_isolated))
        self.later(lasts_s, lambda: self._freed(model, engine, leased, dies=True), least_s=lasts_s)

    def _begin_to_die(self, model: str, engine: Engine, cause: RequestId | None = None) -> None:
        active: list[RequestId] = []
        if engine.is_isolated:
            active = [r for r in self.oracle.of(model, Phase.LEASED) if r == cause or self.rng.random() < 0.3]
        contents = tuple((request, self.oracle.requests[request].content) for request in active)
        self.oracle.begin_to_die(model, active)
        self.feed(EngineDying(model, "crash", contents))

    def _compute(self, request: RequestId, engine: Engine) -> None:
        """A request gets a token, or its engine dies of it, or neither."""

        def has_token() -> None:
            lease = self.oracle.requests.get(request)
            if lease is not None and lease.phase is Phase.LEASED:
                lease.is_suspect = False
                self.feed(RequestCleared(lease.model, request))

        def is_the_end() -> None:
            lease = self.oracle.requests.get(request)
            if lease is not None and self.oracle.engines.get(lease.model) is engine:
                self.die(lease.model, cause=request)

        fate = self.rng.random()
        if fate < (0.7 if self.is_cursed else 0.4):
            self.later(1.0, is_the_end)
        elif fate < 0.9:
            self.later(1.0, has_token)

    def end_lease(self, request: RequestId) -> None:
        """An engine has finished a request, or was told that its client has left."""
        lease = self.oracle.requests.get(request)
        if lease is not None and lease.phase is Phase.LEASED:
            self.oracle.end(request, End.LEFT if lease.has_left else End.ANSWERED)
            leaves_hold = not lease.has_left and self.rng.random() < 0.3
            if leaves_hold:
                if not self.oracle.is_closing:
                    self.oracle.holds[request] = lease.model
                self.later(self.rng.choice((0.05, 2.0, 20.0)), lambda: self._go_on(lease.model, request))
            self.feed(RequestEnded(lease.model, request, leaves_hold))

    def _go_on(self, model: str, hold: RequestId) -> None:
        """The answer that has left a hold goes on, or turns out to be over."""
        oracle = self.oracle
        if model not in oracle.traits:
            return
        if self.is_ending or self.rng.random() < 0.4:
            if oracle.holds.pop(hold, None) is not None:
                oracle.used_at[model] = self.now
            self.feed(HoldReleased(model, hold))
            return
        number, until = self.new_request(), self.now + POLICY.max_wait_s
        has_hold = oracle.holds.pop(hold, None) is not None
        oracle.requests[number] = Request(
            *(model, Phase.WAITING, self.now, until),
            behind_drain=bool(oracle.asked_modes(model)),
            continues=True,
            lost_hold=not has_hold,
        )
        if has_hold and not oracle.is_closing and UnloadMode.FORCE not in oracle.asked_modes(model):
            oracle.stays(model, oracle.traits[model].idle_unload_s)
        self.feed(RequestArrived(model, number, continues=hold, cells=self.contexts.cells()))

    # What must hold of more than one step

    def _check_purity(self, moment: Moment, copied: Residency) -> None:
        if moment.before != copied:
            self.fail("steps_are_pure", "a step changed the state that it was given")
        again, effects = self.step(moment.before, moment.event)
        if again != moment.after or repr(effects) != repr(list(moment.effects)):
            self.fail("steps_are_repeatable", f"done again, it gives {effects}")

    def _check_nothing_is_due(self) -> None:
        """Before ``due_at``, time alone changes nothing: neither now nor a moment before."""
        due_at = self.state.due_at
        until = min(due_at, self.now + 1000.0)
        for now in (self.now, self.now + self.rng.random() * (until - self.now)):
            if self.now <= now < due_at:
                idle, effects = self.step(self.state, Tick(now))
                if effects or idle.models != self.state.models:
                    self.fail("due_is_honest", f"a Tick at {now}, before {due_at}, has effects: {effects}")

    def _check_fairness(self, grant: Grant) -> None:
        request = self.oracle.requests[grant.request]
        if self.is_fair and not request.behind_drain:
            waited_s, bound_s = self.now - request.since, self.bound_s(request.since)
            self.longest_wait = max(self.longest_wait, waited_s / bound_s)
            if waited_s > bound_s:
                self.fail("nobody_starves", f"{grant.request} waited {waited_s:.1f} s, longer than {bound_s:.1f}")

    def bound_s(self, since: float) -> float:
        """The longest wait of who has waited since then, in a fair world."""
        return longest_wait_s(self.oracle, since, self.lag_s)

    def fail(self, invariant: str, message: str) -> None:
        """Raise a violation, with all that is known."""
        raise Violation(self.seed, invariant, message, picture(self.trace, self.state, self.oracle))

"""A simulated yard around the residency machine: callers, engines and a clock that all follow one seed.

``run(seed)`` plays one interleaving and checks every invariant after every step. The world keeps its own books of what
is resident, leased and kept, from the effects alone; the machine's state is only compared with them.
"""

from __future__ import annotations

import copy
import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from modelyard.errors import ModelyardError
from modelyard.yard.memory import Footprint
from modelyard.yard.residency import step as real_step
from modelyard.yard.residency.events import (
    BudgetChanged,
    CloseAsked,
    Complete,
    Effect,
    EngineDied,
    Event,
    Forget,
    Free,
    Freed,
    Grant,
    LoadFailed,
    LoadFinished,
    ModelAdded,
    ModelRetired,
    ModelRetuned,
    Reject,
    ReloadAsked,
    Remove,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Size,
    Sized,
    StartLoad,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.state import Policy, RequestId, Residence, Residency, Traits, UnloadMode

Step = Callable[[Residency, Event], tuple[Residency, list[Effect]]]

POLICY = Policy(longest_wait_s=100.0, least_residency_s=5.0, residency_per_load=2.0, yield_s=1.0, patience_s=20.0)
LONGEST_LOAD_S = 4.0
LONGEST_FREE_S = 1.0
STEPS = 40
LOG_KEPT = 40
# A settled world needs far fewer steps; more mean that it never comes to rest.
MOST_STEPS = 4_000
# One step in so many is done twice, to see that it changes nothing that it was given.
PURITY_EVERY = 50


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, seed: int, message: str, log: list[str]) -> None:
        super().__init__("\n".join([f"seed {seed}: {message}", *log]))
        self.seed, self.message, self.log = seed, message, log


@dataclass
class Engine:
    """What the world knows of a model's engine."""

    footprint: Footprint
    loaded_at: float | None = None
    load_s: float = 0.0
    keep_bytes: int = 0
    is_freeing: bool = False


class World:
    """One interleaving.

    Args:
        seed: decides everything.
        step: the machine; a broken one, to see that it is noticed.
        is_fair: a world in which nobody may starve: equal priorities, nothing pinned, every model fits by itself,
            loads succeed, and nobody unloads anything. Answers never end by themselves.
    """

    def __init__(self, seed: int, step: Step = real_step, *, is_fair: bool = False) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.step, self.is_fair = step, is_fair
        self.now = 0.0
        self.log: deque[tuple[float, Event | Effect]] = deque(maxlen=LOG_KEPT)
        self.requests = 0
        self.steps = 0
        self.outcomes: list[tuple[float, int, Callable[[], None]]] = []
        self.engines: dict[str, Engine] = {}
        self.sizing: set[str] = set()
        self.predicted: dict[str, Footprint] = {}
        self.known: dict[str, Footprint] = {}
        self.traits: dict[str, Traits] = {}
        self.retired: set[str] = set()
        self.waiting: dict[RequestId, str] = {}
        self.leased: dict[RequestId, str] = {}
        self.suspended: dict[RequestId, tuple[str, int]] = {}
        self.left: set[RequestId] = set()
        self.ended: dict[RequestId, str] = {}
        self.callers: dict[RequestId, tuple[str, UnloadMode | None]] = {}
        self.answered: set[RequestId] = set()
        self.warm: set[RequestId] = set()
        self.began: dict[RequestId, float] = {}
        self.prefixes: dict[str, int] = {}
        self.is_excused = False
        self.is_closing = False
        self.is_ending = False
        self.swaps = 0
        names = "abcdef"[: self.dice.randint(2 if is_fair else 1, 6)]
        for name in names:
            self.new_model(name)
        largest = max(f.total_bytes for f in self.predicted.values())
        everything = sum(f.total_bytes for f in self.predicted.values())
        least = largest if is_fair else largest // 2
        self.budget = self.dice.randint(least, max(least, everything) + 20)
        self.state = Residency.of(self.traits, self.budget, POLICY)
        self.state = self.state._replace(models=dict(self.state.models))

    def new_model(self, name: str) -> None:
        dice = self.dice
        key = dice.choice(("x", "y", name)) if not self.is_fair else name
        weights = {"x": 60, "y": 30}.get(key, dice.randint(10, 100))
        self.predicted[name] = Footprint(key, weights, dice.randint(5, 40))
        self.traits[name] = self.new_traits(name)

    def new_traits(self, name: str) -> Traits:
        dice = self.dice
        if self.is_fair:
            return Traits(name, 50)
        idle_s = dice.choice((math.inf, math.inf, 3.0, 0.0))
        return Traits(name, dice.choice((1, 3, 50)), dice.random() < 0.15, dice.choice((0, 0, 0, 5, -5)), idle_s)

    # Time

    def later(self, longest_s: float, outcome: Callable[[], None]) -> None:
        self.requests += 1
        heapq.heappush(self.outcomes, (self.now + self.dice.random() * longest_s, self.requests, outcome))

    def pass_time(self, until: float) -> None:
        """Let everything happen that is due before ``until``."""
        while True:
            due = self.state.due_at
            next_outcome = self.outcomes[0][0] if self.outcomes else math.inf
            at = min(due, next_outcome)
            if at > until or at == math.inf:
                break
            self.be_at(max(at, self.now))
            if next_outcome <= due:
                heapq.heappop(self.outcomes)[2]()
            else:
                self.feed(Tick(self.now))
                self.check(self.state.due_at > self.now, f"due at {self.state.due_at}, which is past: a busy loop")
        if until < math.inf:
            self.be_at(until)

    def be_at(self, now: float) -> None:
        if now < self.state.due_at and self.dice.random() < 0.05:
            idle, effects = self.step(self.state, Tick(now))
            self.check(not effects, f"a Tick at {now}, before {self.state.due_at}, has effects: {effects}")
            self.check(idle.models == self.state.models, f"a Tick at {now}, before anything is due, changes models")
        self.now = now

    # Events in, effects out

    def feed(self, event: Event) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            self.check(False, "the world does not come to rest")
        self.log.append((self.now, event))
        before = self.state._replace(now=self.now)
        copied = copy.deepcopy(before) if self.steps % PURITY_EVERY == 0 else None
        after, effects = self.step(before, event)
        if copied is not None:
            self.check(before == copied, "a step changed the state that it was given")
            again = self.step(before, event)
            self.check((again[0], repr(again[1])) == (after, repr(effects)), "a step is not repeatable")
        if isinstance(event, LoadFailed):
            self.check_failure_is_alone(before, after, event.model)
        self.state = after
        for effect in effects:
            self.log.append((self.now, effect))
            self.take(effect)
        self.check_state()

    def take(self, effect: Effect) -> None:
        match effect:
            case Size(model):
                self.size(model)
            case StartLoad(model):
                self.start_load(model)
            case Free():
                self.free(effect)
            case Forget(model):
                self.prefixes.pop(model, None)
                self.suspended = {r: (m, 0 if m == model else kept) for r, (m, kept) in self.suspended.items()}
            case Grant(model, request):
                self.grant(model, request)
            case Reject(model, request, error):
                self.reject(model, request, error)
            case Complete(model, request):
                self.answer(model, request)
            case Remove(model):
                self.check(model in self.retired, f"{model} is removed, which nobody retired")
                self.check(model not in self.engines, f"{model} is removed while it is resident")

    def size(self, model: str) -> None:
        self.check(model not in self.sizing and model not in self.engines, f"{model} is sized twice, or while resident")
        self.sizing.add(model)

        def outcome() -> None:
            if model not in self.sizing:
                return
            self.sizing.discard(model)
            if not self.is_fair and self.dice.random() < 0.1:
                self.feed(LoadFailed(model, "no such file"))
            else:
                self.known[model] = self.predicted[model]
                self.feed(Sized(model, self.predicted[model]))

        self.later(0.5, outcome)

    def start_load(self, model: str) -> None:
        self.check(model not in self.engines and model not in self.sizing, f"{model} is loaded twice")
        self.check(not self.is_closing, f"{model} is loaded although everything closes")
        engine = self.engines[model] = Engine(self.known[model])
        self.check(self.used() <= self.budget, f"the load of {model} needs {self.used()} of {self.budget}")
        self.swaps += 1
        fate = 0.0 if self.is_fair else self.dice.random()
        began = self.now

        def outcome() -> None:
            if self.engines.get(model) is not engine or engine.is_freeing:
                return
            if fate < 0.85:
                engine.loaded_at, engine.load_s = self.now, self.now - began
                measured = engine.footprint
                if fate > 0.6:
                    measured = replace(measured, context_bytes=measured.context_bytes + self.dice.choice((-3, 3)))
                    self.is_excused = True
                engine.footprint = self.known[model] = measured
                # What was kept is in the engine's own memory again.
                self.prefixes.pop(model, None)
                self.feed(LoadFinished(model, measured))
            else:
                self.gone(model)
                self.feed(LoadFailed(model, "bad") if fate < 0.96 else EngineDied(model, "crash"))

        if fate < 0.99:
            self.later(LONGEST_LOAD_S * (10 if 0.5 < fate < 0.55 else 1), outcome)

    def gone(self, model: str) -> None:
        del self.engines[model]
        self.prefixes.pop(model, None)

    def free(self, effect: Free) -> None:
        model = effect.model
        if self.is_closing and model in self.sizing:
            self.sizing.discard(model)
            self.later(0.1, lambda: self.feed(Freed(model)))
            return
        self.check(model in self.engines, f"{model} is freed, which is not resident")
        engine = self.engines[model]
        self.check(not engine.is_freeing, f"{model} is freed twice")
        self.check(self.is_closing or engine.loaded_at is not None, f"{model} is freed while it loads")
        asked = {mode for m, mode in self.callers.values() if m == model and mode is not None}
        is_explicit = self.is_closing or bool(asked) or model in self.retired
        self.check(is_explicit or not self.traits[model].is_pinned, f"{model} is pinned and freed: {effect.why}")
        leases = [request for request, m in self.leased.items() if m == model]
        if leases:
            may_end = self.is_closing or UnloadMode.FORCE in asked
            self.check(effect.suspends or may_end, f"{model} is leased and freed: {effect.why}")
            stayed = self.now - (engine.loaded_at or 0.0)
            least = max(POLICY.least_residency_s, POLICY.residency_per_load * engine.load_s)
            self.check(is_explicit or stayed >= least - 1e-9, f"{model} went after {stayed:.2f} s, before {least:.2f}")
        engine.is_freeing, engine.keep_bytes = True, effect.keep_bytes
        self.dice.shuffle(leases)
        # An engine that is told to stop may have a last event of each sequence on its way, of either kind.
        deaths = not self.is_fair and self.dice.random() < 0.03

        def outcome() -> None:
            room = effect.keep_bytes
            for request in leases:
                if request not in self.leased:
                    continue
                if request in self.left or not effect.suspends or (not self.is_fair and self.dice.random() < 0.2):
                    self.end_lease(request)
                else:
                    kept = self.dice.choice((0, min(room, 5)))
                    room -= kept
                    del self.leased[request]
                    self.suspended[request] = (model, kept)
                    self.feed(RequestSuspended(model, request, kept))
            self.gone(model)
            if deaths:
                self.feed(EngineDied(model, "crash at the end"))
                return
            prefix = self.dice.choice((0, room))
            self.prefixes[model] = prefix
            self.feed(Freed(model, prefix))

        self.later(LONGEST_FREE_S, outcome)

    def grant(self, model: str, request: RequestId) -> None:
        engine = self.engines.get(model)
        ready = engine is not None and engine.loaded_at is not None and not engine.is_freeing
        self.check(ready, f"{request} is granted {model}, which does not serve")
        if request in self.suspended:
            self.check(self.suspended.pop(request)[0] == model, f"{request} resumes on another model")
        else:
            self.check(self.waiting.pop(request, None) == model, f"{request} is granted, but does not wait for {model}")
            if self.is_fair:
                waited = self.now - self.began[request]
                bound = self.bound()
                self.check(waited <= bound, f"{request} waited {waited:.1f} s, more than {bound:.1f}: starved")
        self.leased[request] = model
        if not self.is_fair or self.is_ending:
            self.later(self.dice.choice((0.5, 5.0, 30.0)), lambda: self.end_lease(request))

    def bound(self) -> float:
        """Longest wait of a fair world: one turn of each other model, and its own load."""
        turn = max(POLICY.least_residency_s, POLICY.residency_per_load * LONGEST_LOAD_S)
        return len(self.traits) * (turn + POLICY.yield_s + LONGEST_FREE_S + LONGEST_LOAD_S + 1.0)

    def end_lease(self, request: RequestId) -> None:
        model = self.leased.pop(request, None)
        if model is not None:
            self.ended[request] = "ended"
            self.feed(RequestEnded(model, request))

    def reject(self, model: str, request: RequestId, error: ModelyardError) -> None:
        if request in self.callers:
            self.answer(model, request)
            return
        if request in self.warm:
            self.warm.discard(request)
            return
        is_known = self.waiting.pop(request, None) == model or self.suspended.pop(request, ("", 0))[0] == model
        self.check(is_known, f"{request} is rejected, but does not wait for {model}")
        self.ended[request] = error.code
        if error.code == "model_loading":
            self.warm.add(request)

    def answer(self, model: str, request: RequestId) -> None:
        if request in self.warm:
            self.warm.discard(request)
            return
        self.check(request in self.callers, f"caller {request} of {model} is answered twice, or never asked")
        del self.callers[request]
        self.answered.add(request)

    def die(self, model: str) -> None:
        engine = self.engines.get(model)
        if engine is None or engine.loaded_at is None or engine.is_freeing:
            return
        for request in [request for request, m in self.leased.items() if m == model]:
            self.end_lease(request)
        # An unload that waited for the last lease may have begun.
        if self.engines.get(model) is engine and not engine.is_freeing:
            self.gone(model)
            self.feed(EngineDied(model, "crash"))

    # What callers do

    def act(self) -> None:
        """One random deed."""
        dice = self.dice
        known = [name for name in self.traits if name in self.state.models]
        if not known:
            return
        model = dice.choice(known)
        if self.is_fair:
            self.arrive(model)
            return
        deed = dice.choices(
            ("arrive", "leave", "unload", "reload", "die", "retune", "add", "retire", "budget", "tick"),
            (50, 12, 10, 6, 3, 3, 1, 2, 2, 5),
        )[0]
        match deed:
            case "arrive" if model not in self.retired:
                self.arrive(model)
            case "leave":
                self.leave()
            case "unload" if model not in self.retired:
                request, mode = self.new_request(), dice.choice(list(UnloadMode))
                self.callers[request] = (model, mode)
                self.feed(UnloadAsked(model, request, mode))
            case "reload" if model not in self.retired:
                request = self.new_request()
                self.callers[request] = (model, None)
                self.feed(ReloadAsked(model, request))
            case "die":
                self.die(model)
            case "retune" if model not in self.retired:
                self.traits[model] = self.new_traits(model)
                self.feed(ModelRetuned(model, self.traits[model]))
            case "add" if len(self.traits) < 8:
                name = f"{model}{len(self.traits)}"
                self.new_model(name)
                self.feed(ModelAdded(name, self.traits[name]))
            case "retire":
                self.retired.add(model)
                self.feed(ModelRetired(model))
            case "budget":
                self.budget = dice.randint(self.budget // 2, self.budget * 2) + 1
                self.is_excused = True
                self.feed(BudgetChanged(self.budget))
            case "tick":
                self.feed(Tick(self.now))

    def new_request(self) -> RequestId:
        self.requests += 1
        return RequestId(self.requests)

    def arrive(self, model: str) -> None:
        dice, request = self.dice, self.new_request()
        self.waiting[request] = model
        self.began[request] = self.now
        if self.is_fair:
            self.feed(RequestArrived(model, request))
            return
        priority = dice.choice((None, None, None, 5, -5))
        wait_s = dice.choice((None, None, None, 0.0, 2.0))
        keep_s = dice.choice((None, None, None, 0.0, 2.0, math.inf))
        self.feed(RequestArrived(model, request, priority, wait_s, keep_s))

    def leave(self) -> None:
        present = [*self.waiting, *self.suspended, *(r for r in self.leased if r not in self.left)]
        if not present:
            return
        request = self.dice.choice(present)
        model = self.waiting.pop(request, None)
        if model is None and request in self.suspended:
            model = self.suspended.pop(request)[0]
        if model is not None:
            self.ended[request] = "left"
            self.feed(RequestEnded(model, request))
        else:
            # Its engine hears of it before its next step.
            self.left.add(request)
            self.later(0.1, lambda: self.end_lease(request))

    # What must hold

    def used(self) -> int:
        weights: dict[str, int] = {}
        total = 0
        for engine in self.engines.values():
            footprint = engine.footprint
            weights[footprint.weights_key] = max(weights.get(footprint.weights_key, 0), footprint.weights_bytes)
            total += footprint.context_bytes
        kept = sum(self.prefixes.values()) + sum(bytes_ for _, bytes_ in self.suspended.values())
        return total + sum(weights.values()) + kept

    def check(self, holds: bool, message: str) -> None:
        if not holds:
            raise Violation(self.seed, message, [f"{now:.3f} {what}" for now, what in self.log])

    def check_state(self) -> None:
        used = self.used()
        promised = sum(engine.keep_bytes for engine in self.engines.values() if engine.is_freeing)
        if used + promised <= self.budget:
            self.is_excused = False
        self.check(used <= self.budget or self.is_excused, f"{used} are used of a budget of {self.budget}")
        for name in self.state.active:
            model = self.state.models[name]
            for wish in model.line:
                if self.now > wish.since + POLICY.longest_wait_s:
                    self.check(False, f"{wish.request} waits for {name} for too long")
        serving = {n for n, e in self.engines.items() if e.loaded_at is not None and not e.is_freeing}
        for name, model in self.state.models.items():
            if model.residence is Residence.LOADED and name not in serving:
                self.check(False, f"{name} counts as loaded, and is not")
            if name not in self.state.active and not model.is_at_rest:
                self.check(False, f"{name} is overlooked: {model}")

    def check_failure_is_alone(self, before: Residency, after: Residency, model: str) -> None:
        for name, state in before.models.items():
            if name != model and state.residence is Residence.LOADED and name in after.models:
                now = after.models[name].residence
                self.check(
                    now is Residence.LOADED or not state.leases, f"the failure of {model} disturbs {name}, which serves"
                )

    def check_rest(self) -> None:
        """Nobody is left waiting, and everybody has had one end."""
        self.check(not self.waiting, f"these wait for ever: {self.waiting}")
        self.check(not self.leased, f"these hold a lease for ever: {self.leased}")
        self.check(not self.suspended, f"these are suspended for ever: {self.suspended}")
        self.check(not self.callers, f"these callers hear nothing: {self.callers}")
        for request in self.began:
            self.check(request in self.ended, f"{request} has no end")

    # The whole

    def play(self, steps: int = STEPS) -> None:
        """Act, let time pass, and let everything come to its end."""
        for _ in range(steps):
            self.act()
            self.pass_time(self.now + self.dice.choice((0.0, 0.0, 0.01, 0.3, 2.0, 8.0)))
        if not self.is_fair and self.dice.random() < 0.2:
            self.is_closing = True
            self.feed(CloseAsked())
        self.is_ending = True
        for request in list(self.leased):
            self.later(1.0, lambda request=request: self.end_lease(request))  # type: ignore[misc]
        self.pass_time(math.inf)
        self.check_rest()


def run(seed: int, step: Step = real_step, *, steps: int = STEPS) -> World:
    """One interleaving; every eighth world is a fair one.

    Raises:
        Violation: an invariant does not hold.
    """
    world = World(seed, step, is_fair=seed % 8 == 7)
    world.play(steps)
    return world

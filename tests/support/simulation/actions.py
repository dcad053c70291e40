"""What callers and operators do, and a whole run of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.residency import step as real_step
from modelyard.yard.residency.events import (
    BudgetChanged,
    CloseAsked,
    DeviceBudgetsChanged,
    ModelAdded,
    ModelRetired,
    ModelRetuned,
    Outdated,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.oracle import Caller, End, Phase, Request
from support.simulation.world import POLICY, Step, World

# Steps of a run before its callers stop.
EVENTS = 50
# Every so manieth world is a fair one.
FAIR_EVERY = 8
MAX_MODELS = 8
# Between two deeds. What is freed or loaded is interfered with.
PAUSES_S = (0.0, 0.0, 0.01, 0.3, 2.0, 8.0)
SOON_S = (0.0, 0.0, 0.01, 0.1, 0.3, 2.0, 8.0)


def offered(world: World) -> list[str]:
    """The models that callers can name."""
    return [name for name in world.oracle.traits if name not in world.oracle.retired]


def arrive(
    world: World,
    model: str,
    *,
    priority: int | None = None,
    wait_s: float | None = None,
    keep_alive_s: float | None = None,
    content: str = "",
) -> None:
    """Somebody wants to use a model."""
    oracle, number = world.oracle, world.new_request()
    longest_s = POLICY.max_wait_s
    until = oracle.now + (longest_s if wait_s is None else min(wait_s, longest_s))
    is_behind = bool(oracle.asked_modes(model))
    oracle.requests[number] = Request(model, Phase.WAITING, oracle.now, until, behind_drain=is_behind, content=content)
    is_refused = oracle.waiting_or_served(model) > oracle.traits[model].max_requests
    is_refused = is_refused or oracle.is_poison(content)
    if not is_refused and not oracle.is_closing:
        oracle.stays(model, oracle.traits[model].idle_unload_s if keep_alive_s is None else keep_alive_s)
    cells = world.contexts.cells()
    world.feed(RequestArrived(model, number, priority, wait_s, keep_alive_s, content, cells=cells))


def leave(world: World) -> None:
    """A client goes away, wherever its request is."""
    present = [number for number, request in world.oracle.requests.items() if not request.has_left]
    if not present:
        return
    number = world.rng.choice(present)
    request = world.oracle.requests[number]
    if request.phase is Phase.LEASED:
        # Its engine hears of it before its next step.
        request.has_left = True
        world.later(0.1, lambda: world.end_lease(number))
    else:
        world.oracle.end(number, End.LEFT)
        world.feed(RequestEnded(request.model, number))


def unload(world: World, model: str, mode: UnloadMode) -> None:
    """An operator wants a model's memory back."""
    number = world.new_request()
    world.oracle.callers[number] = Caller(model, world.now, mode)
    world.oracle.moving.discard(model)
    for request in world.oracle.requests.values():
        request.behind_drain = request.behind_drain or request.model == model
    world.feed(UnloadAsked(model, number, mode))


def reload(world: World, model: str) -> None:
    """An operator wants a model to be there."""
    number = world.new_request()
    world.oracle.callers[number] = Caller(model, world.now, None)
    if not world.oracle.is_closing:
        world.oracle.stays(model, world.oracle.traits[model].idle_unload_s)
    world.feed(ReloadAsked(model, number))


def retune(world: World, model: str, traits: ModelPolicy) -> None:
    before, world.oracle.traits[model] = world.oracle.traits[model], traits
    if traits.idle_unload_s != before.idle_unload_s:
        world.oracle.stays(model, traits.idle_unload_s)
    world.feed(ModelRetuned(model, traits))


def retire(world: World, model: str) -> None:
    world.oracle.retired.add(model)
    world.feed(ModelRetired(model))


def add(world: World, name: str) -> None:
    world.invent(name)
    world.feed(ModelAdded(name, world.oracle.traits[name]))


def change_budget(world: World, budget: int) -> None:
    world.oracle.excused.add(HOST_NAME)
    world.oracle.budgets[HOST_NAME] = budget
    world.feed(BudgetChanged(budget))


def change_devices(world: World) -> None:
    """Another program takes or gives memory of a device, or the device is lost or found."""
    budgets = {pool: size for pool, size in world.oracle.budgets.items() if pool != HOST_NAME}
    set_devices(world, world.devices.changed(budgets))


def set_devices(world: World, changed: dict[str, int]) -> None:
    """The devices have these budgets from now on."""
    world.oracle.excused.update(world.devices.pools)
    world.oracle.budgets = {HOST_NAME: world.oracle.budget, **changed}
    world.feed(DeviceBudgetsChanged(changed))
    for model in world.devices.outdated(list(world.oracle.traits)):
        world.feed(Outdated(model))


def close(world: World) -> None:
    world.oracle.is_closing = True
    world.oracle.holds.clear()
    world.feed(CloseAsked())


def die(world: World, model: str) -> None:
    """The engine of a model crashes; rather that of one that serves somebody, if there is one."""
    busy = [
        name
        for name, engine in world.oracle.engines.items()
        if engine.is_serving and world.oracle.of(name, Phase.LEASED)
    ]
    world.die(world.rng.choice(busy) if busy and world.rng.random() < 0.8 else model)


def lose_weights(world: World, model: str) -> None:
    """What holds the weights of a parked model crashes; rather that of one that is parked, if there is one."""
    parked = [name for name, weights in world.oracle.parked.items() if not weights.is_freeing]
    world.lose_weights(world.rng.choice(parked) if parked and world.rng.random() < 0.8 else model)


# At random


def _arrive(world: World, model: str) -> None:
    rng = world.rng
    priority = rng.choice((None, None, None, 5, -5))
    wait_s = rng.choice((None, None, None, 0.0, 2.0))
    keep_s = rng.choice((None, None, None, 0.0, 2.0, math.inf))
    content = rng.choice(("", "this", "that", "more"))
    arrive(world, model, priority=priority, wait_s=wait_s, keep_alive_s=keep_s, content=content)


def _add(world: World, model: str) -> None:
    if len(world.oracle.traits) < MAX_MODELS:
        add(world, f"{model[0]}{world.new_request()}")


DEEDS: dict[Callable[[World, str], None], int] = {
    _arrive: 50,
    lambda world, _: leave(world): 12,
    lambda world, model: unload(world, model, world.rng.choice(list(UnloadMode))): 12,
    reload: 6,
    lambda world, model: die(world, model): 6,
    lambda world, model: lose_weights(world, model): 2,
    lambda world, model: world.write_over(model): 2,
    lambda world, model: retune(world, model, world.new_traits(model)): 3,
    _add: 1,
    retire: 2,
    lambda world, _: change_budget(world, world.rng.randint(world.oracle.budget // 2, world.oracle.budget * 2) + 1): 2,
    lambda world, _: world.feed(Tick(world.now)): 3,
}

FAIR_DEEDS: dict[Callable[[World, str], None], int] = {
    arrive: 20,
    lambda world, _: leave(world): 2,
    lambda world, model: unload(world, model, world.rng.choice((UnloadMode.DRAIN, UnloadMode.PARK))): 1,
}


def act(world: World) -> None:
    """One random action."""
    models = offered(world)
    if not models:
        add(world, f"n{world.new_request()}")
        return
    if world.devices.pools and not world.is_fair and world.devices.rng.random() < 0.1:
        change_devices(world)
        return
    actions = FAIR_DEEDS if world.is_fair else DEEDS
    (action,) = world.rng.choices(list(actions), list(actions.values()))
    action(world, world.rng.choice(models))


def play(world: World, events: int = EVENTS) -> None:
    """Act and let time pass for ``events`` steps, then let everything come to its end."""
    while world.steps < events:
        act(world)
        world.pass_time(world.now + world.rng.choice(SOON_S if world.is_busy else PAUSES_S))
    finish(world)


def finish(world: World) -> None:
    """No new work: everything comes to its end, or everything closes; and what is left still works."""
    if not world.is_fair and world.rng.random() < 0.2:
        close(world)
    world.is_ending = True
    for number in world.oracle.requests:
        world.later(1.0, lambda number=number: world.end_lease(number))
    world.pass_time(math.inf)
    check_rest(world)
    if not world.oracle.is_closing:
        if world.devices.pools and offered(world):
            # Models are loaded while all devices are gone. Room comes up: they move, until all is at rest again.
            set_devices(world, {})
            check_service(world)
            set_devices(world, world.devices.roomy())
            disturb(world)
            world.pass_time(math.inf)
            check_rest(world)
        check_service(world)


def disturb(world: World) -> None:
    """Requests arrive and devices change while models move."""
    rng = world.devices.rng
    for _ in range(rng.choice((0, 2, 4))):
        world.pass_time(world.now + rng.choice((0.1, 0.3, 5.2)))
        if not world.is_fair and rng.random() < 0.5:
            change_devices(world)
        for model in rng.sample(offered(world), rng.randint(1, len(offered(world)))):
            arrive(world, model)


def check_rest(world: World) -> None:
    """Nobody is left waiting, and nothing is left to do."""
    oracle = world.oracle
    if oracle.requests or oracle.callers or oracle.holds:
        world.fail("everybody_has_an_end", f"these have none: {oracle.requests} {oracle.callers} {oracle.holds}")
    busy: dict[str, object] = {n: w for n, w in oracle.parked.items() if w.is_freeing or oracle.is_closing}
    busy |= {n: e for n, e in oracle.engines.items() if e.is_freeing or (oracle.is_closing and e.loaded_at is not None)}
    if busy or oracle.sizing:
        world.fail("everything_comes_to_rest", f"these do not: {busy} {oracle.sizing}")


def check_service(world: World) -> None:
    """A world at rest serves: each model, one after the other, to its own request."""
    for model in offered(world):
        if any(engine.loaded_at is None for engine in world.oracle.engines.values()):
            # A load that hangs keeps its memory: others may wait for it in vain.
            return
        number = world.names + 1
        arrive(world, model)
        world.pass_time(math.inf)
        if number not in world.oracle.ends:
            world.fail("a_world_at_rest_serves", f"{model} is asked for, and nothing happens")
        # A refusal is judged where it is made: it did not fit, or its load failed.


def world_of(seed: int, step: Step = real_step, *, is_traced: bool = False) -> World:
    """The world of a seed, in which nothing has happened yet; every eighth is a fair one."""
    return World(seed, step, is_fair=seed % FAIR_EVERY == FAIR_EVERY - 1, is_traced=is_traced)


def run(seed: int, step: Step = real_step, *, events: int = EVENTS) -> World:
    """One interleaving.

    Raises:
        Violation: an invariant does not hold.
    """
    world = world_of(seed, step)
    play(world, events)
    return world


def digest(seeds: Iterable[int]) -> str:
    """Return the SHA-256 of all that happens in the worlds of these seeds."""
    happened = hashlib.sha256()
    for seed in seeds:
        world = world_of(seed, is_traced=True)
        play(world)
        happened.update(repr(world.trace).encode())
    return happened.hexdigest()

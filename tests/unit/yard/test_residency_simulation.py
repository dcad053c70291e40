"""The residency machine under random interleavings; ``make simulate N=100000`` plays more of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from modelyard.yard.residency import step
from modelyard.yard.residency.events import (
    Complete,
    Free,
    Grant,
    LoadFailed,
    LoadFinished,
    Reject,
    RequestEnded,
    StartLoad,
    Tick,
)
from support.simulation import Violation, World, deeds, run

RUNS = 200
MOST_TO_CATCH = 400


@pytest.mark.parametrize("first", range(0, RUNS, 50))
def test_every_invariant_holds_in_every_interleaving(first):
    for seed in range(first, first + 50):
        run(seed)


def test_a_seed_replays_exactly():
    once, again = run(3), run(3)
    assert repr(once.trace) == repr(again.trace)
    assert once.steps == again.steps > 50


def test_the_simulated_worlds_swap_models_and_have_fair_ones_among_them():
    worlds = [run(seed) for seed in range(32)]
    assert sum(world.swaps for world in worlds) > 100
    assert any(world.is_fair for world in worlds)


class Deeds(RuleBasedStateMachine):
    """The same world, with deeds and times that Hypothesis chooses and shrinks."""

    @initialize(seed=st.integers(0, 10_000))
    def begin(self, seed):
        self.world = World(seed)

    @rule(model=st.integers(0, 5))
    def arrive(self, model):
        names = deeds.offered(self.world)
        if names:
            deeds.arrive(self.world, names[model % len(names)])

    @rule()
    def leave(self):
        deeds.leave(self.world)

    @rule()
    def act(self):
        deeds.act(self.world)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds):
        self.world.pass_time(self.world.now + seconds)

    def teardown(self):
        if hasattr(self, "world"):
            deeds.finish(self.world)


Deeds.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_hypothesis_finds_no_deeds_that_break_an_invariant = Deeds.TestCase


# Machines that are broken, to see that the simulator notices.


def loads_twice(state, event):
    after, effects = step(state, event)
    return after, [
        again for effect in effects for again in ([effect] * 2 if isinstance(effect, StartLoad) else [effect])
    ]


def grants_twice(state, event):
    after, effects = step(state, event)
    return after, [again for effect in effects for again in ([effect] * 2 if isinstance(effect, Grant) else [effect])]


def drops_rejections(state, event):
    after, effects = step(state, event)
    return after, [effect for effect in effects if not isinstance(effect, Reject)]


def drops_completions(state, event):
    after, effects = step(state, event)
    return after, [effect for effect in effects if not isinstance(effect, Complete)]


def knows_no_budget(state, event):
    after, effects = step(state._replace(budget_bytes=10**9), event)
    return after, effects


def knows_no_pins(state, event):
    models = {
        name: model._replace(traits=replace(model.traits, is_pinned=False)) for name, model in state.models.items()
    }
    return step(state._replace(models=models), event)


def knows_no_time(state, event):
    after, effects = step(state, event)
    return after._replace(due_at=float("inf")), effects


def is_always_due(state, event):
    after, effects = step(state, event)
    return after._replace(due_at=after.now), effects


def forgets_who_is_active(state, event):
    after, effects = step(state, event)
    return after._replace(active=frozenset()), effects


def swaps_at_once(state, event):
    hasty = state.policy.__class__(longest_wait_s=100.0, least_residency_s=0.0, residency_per_load=0.0, yield_s=0.0)
    return step(state._replace(policy=hasty), event)


def never_swaps(state, event):
    lazy = replace(state.policy, least_residency_s=1e6)
    return step(state._replace(policy=lazy), event)


def kills_instead_of_suspending(state, event):
    after, effects = step(state, event)
    return after, [replace(effect, suspends=False) if isinstance(effect, Free) else effect for effect in effects]


def takes_failures_out_on_others(state, event):
    after, effects = step(state, event)
    if isinstance(event, LoadFailed):
        after, more = step(after, event.__class__(min(after.models), "contagion"))
        effects = [*effects, *more]
    return after, effects


def grants_after_the_end(state, event):
    after, effects = step(state, event)
    if isinstance(event, RequestEnded):
        effects = [*effects, Grant(event.model, event.request)]
    return after, effects


def changes_what_it_is_given(state, event):
    if isinstance(event, Tick | LoadFinished):
        return step(state, event)
    after, effects = step(state, event)
    state.models.update(after.models)
    return after, effects


BROKEN = [
    loads_twice,
    grants_twice,
    drops_rejections,
    drops_completions,
    knows_no_budget,
    knows_no_pins,
    knows_no_time,
    is_always_due,
    forgets_who_is_active,
    swaps_at_once,
    never_swaps,
    kills_instead_of_suspending,
    takes_failures_out_on_others,
    grants_after_the_end,
    changes_what_it_is_given,
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_machine_is_noticed(broken):
    def play():
        for seed in range(MOST_TO_CATCH):
            run(seed, broken)

    with pytest.raises((Violation, KeyError)):
        play()

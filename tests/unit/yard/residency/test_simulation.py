"""The residency machine under random interleavings; ``make simulate N=100000`` plays more of them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from modelyard.yard.residency.effects import (
    StartLoad,
)
from modelyard.yard.residency.waiting import RequestId, UnloadMode
from support.simulation import World, actions, run
from support.simulation.oracle import Phase, Request
from support.simulation.pools import moves_delay_nobody

RUNS = 200
TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, RUNS, 50))
def test_every_invariant_holds_in_every_interleaving(first):
    for seed in range(first, first + 50):
        run(seed)


def test_nobody_starves_where_loads_end_and_priorities_are_equal():
    worlds = [World(seed, is_fair=True) for seed in range(40)]
    for world in worlds:
        actions.play(world)
    # The bound is one that worlds come near to, not one that holds whatever the machine does.
    assert 0.4 < max(world.longest_wait for world in worlds) <= 1.0


def test_a_run_has_at_least_fifty_events_and_the_worlds_swap_models():
    worlds = [run(seed) for seed in range(16)]
    assert min(world.steps for world in worlds) >= 50
    assert sum(world.swaps for world in worlds) > 50
    assert any(world.is_fair for world in worlds)


def test_a_seed_replays_exactly():
    assert actions.digest(range(4)) == actions.digest(range(4))


def test_a_seed_replays_exactly_in_another_process():
    # The order of sets of names differs from process to process, unless the hash seed is set.
    code = "from support.simulation.actions import digest; print(digest(range(8)))"
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        }
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


class Deeds(RuleBasedStateMachine):
    """A world with deeds and times that Hypothesis chooses and shrinks."""

    @initialize(seed=st.integers(0, 10_000), is_fair=st.booleans())
    def begin(self, seed, is_fair):
        self.world = World(seed, is_fair=is_fair)

    def model(self, number):
        names = actions.offered(self.world)
        return names[number % len(names)]

    def is_open(self):
        return not self.world.oracle.is_closing and bool(actions.offered(self.world))

    def is_free(self):
        return self.is_open() and not self.world.is_fair

    @precondition(is_open)
    @rule(model=st.integers(0, 5))
    def arrive(self, model):
        actions.arrive(self.world, self.model(model))

    @precondition(is_free)
    @rule(
        model=st.integers(0, 5),
        priority=st.sampled_from((None, 5, -5)),
        wait_s=st.sampled_from((None, 0.0, 2.0)),
        keep_alive_s=st.sampled_from((None, 0.0, 2.0, math.inf)),
    )
    def arrive_in_a_way(self, model, priority, wait_s, keep_alive_s):
        actions.arrive(self.world, self.model(model), priority=priority, wait_s=wait_s, keep_alive_s=keep_alive_s)

    @rule()
    def leave(self):
        actions.leave(self.world)

    @precondition(is_open)
    @rule(model=st.integers(0, 5))
    def drain(self, model):
        actions.unload(self.world, self.model(model), UnloadMode.DRAIN)

    @precondition(is_free)
    @rule(model=st.integers(0, 5), mode=st.sampled_from(UnloadMode))
    def unload(self, model, mode):
        actions.unload(self.world, self.model(model), mode)

    @precondition(is_free)
    @rule(model=st.integers(0, 5))
    def reload(self, model):
        actions.reload(self.world, self.model(model))

    @precondition(is_free)
    @rule(model=st.integers(0, 5), is_pinned=st.booleans(), priority=st.sampled_from((0, 5)))
    def retune(self, model, is_pinned, priority):
        name = self.model(model)
        traits = replace(self.world.oracle.traits[name], is_pinned=is_pinned, priority=priority)
        actions.retune(self.world, name, traits)

    @precondition(is_free)
    @rule(model=st.integers(0, 5))
    def die(self, model):
        self.world.die(self.model(model))

    @precondition(is_free)
    @rule(model=st.integers(0, 5))
    def lose_weights(self, model):
        self.world.lose_weights(self.model(model))

    @precondition(is_free)
    @rule(model=st.integers(0, 5))
    def write_over(self, model):
        self.world.write_over(self.model(model))

    @precondition(is_free)
    @rule(model=st.integers(0, 5))
    def retire(self, model):
        actions.retire(self.world, self.model(model))

    @precondition(is_free)
    @rule(share=st.floats(0.3, 2.0))
    def change_budget(self, share):
        actions.change_budget(self.world, round(self.world.oracle.budget * share) + 1)

    def has_devices(self):
        return self.is_free() and bool(self.world.devices.pools)

    @precondition(has_devices)
    @rule()
    def change_devices(self):
        actions.change_devices(self.world)

    @precondition(is_free)
    @rule()
    def close(self):
        actions.close(self.world)

    @rule(seconds=st.sampled_from((0.01, 0.3, 1.0, 5.0, 30.0)))
    def wait(self, seconds):
        self.world.pass_time(self.world.now + seconds)

    def teardown(self):
        if hasattr(self, "world"):
            actions.finish(self.world)


Deeds.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
test_hypothesis_finds_no_deeds_that_break_an_invariant = Deeds.TestCase


def test_contexts_grow_and_shrink_in_about_half_of_the_worlds():
    worlds = [run(seed) for seed in range(30)]
    assert 8 <= sum(world.resizes > 0 for world in worlds) <= 26


def test_a_move_that_delays_somebody_is_noticed():
    # Worlds hardly ever come to it: a request arrives while a model is being freed, and waits for a busy one.
    world = World(0, is_fair=True)
    oracle, name, other = world.oracle, *sorted(world.oracle.traits)[:2]
    oracle.moving.add(name)
    ends = StartLoad(name)
    assert moves_delay_nobody(oracle, ends) is None
    oracle.requests[RequestId(1)] = Request(other, Phase.WAITING, 0.0, 1.0)
    assert other in moves_delay_nobody(oracle, ends)
    oracle.requests[RequestId(2)] = Request(name, Phase.WAITING, 0.0, 1.0)
    assert moves_delay_nobody(oracle, ends) is None


def test_about_half_of_the_worlds_have_devices_and_models_move_and_fall_back_there():
    worlds = [run(seed) for seed in range(60)]
    with_devices = [world for world in worlds if world.devices.pools]
    assert 20 <= len(with_devices) <= 40
    assert {len(world.devices.pools) for world in with_devices} == {1, 2, 3}
    kinds = {len(choices) for world in with_devices for choices in world.files.values()}
    assert kinds == {1, 2, 3, 4}
    assert sum(world.moved for world in worlds) > 10
    assert sum(world.fell_back for world in worlds) > 10
    assert sum(world.outgrew for world in worlds) > 10
    assert not any(world.moved or world.fell_back or world.outgrew for world in worlds if not world.devices.pools)

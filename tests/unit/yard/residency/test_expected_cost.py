"""Which idle model is given up: the one whose memory is expected to save the least load time."""

from __future__ import annotations

import random

from modelyard.yard.memory.footprint import DeviceShare, Footprint, taken_together
from modelyard.yard.residency.events import EngineFreed, EngineLoaded, ModelRetired, RequestArrived, RequestEnded
from modelyard.yard.residency.expected_cost import RETURN_S, eviction_rank, uses_per_s
from modelyard.yard.residency.ledger import Ledger
from support.simulation.script import Script, frees


def use(script, name, request, load_s=2.0):
    """A request for a model, its load where it is not there, and its end."""
    if script(RequestArrived(name, request)) and not script.model(name).leases:
        script.wait(load_s)
        script(EngineLoaded(name))
    script(RequestEnded(name, request))


def test_a_model_that_is_wanted_again_and_again_stays_before_one_that_was_wanted_once_and_later():
    script = Script("often", "once", "other", fit=2.0)
    for number in range(5):
        use(script, "often", number)
        script.wait(10 * RETURN_S)
    use(script, "once", 10)
    script.wait(10 * RETURN_S)
    assert frees(script(RequestArrived("other", 11))) == [("once", False)]


def test_a_conversation_that_goes_on_keeps_its_model_before_one_that_was_wanted_more_often():
    script = Script("often", "talking", "other", fit=2.0)
    for number in range(5):
        use(script, "often", number)
        script.wait(10 * RETURN_S)
    use(script, "talking", 10)
    script.wait(RETURN_S / 2)
    assert frees(script(RequestArrived("other", 11))) == [("often", False)]


def test_a_batch_of_requests_counts_as_one_use():
    batch, single = Script("a"), Script("a")
    use(single, "a", 0)
    for number in range(50):
        use(batch, "a", number)
    assert uses_per_s(batch.model("a"), 3600.0) < 1.1 * uses_per_s(single.model("a"), 3600.0)


def test_of_two_models_of_one_size_the_one_that_loads_faster_goes():
    script = Script("slow", "fast", "other", fit=2.0)
    use(script, "slow", 1, load_s=8.0)
    use(script, "fast", 2, load_s=2.0)
    script.wait(10 * RETURN_S)
    assert frees(script(RequestArrived("other", 3))) == [("fast", False)]


def test_a_model_that_gives_more_memory_for_the_same_load_goes():
    sizes = {"small": Footprint("small", 40, 20), "large": Footprint("large", 90, 50)}
    script = Script("small", "large", "other", fit=2.0, footprints=sizes)
    use(script, "large", 1)
    use(script, "small", 2)
    script.wait(10 * RETURN_S)
    assert frees(script(RequestArrived("other", 3))) == [("large", False)]


def test_time_alone_does_not_change_which_model_goes():
    """Ranks are taken at the last event, so that a plan that waits for busy models does not change while it waits."""
    script = Script("often", "once", fit=2.0)
    for number in range(5):
        use(script, "often", number)
        script.wait(10 * RETURN_S)
    use(script, "once", 10)
    names = ("often", "once")
    before = [eviction_rank(script.model(name), script.state.event_at) for name in names]
    script.wait(10 * RETURN_S)
    assert [eviction_rank(script.model(name), script.state.event_at) for name in names] == before


def test_a_model_that_is_no_longer_configured_goes_first():
    script = Script("old", "other", "third", fit=2.0)
    script.load("old", 1)
    script.idle("other", 2)
    script(ModelRetired("old"))
    old, other = (eviction_rank(script.model(name), script.state.event_at) for name in ("old", "other"))
    assert old < other


def test_a_model_that_is_loaded_again_is_the_one_it_was():
    script = Script("a", "b")
    use(script, "a", 1)
    script.wait(10 * RETURN_S)
    demand = uses_per_s(script.model("a"), script.state.now)
    script(RequestArrived("b", 2))
    script(EngineFreed("a"))
    script(EngineLoaded("b"))
    assert uses_per_s(script.model("a"), script.state.now) == demand


def drawn_footprint(rng):
    key = rng.choice("abcd")
    draft = rng.choice(({}, {"draft_key": rng.choice("abcd"), "draft_bytes": rng.randint(1, 50)}))
    pools = rng.sample(("g0", "g1"), rng.randint(0, 2))
    shares = tuple(DeviceShare(pool, key, rng.randint(1, 50), rng.randint(1, 50)) for pool in pools)
    return Footprint(key, rng.randint(0, 100), rng.randint(0, 100), devices=shares, **draft)


def test_a_ledger_has_what_models_take_together_whatever_comes_and_goes():
    rng = random.Random(0)
    for _ in range(100):
        ledger, present = Ledger(), []
        for _ in range(30):
            if present and rng.random() < 0.4:
                footprint, has_context = present.pop(rng.randrange(len(present)))
                ledger.remove(footprint, has_context=has_context)
            else:
                present.append((drawn_footprint(rng), rng.random() < 0.7))
                ledger.add(present[-1][0], has_context=present[-1][1])
            taken = taken_together(present)
            assert {pool: size for pool, size in ledger.taken.items() if size or pool in taken} == taken

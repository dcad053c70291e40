"""Contexts that grow and shrink while their models serve."""

from __future__ import annotations

import pytest

from modelyard.errors import InsufficientMemory
from modelyard.yard.memory.footprint import ContextSize, Footprint
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.residency.effects import Effect, Free, Grant, RefuseGrowth, Resize, StartLoad
from modelyard.yard.residency.events import (
    AdaptersChanged,
    BudgetChanged,
    CloseAsked,
    EngineFreed,
    EngineLoaded,
    EngineResized,
    GrowthWanted,
    RequestArrived,
    RequestEnded,
)
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, ModelState
from modelyard.yard.residency.waiting import RequestId
from support.simulation.script import BIG, POLICY, Script

SIZES = (ContextSize(1, 10), ContextSize(2, 20), ContextSize(4, 40), ContextSize(8, 80))


def elastic(name: str) -> Footprint:
    """A model that takes 20 bytes of weights, and 10 for each of its up to 8 cells."""
    return Footprint(name, 20, 80, sizes=SIZES, cells=8)


def yard(*names: str, fit: float = 1.0, **policies: dict[str, object]) -> Script:
    return Script(*names, fit=fit, footprints={name: elastic(name) for name in names}, **policies)


def arrive(script: Script, name: str, request: int, cells: int = 0) -> list[Effect]:
    return script(RequestArrived(name, RequestId(request), cells=cells))


def load(script: Script, name: str, request: int, cells: int = 1) -> None:
    """A request that needs ``cells``, and the load for it."""
    assert [type(effect) for effect in arrive(script, name, request, cells)] == [StartLoad]
    assert script(EngineLoaded(name)) == [Grant(name, RequestId(request))]


def resizes(effects: list[Effect]) -> list[tuple[str, tuple[int, ...]]]:
    return [(effect.model, effect.sizes) for effect in effects if isinstance(effect, Resize)]


def test_a_load_begins_with_what_its_waiters_need_together() -> None:
    script = Script("a", footprints={"a": elastic("a")}, is_sized=False)
    for number in (1, 2):
        arrive(script, "a", number, cells=1)
    assert script.size("a") == [StartLoad("a", cells=2)]
    assert script.state.used_bytes == 40


def test_a_load_takes_no_more_than_its_first_waiter_needs_where_others_would_have_to_go() -> None:
    script = yard("a", "b")
    load(script, "b", 1, cells=2)
    assert script.state.used_bytes == 40
    # 60 bytes are left: 20 for weights, and 4 cells.
    effects = arrive(script, "a", 2, cells=4)
    assert effects == [StartLoad("a", cells=4)]
    assert script.load_state("b") is LoadState.LOADED


def test_a_larger_context_that_is_needed_is_given_where_it_fits() -> None:
    script = yard("a")
    load(script, "a", 1)
    (resize,) = script(GrowthWanted("a", 3, 3))
    assert resize == Resize("a", (4,), keep_bytes=10)
    # The larger size counts at once, and what states may take until it is there.
    assert script.state.used_bytes == 20 + 40 + 10
    assert script(EngineResized("a", 4)) == []
    assert script.state.used_bytes == 20 + 40


def test_a_context_that_could_not_grow_is_counted_as_it_is_and_asked_for_again() -> None:
    script = yard("a")
    load(script, "a", 1)
    script(GrowthWanted("a", 3, 3))
    assert script(EngineResized("a", 1, "no memory")) == []
    assert script.state.used_bytes == 20 + 10
    assert resizes(script(GrowthWanted("a", 3, 3))) == [("a", (4,))]


def test_what_would_only_be_of_use_is_given_where_it_is_free() -> None:
    script = yard("a", "b")
    load(script, "a", 1)
    load(script, "b", 2)
    assert resizes(script(GrowthWanted("a", 1, 8))) == [("a", (4,))]
    script(EngineResized("a", 4))
    assert resizes(script(GrowthWanted("b", 1, 8))) == [("b", (2,))]
    script(EngineResized("b", 2))
    assert script(GrowthWanted("b", 1, 8)) == []


def test_idle_contexts_shrink_before_any_model_goes() -> None:
    script = yard("a", "b")
    load(script, "a", 1, cells=4)
    script(RequestEnded("a", RequestId(1)))
    assert arrive(script, "b", 2, cells=3) == [Resize("a", (1, 2), keep_bytes=40)]
    # Its engine keeps what its prompts need.
    assert script(EngineResized("a", 1)) == [StartLoad("b", cells=4)]
    assert script.load_state("a") is LoadState.LOADED


def test_a_busy_model_gives_back_what_it_does_not_need() -> None:
    script = yard("a", "b")
    load(script, "a", 1, cells=4)
    assert resizes(arrive(script, "b", 2, cells=3)) == [("a", (1, 2))]
    assert script(EngineResized("a", 4, "its sequences need it")) == []
    # Not asked for a second time: it needs the rest.
    assert script.model("a").keeps_size
    script.wait(POLICY.min_residency_s + POLICY.drain_s)
    assert script.load_state("a") is LoadState.FREEING


def test_a_needed_context_evicts_idle_models() -> None:
    script = yard("a", "b")
    load(script, "a", 1)
    load(script, "b", 2)
    script(RequestEnded("b", RequestId(2)))
    (free,) = script(GrowthWanted("a", 8, 8))
    assert isinstance(free, Free)
    assert free.model == "b"
    assert resizes(script(EngineFreed("b"))) == [("a", (8,))]


def test_two_models_that_wait_for_each_others_memory_both_get_their_turn() -> None:
    script = yard("a", "b", fit=1.2)
    load(script, "a", 1, cells=4)
    load(script, "b", 2, cells=4)
    assert script(GrowthWanted("a", 8, 8)) == []
    assert script(GrowthWanted("b", 8, 8)) == []
    script.wait(POLICY.min_residency_s + POLICY.drain_s)
    assert script.load_state("b") is LoadState.FREEING
    assert resizes(script.suspended("b")) == [("a", (8,))]
    script(EngineResized("a", 8))
    effects = script.wait(POLICY.patience_s)
    assert [effect.model for effect in effects if isinstance(effect, Free)] == ["a"]
    # What they need to go on leaves room for both.
    assert [effect.model for effect in script.suspended("a") if isinstance(effect, StartLoad)] == ["b", "a"]


def test_a_model_whose_whole_context_never_fits_is_refused_as_ever() -> None:
    script = yard("a", fit=0.9)
    (effect,) = arrive(script, "a", 1, cells=1)
    assert isinstance(effect.error, InsufficientMemory)
    assert effect.error.needed_bytes == BIG


def test_a_pinned_model_counts_with_the_whole_context_that_it_was_promised() -> None:
    script = yard("a", "b", fit=1.9, a={"is_pinned": True})
    load(script, "a", 1)
    (effect,) = arrive(script, "b", 2, cells=1)
    assert isinstance(effect.error, InsufficientMemory)


def test_growth_is_refused_once_a_smaller_budget_has_broken_the_promise() -> None:
    script = yard("a")
    load(script, "a", 1)
    script(BudgetChanged(70))
    (effect,) = script(GrowthWanted("a", 8, 8))
    assert isinstance(effect, RefuseGrowth)
    assert script.model("a").growth is None


@pytest.mark.parametrize("is_reported", [True, False])
def test_a_model_that_is_freed_while_its_context_grows_counts_until_it_is_gone(is_reported: bool) -> None:
    script = yard("a", "b")
    load(script, "a", 1)
    script(GrowthWanted("a", 8, 8))
    script(RequestEnded("a", RequestId(1)))
    arrive(script, "b", 2, cells=8)
    script.wait(POLICY.min_residency_s)
    assert script.load_state("a") is LoadState.FREEING
    assert script.state.used_bytes <= BIG
    if is_reported:
        script(EngineResized("a", 8))
    assert script(EngineFreed("a")) == [StartLoad("b", cells=8)]
    assert script.model("a").resizing is None


def test_nobody_makes_room_for_a_context_that_is_no_longer_needed() -> None:
    script = yard("a", "b")
    for number, name in enumerate(("a", "b")):
        load(script, name, number, cells=2)
    script(GrowthWanted("a", 8, 8))
    assert script.model("a").growth is not None
    script(GrowthWanted("a", 2, 2))
    assert script.model("a").growth is None
    script(GrowthWanted("a", 8, 8))
    script(RequestEnded("a", RequestId(0)))
    assert script.model("a").growth is None


def test_only_a_loaded_model_whose_size_is_not_fixed_gets_another_context() -> None:
    script = Script("fixed", "absent", fit=2.0, footprints={"absent": elastic("absent")})
    arrive(script, "fixed", 1)
    script(EngineLoaded("fixed"))
    before = script.state
    assert script(GrowthWanted("fixed", 8, 8)) == []
    assert script(GrowthWanted("absent", 8, 8)) == []
    assert script.state.models == before.models


def test_a_report_of_a_size_that_was_not_asked_for_changes_nothing() -> None:
    script = yard("a")
    load(script, "a", 1)
    before = script.state
    assert script(EngineResized("a", 8)) == []
    assert script.state.models == before.models


def test_what_is_needed_beyond_a_context_that_is_being_made_is_waited_for_until_it_is_there() -> None:
    script = yard("a")
    load(script, "a", 1)
    assert resizes(script(GrowthWanted("a", 1, 4))) == [("a", (4,))]
    # The size that is being made is enough.
    assert script(GrowthWanted("a", 3, 3)) == []
    assert script.model("a").growth is None
    assert script(GrowthWanted("a", 8, 8)) == []
    assert script.model("a").growth is not None
    assert resizes(script(EngineResized("a", 4))) == [("a", (8,))]


def test_a_context_that_would_only_be_of_use_is_not_given_while_somebody_waits_or_all_is_freed() -> None:
    script = yard("a", "b")
    load(script, "a", 1)
    arrive(script, "b", 2, cells=8)
    assert resizes(script(GrowthWanted("a", 1, 4))) == []
    closing = yard("a")
    load(closing, "a", 1)
    closing(CloseAsked())
    assert closing(GrowthWanted("a", 1, 4)) == []


def test_adapters_count_in_each_size_of_the_context_from_when_they_change() -> None:
    script = yard("a", fit=2.0)
    load(script, "a", 1)
    script(AdaptersChanged("a", 5))
    assert script.state.used_bytes == 20 + 10 + 5
    assert resizes(script(GrowthWanted("a", 2, 2))) == [("a", (2,))]
    script(EngineResized("a", 2))
    assert script.state.used_bytes == 20 + 20 + 5
    script(AdaptersChanged("a", -5))
    assert script.state.used_bytes == 20 + 20


def test_adapters_of_a_model_that_was_not_sized_are_counted_when_it_is() -> None:
    script = Script("a", is_sized=False)
    assert script(AdaptersChanged("a", 5)) == []
    assert script.model("a").footprint is None


def test_a_model_is_shown_by_its_name_and_one_that_is_gone_by_that_of_the_residency() -> None:
    state = Script("a").state
    renamed = ModelPolicy(ModelId("org/model"), 8)
    state = state._replace(models={"a #2": ModelState(renamed)})
    assert state.display_name("a #2") == "org/model"
    assert state.display_name("a #1") == "a #1"

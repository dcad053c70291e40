"""What observers hear of models."""

import asyncio
from contextlib import ExitStack

import pytest

from modelyard.errors import TooManyConnections
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency import step
from modelyard.yard.residency.events import (
    EngineDied,
    EngineDying,
    Freed,
    LoadFailed,
    LoadFinished,
    ModelAdded,
    ModelRetired,
    RequestArrived,
    RequestEnded,
    Sized,
    UnloadAsked,
)
from modelyard.yard.residency.state import Residence, Residency, Traits
from modelyard.yard.stats import watch as watch_module
from modelyard.yard.stats.watch import Change, Watch


def changes(events, *models):
    """What an observer hears while ``events`` happen."""
    watch = Watch()
    state = Residency.of({model: Traits(model, 8) for model in models}, 100)
    with watch.observer() as observer:
        for event in events:
            after, _ = step(state, event)
            watch.compare(state, after)
            state = after
        watch.close()
        return asyncio.run(read(observer))


async def read(observer):
    async with asyncio.timeout(10):
        return [change async for change in observer]


def test_every_change_of_residence_is_told_in_order():
    heard = changes([RequestArrived("a", 1), Sized("a", Footprint("a", 1, 1)), LoadFinished("a")], "a", "b")
    assert [change.residence for change in heard] == [Residence.SIZING, Residence.LOADING, Residence.LOADED]
    assert {change.model for change in heard} == {"a"}


def test_a_failure_is_told_with_its_reason():
    heard = changes([RequestArrived("a", 1), LoadFailed("a", "bad magic")], "a")
    assert heard[-1] == Change("a", Residence.FAILED, reason="bad magic")


def test_what_goes_is_told_before_what_comes_in_its_place():
    sized = [Sized(name, Footprint(name, 60, 20)) for name in "ab"]
    there = [RequestArrived("b", 1), LoadFinished("b"), RequestEnded("b", 1)]
    heard = changes([*sized, *there, RequestArrived("a", 2), Freed("b")], "a", "b")
    assert heard[-2:] == [Change("b", Residence.UNLOADED), Change("a", Residence.LOADING)]


def test_added_and_removed_models_are_told():
    heard = changes([ModelAdded("c", Traits("c", 8)), ModelRetired("a")], "a", "b")
    assert heard == [Change("c", Residence.UNLOADED), Change("a", None)]


def test_a_dying_engine_is_told_with_its_reason_and_one_that_is_freed_has_none():
    sized = [Sized(name, Footprint(name, 30, 10)) for name in "ab"]
    there = [event for name in "ab" for event in (RequestArrived(name, name), LoadFinished(name))]
    ends = [EngineDying("a", "segfault"), RequestEnded("b", "b"), UnloadAsked("b", 3)]
    heard = changes([*sized, *there, *ends], "a", "b")
    assert heard[-2:] == [Change("a", Residence.FREEING, reason="segfault"), Change("b", Residence.FREEING)]


def test_a_death_is_told_with_its_reason_also_where_the_next_engine_is_loaded_in_the_same_moment():
    sized = [Sized("a", Footprint("a", 30, 10)), RequestArrived("a", 1)]
    heard = changes([*sized, EngineDied("a", "signal 9"), LoadFinished("a")], "a")
    assert heard[-2:] == [
        Change("a", Residence.LOADING, restarts=1, last_death="signal 9"),
        Change("a", Residence.LOADED),
    ]


def test_a_death_with_nobody_to_serve_is_told_as_the_failure_that_it_is():
    there = [Sized("a", Footprint("a", 30, 10)), RequestArrived("a", 1), LoadFinished("a"), RequestEnded("a", 1)]
    heard = changes([*there, EngineDying("a", "signal 9"), EngineDied("a", "signal 9")], "a")
    assert heard[-1] == Change("a", Residence.FAILED, reason="signal 9", restarts=1, last_death="signal 9")


def test_progress_that_was_not_read_is_replaced_by_newer():
    watch = Watch()
    with watch.observer() as observer:
        for fraction in (0.1, 0.2, 0.3):
            watch.progress("a", fraction)
        watch.progress("b", 0.5)
        watch.progress("a", 0.4)
        watch.close()
        heard = asyncio.run(read(observer))
    assert [(change.model, change.progress) for change in heard] == [("a", 0.3), ("b", 0.5), ("a", 0.4)]


def test_an_observer_that_never_reads_is_sent_away(monkeypatch):
    monkeypatch.setattr(watch_module, "MOST_UNREAD", 3)
    watch = Watch()
    with watch.observer() as observer:
        for number in range(5):
            watch.progress(f"m{number}", 0.1)
        assert len(asyncio.run(read(observer))) == 3
        # What comes after a gap is not told.
        watch.progress("m9", 0.2)
        assert asyncio.run(read(observer)) == []


def test_who_comes_after_the_end_hears_nothing():
    watch = Watch()
    watch.close()
    with watch.observer() as observer:
        assert asyncio.run(read(observer)) == []


def test_observers_are_not_without_number():
    watch = Watch()
    with ExitStack() as watching:
        for _ in range(watch_module.MAX_OBSERVERS):
            watching.enter_context(watch.observer())
        with pytest.raises(TooManyConnections):
            watching.enter_context(watch.observer())
    with watch.observer():
        pass

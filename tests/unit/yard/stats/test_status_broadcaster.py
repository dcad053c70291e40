"""The changes that observers receive."""

import asyncio
from contextlib import ExitStack

import pytest

from modelyard.errors import TooManyConnections
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency import step
from modelyard.yard.residency.events import (
    EngineDied,
    EngineDying,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    ModelAdded,
    ModelRetired,
    RequestArrived,
    RequestEnded,
    Sized,
    UnloadAsked,
)
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, Residency
from modelyard.yard.stats import broadcast
from modelyard.yard.stats.broadcast import Broadcaster
from modelyard.yard.stats.status_broadcaster import StatusBroadcaster, StatusChange


def changes(events, *models):
    """The changes that an observer receives while ``events`` happen."""
    watch = StatusBroadcaster()
    state = Residency.of({model: ModelPolicy(model, 8) for model in models}, 100)
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


def test_every_change_of_load_state_is_published_in_order():
    published = changes([RequestArrived("a", 1), Sized("a", Footprint("a", 1, 1)), EngineLoaded("a")], "a", "b")
    assert [change.load_state for change in published] == [LoadState.SIZING, LoadState.LOADING, LoadState.LOADED]
    assert {change.model for change in published} == {"a"}


def test_a_failure_is_published_with_its_reason():
    published = changes([RequestArrived("a", 1), EngineLoadFailed("a", "bad magic")], "a")
    assert published[-1] == StatusChange("a", LoadState.FAILED, reason="bad magic")


def test_an_unload_is_published_before_the_load_in_its_place():
    sized = [Sized(name, Footprint(name, 60, 20)) for name in "ab"]
    there = [RequestArrived("b", 1), EngineLoaded("b"), RequestEnded("b", 1)]
    published = changes([*sized, *there, RequestArrived("a", 2), EngineFreed("b")], "a", "b")
    assert published[-2:] == [StatusChange("b", LoadState.UNLOADED), StatusChange("a", LoadState.LOADING)]


def test_added_and_removed_models_are_published():
    published = changes([ModelAdded("c", ModelPolicy("c", 8)), ModelRetired("a")], "a", "b")
    assert published == [StatusChange("c", LoadState.UNLOADED), StatusChange("a", None)]


def test_a_dying_engine_is_published_with_its_reason_and_a_freed_one_has_none():
    sized = [Sized(name, Footprint(name, 30, 10)) for name in "ab"]
    there = [event for name in "ab" for event in (RequestArrived(name, name), EngineLoaded(name))]
    ends = [EngineDying("a", "segfault"), RequestEnded("b", "b"), UnloadAsked("b", 3)]
    published = changes([*sized, *there, *ends], "a", "b")
    assert published[-2:] == [
        StatusChange("a", LoadState.FREEING, reason="segfault"),
        StatusChange("b", LoadState.FREEING),
    ]


def test_a_death_is_published_with_its_reason_also_where_the_next_load_begins_in_the_same_step():
    sized = [Sized("a", Footprint("a", 30, 10)), RequestArrived("a", 1)]
    published = changes([*sized, EngineDied("a", "signal 9"), EngineLoaded("a")], "a")
    assert published[-2:] == [
        StatusChange("a", LoadState.LOADING, restarts=1, last_death="signal 9"),
        StatusChange("a", LoadState.LOADED),
    ]


def test_a_death_without_waiters_is_published_as_a_failure():
    there = [Sized("a", Footprint("a", 30, 10)), RequestArrived("a", 1), EngineLoaded("a"), RequestEnded("a", 1)]
    published = changes([*there, EngineDying("a", "signal 9"), EngineDied("a", "signal 9")], "a")
    assert published[-1] == StatusChange("a", LoadState.FAILED, reason="signal 9", restarts=1, last_death="signal 9")


def test_progress_that_was_not_read_is_replaced_by_newer():
    watch = StatusBroadcaster()
    with watch.observer() as observer:
        for fraction in (0.1, 0.2, 0.3):
            watch.progress("a", fraction)
        watch.progress("b", 0.5)
        watch.progress("a", 0.4)
        watch.close()
        published = asyncio.run(read(observer))
    assert [(change.model, change.progress) for change in published] == [("a", 0.3), ("b", 0.5), ("a", 0.4)]


def test_an_observer_that_never_reads_is_sent_away(monkeypatch):
    monkeypatch.setattr(broadcast, "MAX_UNREAD", 3)
    watch = StatusBroadcaster()
    with watch.observer() as observer:
        for number in range(5):
            watch.progress(f"m{number}", 0.1)
        assert len(asyncio.run(read(observer))) == 3
        # Changes after a gap are not published.
        watch.progress("m9", 0.2)
        assert asyncio.run(read(observer)) == []


def test_an_observer_that_comes_after_the_end_gets_nothing():
    watch = StatusBroadcaster()
    watch.close()
    with watch.observer() as observer:
        assert asyncio.run(read(observer)) == []


def test_observers_are_not_without_number():
    watch = StatusBroadcaster()
    with ExitStack() as watching:
        for _ in range(broadcast.MAX_OBSERVERS):
            watching.enter_context(watch.observer())
        with pytest.raises(TooManyConnections):
            watching.enter_context(watch.observer())
    with watch.observer():
        pass


def test_a_stop_learns_how_many_observers_it_has_ended() -> None:
    broadcaster = StatusBroadcaster()
    with broadcaster.observer(), broadcaster.observer():
        assert broadcaster.close() == 2
    assert broadcaster.close() == 0


def test_observers_of_other_changes_end_with_its_own_and_take_none_of_their_places(monkeypatch) -> None:
    monkeypatch.setattr(broadcast, "MAX_OBSERVERS", 1)
    own, other = StatusBroadcaster(), Broadcaster("other changes")
    with other.observer() as observer, own.ending(observer.end), own.observer():
        assert own.dismiss() == 2
        assert asyncio.run(read(observer)) == []
    own.close()
    with other.observer() as late, own.ending(late.end):
        assert asyncio.run(read(late)) == []

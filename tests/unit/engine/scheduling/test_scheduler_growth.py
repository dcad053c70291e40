"""What waits while the cache is smaller than it may become."""

from __future__ import annotations

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.protocol.values import SequenceId


def scheduler(cells: int) -> Scheduler:
    cache = KvCache(cells, 3)
    return Scheduler(cache, max_running=2, batch_tokens=64, prefill_beside_decode=16, can_trim=True, cost=StepCost())


def sequence(number: int, tokens: int) -> Sequence:
    return Sequence(SequenceId(number), number, [number] * tokens)


def computed(one: Scheduler) -> list[SequenceId]:
    return [chunk.sequence.id for chunk in one.schedule()]


def test_a_sequence_that_does_not_fit_by_itself_waits_until_the_cache_is_larger() -> None:
    one = scheduler(8)
    one.add(sequence(1, 10))
    assert computed(one) == []
    assert one.is_stalled
    one.cache.capacity = 16
    assert computed(one) == [1]
    assert not one.is_stalled


def test_a_running_sequence_that_has_filled_the_cache_waits_too_and_goes_on() -> None:
    one = scheduler(8)
    alone = sequence(1, 8)
    one.add(alone)
    while alone.pending:
        one.schedule()
    alone.tokens.append(7)
    assert computed(one) == []
    assert one.is_stalled
    assert one.preemptions == 1
    one.cache.capacity = 16
    assert computed(one) == [1]


def test_prefixes_are_evicted_for_a_new_sequence_only_once_no_more_cells_may_come() -> None:
    one = scheduler(16)
    first = sequence(1, 10)
    one.add(first)
    while first.pending:
        one.schedule()
    one.remove(first.id)
    one.add(sequence(2, 10))
    one.spares_prefixes = True
    assert computed(one) == []
    assert one.is_stalled
    assert one.cache.idle == 10
    one.spares_prefixes = False
    assert computed(one) == [2]
    assert one.cache.idle == 0


def test_cells_that_running_sequences_share_are_held_once() -> None:
    one = scheduler(128)
    for number in (1, 2):
        one.add(Sequence(SequenceId(number), number, [5] * 40))
    while not all(each.pending == 0 for each in one.running) or len(one.running) < 2:
        assert one.schedule()
    assert one.cache.held() == one.cache.used < 80

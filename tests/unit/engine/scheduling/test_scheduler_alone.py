"""A sequence that is to be alone has steps without others, until somebody says otherwise."""

from __future__ import annotations

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.protocol.values import SequenceId


def scheduler(capacity: int = 64) -> Scheduler:
    return Scheduler(
        KvCache(capacity, 4),
        max_running=3,
        batch_tokens=8,
        prefill_beside_decode=4,
        can_trim=True,
        cost=StepCost(),
    )


def sequence(number: int, length: int) -> Sequence:
    return Sequence(SequenceId(number), number, [100 * number + at for at in range(length)])


def step(work: Scheduler) -> set[int]:
    """The sequences of a step; those that were fed whole go on by a token."""
    feeds = work.schedule()
    work.cache.operations.clear()
    for feed in feeds:
        if feed.outputs:
            feed.sequence.tokens.append(7)
    return {feed.sequence.id for feed in feeds}


def test_its_steps_have_nobody_else_in_them_until_it_may_share_them() -> None:
    work = scheduler()
    for number in (1, 2):
        work.add(sequence(number, 3))
    while any(running.pending > 1 for running in work.running) or not work.running:
        step(work)
    apart = sequence(3, 12)
    work.add(apart, alone=True)
    work.add(sequence(4, 3))
    while apart.answer_length < 2:
        assert step(work) == {3}
    work.alone = None
    assert step(work) >= {1, 2, 3}


def test_others_give_way_where_it_needs_the_room_and_come_back() -> None:
    work = scheduler(capacity=16)
    first = sequence(1, 10)
    work.add(first)
    while first.answer_length < 2:
        step(work)
    apart = sequence(2, 12)
    work.add(apart, alone=True)
    while not apart.answer_length:
        assert step(work) == {2}
    assert first.slot is None
    work.alone = None
    work.remove(apart.id)
    assert step(work) == {1}


def test_one_that_leaves_keeps_nobody_waiting() -> None:
    work = scheduler()
    work.add(sequence(1, 3))
    work.add(sequence(2, 3), alone=True)
    assert step(work) == {2}
    work.remove(SequenceId(2))
    assert step(work) == {1}

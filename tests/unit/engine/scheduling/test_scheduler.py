"""The scheduler, driven as the engine's loop drives it, against a naive llama.cpp."""

from __future__ import annotations

import random
from contextlib import ExitStack
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engine.kv import checkpoints, sequence
from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling import scheduler
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.scheduler import MIN_AWAITED_PREFIX, Scheduler
from modelyard.engine.scheduling.step_budget import MAX_STRETCH
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.protocol.values import SequenceId, Usage
from support.naive_llama import BATCH, BESIDE, Llama, cost


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9), st.booleans(), st.booleans(), st.booleans())
def test_any_mix_of_requests_is_served_in_order_and_ends(
    seed: int, can_trim: bool, is_sometimes_full: bool, is_repetitive: bool
) -> None:
    chance = random.Random(seed)
    slots = chance.randint(1, 5)
    llama = Llama(
        capacity=chance.randint(8, 40),
        slots=slots,
        max_running=chance.randint(1, slots),
        can_trim=can_trim,
        checkpoints=chance.randint(0, 6),
        turn_end=chance.randint(0, 2),
        period=chance.randint(1, 5) if is_repetitive and can_trim else None,
        is_uncertain=lambda: chance.random() < 0.1,
    )
    resumed: set[int] = set()
    with ExitStack() as near:
        # Checkpoints and common prefixes as close together as these short prompts are long.
        near.enter_context(patch.object(checkpoints, "MIN_CHECKPOINT_DISTANCE", 2))
        near.enter_context(patch.object(checkpoints, "CHECKPOINT_INTERVAL", 5))
        near.enter_context(patch.object(sequence, "MIN_CHECKPOINT_DISTANCE", 2))
        near.enter_context(patch.object(scheduler, "MIN_AWAITED_PREFIX", 3))
        serve_any_mix(llama, chance, resumed, is_sometimes_full=is_sometimes_full)
    assert llama.scheduler.is_idle
    served = [number for number in llama.first_served if number not in resumed]
    assert served == sorted(served)


def serve_any_mix(llama: Llama, chance: random.Random, resumed: set[int], *, is_sometimes_full: bool) -> None:
    for _ in range(chance.randint(1, 120)):
        match chance.randrange(8):
            case 0 | 1:
                # Few different tokens, so that prefixes are shared often.
                prompt = [chance.randint(1, 2) for _ in range(chance.randint(1, llama.capacity - 1))]
                llama.submit(prompt, chance.randint(1, 12))
            case 2 if llama.sequences:
                llama.cancel(chance.choice(list(llama.sequences)))
            case 3 if is_sometimes_full:
                llama.step(is_full=True)
            case 6:
                prompt = [chance.randint(1, 2) for _ in range(chance.randint(1, llama.capacity - 4))]
                said = 1 + chance.randrange(3)
                resumed.add(llama.resume(prompt, said, 12, shortest=chance.choice((0, len(prompt)))).id)
            case 7:
                prompt = [chance.randint(1, 2) for _ in range(chance.randint(1, llama.capacity))]
                llama.restore(prompt, chance.choice((0, len(prompt) - 1)))
            case _:
                llama.step()
    llama.run()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.booleans())
def test_a_cache_that_holds_less_than_its_books_say_stops_nobody_for_ever(seed: int, can_trim: bool) -> None:
    chance = random.Random(seed)
    slots = chance.randint(1, 5)
    capacity = chance.randint(8, 40)
    llama = Llama(
        capacity=capacity,
        slots=slots,
        max_running=chance.randint(1, slots),
        can_trim=can_trim,
        room=chance.randint(capacity // 2, capacity),
    )
    for _ in range(chance.randint(1, 60)):
        if chance.randrange(3):
            llama.step()
        else:
            llama.submit([chance.randint(1, 2) for _ in range(chance.randint(1, capacity - 1))], chance.randint(1, 12))
    llama.run()
    # Only what is too long by itself is given up.
    assert all(llama.lengths[number] >= llama.room for number in llama.failed)


def tokens(feeds: list[ScheduledChunk]) -> list[tuple[int, int, int]]:
    return [(feed.sequence.id, feed.position, len(feed.tokens)) for feed in feeds]


def test_a_prompt_is_fed_in_chunks_and_its_last_token_by_itself() -> None:
    llama = Llama()
    llama.submit(list(range(12)))
    assert [tokens(llama.step()) for _ in range(3)] == [[(0, 0, 8)], [(0, 8, 3)], [(0, 11, 1)]]


def test_decode_comes_first_and_prompts_take_a_small_share_beside_it() -> None:
    llama = Llama()
    llama.submit([1, 2], answer=20)
    llama.step()
    llama.step()
    llama.submit(list(range(10, 20)))
    assert tokens(llama.step()) == [(0, 2, 1), (1, 0, BESIDE)]


def test_when_the_cache_is_full_the_youngest_waits_and_is_computed_again() -> None:
    llama = Llama(capacity=16, max_running=2)
    llama.submit([1] * 6, answer=9)
    youngest = llama.submit([2] * 6, answer=9)
    llama.run()
    assert llama.scheduler.preemptions >= 1
    assert llama.finished == [0, 1]
    assert youngest.answer_length == 9
    assert youngest.tokens[6:] == [500 + at for at in range(6, 15)]


def test_the_more_urgent_go_first_and_those_of_one_urgency_in_order_of_arrival() -> None:
    llama = Llama(capacity=64, max_running=1)
    for at, priority in enumerate((0, 0, 5, -5, 5)):
        llama.submit([at + 1] * 4, priority=priority)
    llama.run()
    assert llama.finished == [2, 4, 0, 1, 3]


def test_when_the_cache_is_full_the_least_urgent_gives_way_and_does_not_stand_before_the_more_urgent() -> None:
    llama = Llama(capacity=16, max_running=2)
    llama.submit([1] * 6, answer=9, priority=-1)
    llama.submit([2] * 6, answer=9)
    llama.submit([3] * 6, answer=3)
    llama.run()
    assert llama.scheduler.preemptions >= 1
    assert llama.finished == [1, 2, 0]


def test_what_gave_way_stands_behind_the_more_urgent_and_before_those_of_its_urgency() -> None:
    llama = Llama(capacity=64, max_running=1)
    running = llama.submit([1] * 4, answer=9)
    llama.step()
    equal, urgent = llama.submit([2] * 4), llama.submit([3] * 4, priority=1)
    llama.scheduler.preempt(running)
    assert list(llama.scheduler.waiting) == [urgent, running, equal]


def test_a_beginning_that_is_computed_is_not_computed_again() -> None:
    llama = Llama(capacity=64, slots=6)
    system = list(range(20))
    llama.submit([*system, 70, 71], answer=30)
    for _ in range(6):
        llama.step()
    second = llama.submit([*system, 80, 81])
    fed = llama.step()
    assert second.cached_tokens == 20
    assert tokens(fed)[1] == (1, 20, 1)


def test_tokens_that_the_same_step_computes_are_not_shared_yet() -> None:
    llama = Llama(capacity=64)
    llama.submit([1, 2, 3, 4])
    second = llama.submit([1, 2, 3, 4])
    llama.step()
    assert second.cached_tokens == 0


def test_a_long_beginning_that_another_is_computing_is_waited_for_and_computed_once() -> None:
    llama = Llama(capacity=200)
    system = list(range(MIN_AWAITED_PREFIX + 10))
    llama.submit([*system, 70, 71])
    second = llama.submit([*system, 80, 81])
    other = llama.submit([90, 91])
    llama.step()
    assert second.slot is None
    llama.run()
    assert second.cached_tokens == len(system)
    # Nobody overtakes.
    assert llama.first_served == [0, 1, 2]
    assert other.cached_tokens == 0


def test_a_prompt_whose_beginning_is_being_computed_goes_on_when_that_is_cancelled() -> None:
    llama = Llama(capacity=200)
    system = list(range(MIN_AWAITED_PREFIX + 30))
    llama.submit([*system, 70, 71])
    second = llama.submit([*system, 80, 81])
    llama.step()
    llama.cancel(0)
    llama.run()
    assert second.cached_tokens == BATCH


def test_a_long_prompt_beside_streams_makes_steps_only_so_much_longer() -> None:
    llama = Llama(capacity=400)
    llama.scheduler = Scheduler(
        KvCache(400, 4), max_running=3, batch_tokens=512, prefill_beside_decode=64, can_trim=True, cost=cost(overhead=9)
    )
    stream, prompt = Sequence(SequenceId(0), 0, [1, 2, 3]), Sequence(SequenceId(1), 1, list(range(300)))
    llama.scheduler.add(stream)
    for _ in range(2):
        llama.scheduler.schedule()
        llama.carry_out()
    stream.tokens.append(500)
    llama.scheduler.add(prompt)
    (decode, chunk) = llama.scheduler.schedule()
    assert (decode.sequence, len(decode.tokens)) == (stream, 1)
    # A step of one token takes 10 milliseconds.
    assert 9 + 1 + len(chunk.tokens) == 10 * MAX_STRETCH


def test_a_second_long_prompt_beside_streams_gets_its_slot_and_is_computed_from_the_next_step_on() -> None:
    scheduler = Scheduler(
        KvCache(800, 4), max_running=3, batch_tokens=512, prefill_beside_decode=64, can_trim=True, cost=cost(overhead=9)
    )
    scheduler.add(stream := Sequence(SequenceId(0), 0, [1]))
    scheduler.schedule()
    stream.tokens.append(500)
    first, second = (Sequence(SequenceId(n), n, [n] * 300) for n in (1, 2))
    scheduler.add(first)
    scheduler.add(second)
    assert [chunk.sequence for chunk in scheduler.schedule()] == [stream, first]
    assert scheduler.running == [stream, first, second]


def test_a_short_prompt_beside_streams_is_computed_at_once() -> None:
    scheduler = Scheduler(
        KvCache(400, 4), max_running=3, batch_tokens=512, prefill_beside_decode=64, can_trim=True, cost=cost(overhead=9)
    )
    scheduler.add(stream := Sequence(SequenceId(0), 0, [1]))
    scheduler.schedule()
    stream.tokens.append(500)
    scheduler.add(Sequence(SequenceId(1), 1, list(range(60))))
    assert [len(feed.tokens) for feed in scheduler.schedule()] == [1, 59]


@pytest.mark.parametrize(("seconds_a_token", "chunk"), [(0.0001, 299), (0.003, 128), (0.1, 64)])
def test_where_nobody_waits_a_part_of_a_prompt_takes_half_a_second_at_most(seconds_a_token: float, chunk: int) -> None:
    known = StepCost()
    known.observe(64, 64 * seconds_a_token)
    scheduler = Scheduler(
        KvCache(400, 4), max_running=3, batch_tokens=512, prefill_beside_decode=64, can_trim=True, cost=known
    )
    scheduler.add(Sequence(SequenceId(0), 0, list(range(300))))
    assert [len(feed.tokens) for feed in scheduler.schedule()] == [chunk]


def test_the_first_step_of_all_is_a_small_one() -> None:
    scheduler = Scheduler(
        KvCache(400, 4), max_running=3, batch_tokens=512, prefill_beside_decode=64, can_trim=True, cost=StepCost()
    )
    scheduler.add(Sequence(SequenceId(0), 0, list(range(300))))
    assert [len(feed.tokens) for feed in scheduler.schedule()] == [64]
    scheduler.cost.observe(64, 0.01)
    assert [len(feed.tokens) for feed in scheduler.schedule()] == [235]


def test_a_finished_conversation_goes_on_where_it_ended() -> None:
    llama = Llama(capacity=64)
    first = llama.submit(list(range(10)))
    llama.run()
    second = llama.submit([*first.tokens, 90, 91])
    llama.run()
    # All but the last token of the answer is in the cache: nobody fed that one.
    assert second.cached_tokens == len(first.tokens) - 1


@pytest.mark.parametrize("steps", [0, 3])
def test_a_cancelled_sequence_leaves_its_place_to_the_next(steps: int) -> None:
    llama = Llama(max_running=1)
    llama.submit([1, 2, 3], answer=50)
    llama.submit([4, 5, 6])
    for _ in range(steps):
        llama.step()
    llama.cancel(0)
    llama.run()
    assert llama.finished == [1]


def test_an_unknown_sequence_cannot_be_removed() -> None:
    assert not Llama().scheduler.remove(SequenceId(7))


def test_what_does_not_fit_waits_and_nobody_overtakes_it() -> None:
    llama = Llama(capacity=16)
    llama.submit([1] * 10, answer=5)
    llama.step()
    llama.submit([2] * 12, answer=1)
    llama.submit([3], answer=1)
    llama.run()
    assert llama.first_served == [0, 1, 2]


def test_a_sequence_that_llama_cpp_has_no_room_for_at_all_is_given_up() -> None:
    llama = Llama()
    llama.submit([1, 2, 3])
    for _ in range(3):
        llama.step(is_full=True)
    assert llama.failed == [0]
    assert llama.scheduler.is_idle


def test_after_a_step_that_did_not_fit_the_older_go_on_without_those_that_gave_way() -> None:
    llama = Llama(capacity=32, max_running=2, room=15)
    llama.submit([1] * 12, answer=4)
    for _ in range(3):
        llama.step()
    llama.submit([2] * 6, answer=1)
    fed = [tokens(llama.step()) for _ in range(4)]
    assert fed == [[], [(0, 12, 1)], [], [(0, 13, 1)]]
    llama.run()
    assert llama.finished == [0, 1]
    assert llama.failed == []


def test_a_step_that_did_not_fit_costs_the_idle_prefixes_first() -> None:
    llama = Llama()
    llama.submit([9] * 4, answer=1)
    llama.run()
    llama.submit([1] * 4)
    llama.step()
    llama.step(is_full=True)
    assert llama.scheduler.cache.idle == 0
    assert tokens(llama.step()) == [(1, 3, 1)]
    assert llama.scheduler.preemptions == 0


def test_a_conversation_that_must_wait_for_room_keeps_what_is_computed_of_it() -> None:
    llama = Llama(capacity=32)
    conversation = list(range(10))
    llama.submit(conversation, answer=1)
    llama.run()
    llama.submit([50] * 18, answer=4)
    for _ in range(4):
        llama.step()
    turn = llama.submit([*conversation, *[60] * 6], answer=1)
    llama.run()
    assert llama.scheduler.preemptions == 0
    assert turn.cached_tokens == 10
    assert llama.finished == [0, 1, 2]


def test_prefixes_make_room_for_a_prompt_least_recently_used_first() -> None:
    llama = Llama(capacity=32, slots=4)
    for token in (1, 2, 3):
        llama.submit([token] * 8, answer=1)
        llama.run()
    llama.submit([1] * 9, answer=1)
    llama.run()
    llama.submit([4] * 10, answer=1)
    llama.run()
    assert sorted({slot.tokens[0] for slot in llama.scheduler.cache.slots if slot.tokens}) == [1, 3, 4]


def test_a_prefix_that_is_shared_is_held_once_and_outlives_its_donor() -> None:
    llama = Llama(capacity=24, slots=3)
    system = list(range(12))
    llama.submit([*system, 70], answer=2)
    for _ in range(4):
        llama.step()
    llama.submit([*system, 80, 81, 82, 83], answer=8)
    llama.run()
    assert llama.sequences == {}
    assert llama.scheduler.preemptions == 0
    assert llama.finished == [0, 1]


def test_what_a_sequence_was_spared_is_what_it_found_when_it_first_ran() -> None:
    llama = Llama(capacity=16, max_running=2)
    llama.submit([1] * 6, answer=9)
    youngest = llama.submit([2] * 6, answer=9)
    llama.run()
    assert llama.scheduler.preemptions >= 1
    assert youngest.usage == Usage(prompt_tokens=6, completion_tokens=9, cached_tokens=0)


def test_a_waiting_sequence_leaves_the_line_and_the_others_keep_their_places() -> None:
    llama = Llama(max_running=1)
    for _ in range(4):
        llama.submit([1, 2, 3], answer=4)
    llama.step()
    llama.cancel(2)
    llama.run()
    assert llama.finished == [0, 1, 3]


def test_without_a_slot_of_its_own_a_sequence_waits() -> None:
    llama = Llama(slots=1, max_running=2)
    llama.submit([1, 2, 3])
    llama.submit([4, 5, 6])
    llama.step()
    assert [sequence.id for sequence in llama.scheduler.waiting] == [1]
    llama.run()
    assert llama.finished == [0, 1]


def test_a_prompt_that_finds_no_cell_free_waits_and_begins_again() -> None:
    llama = Llama(capacity=16)
    llama.submit(list(range(12)))
    llama.step()
    cache = llama.scheduler.cache
    taken = cache.slots[-1]
    cache.assign(taken, SequenceId(99))
    cache.extend(taken, [7] * cache.free)
    assert llama.scheduler.schedule() == []
    assert [sequence.id for sequence in llama.scheduler.waiting] == [0]
    cache.make_idle(taken)
    llama.carry_out()
    llama.accepted[taken.index] = list(taken.tokens)
    llama.run()
    assert llama.finished == [0]


def test_the_room_for_the_rest_of_a_running_prompt_is_not_given_to_another() -> None:
    llama = Llama(capacity=16)
    llama.submit([1] * 10, answer=1)
    llama.step()
    llama.submit([2] * 7, answer=1)
    llama.run()
    assert llama.scheduler.preemptions == 0
    assert llama.finished == [0, 1]


def test_a_resumed_sequence_goes_on_where_it_was() -> None:
    llama = Llama(capacity=64)
    resumed = llama.resume(list(range(10)), said=3, answer=5)
    assert tokens(llama.step()) == [(0, 12, 1)]
    llama.run()
    assert resumed.usage == Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=0)


def test_a_resumed_sequence_that_found_no_room_is_computed_again() -> None:
    llama = Llama(capacity=16, max_running=2)
    llama.submit([1] * 8, answer=4)
    llama.step()
    resumed = llama.resume([2] * 8, said=2, answer=4)
    llama.run()
    assert llama.finished == [0, 1]
    assert resumed.answer_length == 4


def test_resumed_sequences_do_not_evict_each_other_before_they_run() -> None:
    llama = Llama(capacity=24, slots=4)
    llama.restore([9] * 4)
    for token in (1, 2, 3):
        llama.resume([token] * 7, said=2, answer=3)
    assert tokens(llama.step())[:2] == [(0, 8, 1), (1, 8, 1)]
    llama.run()
    assert llama.finished == [0, 1, 2]


def test_what_was_restored_for_a_sequence_that_was_cancelled_is_a_prefix_like_any_other() -> None:
    llama = Llama(capacity=24, max_running=1)
    llama.submit([5], answer=4)
    llama.step()
    resumed = llama.resume([1] * 7, said=2, answer=3)
    llama.cancel(resumed.id)
    assert all(slot.awaited_by is None for slot in llama.scheduler.cache.slots)
    llama.run()


def test_drained_sequences_come_in_order_of_arrival_with_the_slots_that_are_theirs() -> None:
    llama = Llama(capacity=64, max_running=1)
    llama.submit([1, 2, 3])
    llama.step()
    llama.submit([4, 5, 6])
    llama.resume([7, 8, 9], said=2, answer=5)
    drained = llama.scheduler.drain()
    assert [sequence.id for sequence in drained] == [0, 1, 2]
    assert [sequence.slot.tokens if sequence.slot else None for sequence in drained] == [[1, 2], None, [7, 8, 9, 503]]
    assert llama.scheduler.is_idle


def test_a_prompt_that_is_scored_has_logits_for_all_of_its_tokens_and_takes_none_from_the_cache() -> None:
    slots, max_running = 5, 2
    scheduler = Scheduler(
        KvCache(64, slots),
        max_running=max_running,
        batch_tokens=BATCH,
        prefill_beside_decode=BESIDE,
        can_trim=True,
        cost=cost(overhead=10.0),
    )
    prompt = list(range(1, 21))
    plain, scored = (Sequence(SequenceId(number), number, prompt) for number in (1, 2))
    scored.scores_prompt = True

    def steps(sequence: Sequence) -> list[ScheduledChunk]:
        scheduler.add(sequence)
        chunks: list[ScheduledChunk] = []
        while not chunks or chunks[-1].position + len(chunks[-1].tokens) < len(prompt):
            chunks += scheduler.schedule()
        scheduler.remove(sequence.id)
        return chunks

    assert sum(chunk.outputs for chunk in steps(plain)) == 1
    chunks = steps(scored)
    assert [token for chunk in chunks for token in chunk.tokens] == prompt
    assert all(chunk.outputs == len(chunk.tokens) for chunk in chunks)
    # Memory for logits is reserved for as many as there are slots.
    assert max(chunk.outputs for chunk in chunks) <= slots - max_running

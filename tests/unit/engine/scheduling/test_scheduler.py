"""The scheduler, driven as the engine's loop drives it, against a naive llama.cpp."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engine.kv.cache import KvCache, TrimCells
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.scheduler import MAX_STRETCH, MIN_AWAITED_PREFIX, ScheduledChunk, Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.speculative.ngram import NgramProposer
from modelyard.engine.speculative.policy import worthwhile
from modelyard.protocol.values import SequenceId, Usage

BATCH = 8
BESIDE = 3


def cost(*, overhead: float) -> StepCost:
    """Steps that take as long as ``overhead`` tokens and one for each token, in milliseconds."""
    known = StepCost()
    for tokens in (1, 2, 4, 8, 16, 32, 64):
        known.observe(tokens, (overhead + tokens) / 1000)
    return known


class Llama:
    """A cache that carries operations out and is fed, and an engine's loop around it.

    Every sequence ends with ``answers`` tokens, or when it is as long as the context. ``room`` is what the cache really
    holds, where that is less than the ``capacity`` in the books. ``period``: answers repeat after so many tokens, and
    are guessed. ``is_uncertain`` says of which choices the engine wants to be sure.
    """

    def __init__(
        self,
        *,
        capacity: int = 32,
        slots: int = 4,
        max_running: int = 3,
        can_trim: bool = True,
        room: int | None = None,
        period: int | None = None,
        is_uncertain: Callable[[], bool] = lambda: False,
    ) -> None:
        self.capacity = capacity
        self.period = period
        self.is_uncertain = is_uncertain
        self.proposed = self.right = 0
        self.room = capacity if room is None else room
        self.max_running = max_running
        self.scheduler = Scheduler(
            KvCache(capacity, slots),
            max_running=max_running,
            batch_tokens=BATCH,
            prefill_beside_decode=BESIDE,
            can_trim=can_trim,
            cost=cost(overhead=10.0),
        )
        self.can_trim = can_trim
        self.accepted: dict[int, list[int]] = {index: [] for index in range(slots)}
        # Below it a slot lacks what it would need to go on.
        self.whole_from = dict.fromkeys(range(slots), 0)
        self.answers: dict[SequenceId, int] = {}
        self.sequences: dict[SequenceId, Sequence] = {}
        self.finished: list[int] = []
        self.first_served: list[int] = []
        self.failed: list[int] = []
        self.lengths: dict[int, int] = {}

    def submit(self, prompt: list[int], answer: int = 3, priority: int = 0) -> Sequence:
        number = SequenceId(len(self.answers))
        return self.add(Sequence(number, number, prompt, priority), answer)

    def add(self, sequence: Sequence, answer: int = 3) -> Sequence:
        self.answers[sequence.id] = answer
        if self.period is not None:
            sequence.proposer = NgramProposer()
        self.sequences[sequence.id] = sequence
        self.scheduler.add(sequence)
        return sequence

    def restore(self, tokens: list[int], shortest: int = 0, awaited_by: SequenceId | None = None) -> bool:
        slot = self.scheduler.cache.hold(tokens, shortest, awaited_by)
        self.carry_out()
        if slot is not None:
            assert self.accepted[slot.index] == []
            self.accepted[slot.index] = list(tokens)
            self.whole_from[slot.index] = shortest
        return slot is not None

    def resume(self, prompt: list[int], said: int, answer: int, *, shortest: int = 0) -> Sequence:
        """A sequence that has said something elsewhere, all of which but the last token is restored."""
        number = SequenceId(len(self.answers))
        sequence = Sequence(number, number, prompt)
        sequence.tokens += [500 + len(prompt) + at for at in range(said)]
        sequence.cached_tokens = 0
        self.restore(sequence.tokens[:-1], shortest, number)
        self.first_served.append(number)
        return self.add(sequence, answer)

    def cancel(self, number: int) -> None:
        removed = self.scheduler.remove(SequenceId(number))
        assert removed is self.sequences.get(SequenceId(number))
        self.sequences.pop(SequenceId(number), None)

    def carry_out(self) -> None:
        for operation in self.scheduler.cache.operations:
            if isinstance(operation, TrimCells):
                accepted = self.accepted[operation.slot]
                assert self.can_trim or operation.length in (0, len(accepted)), "a state that cannot be cut was cut"
                del accepted[operation.length :]
                if not accepted:
                    self.whole_from[operation.slot] = 0
                assert len(accepted) >= self.whole_from[operation.slot]
            else:
                assert self.can_trim
                assert self.accepted[operation.target] == []
                assert self.whole_from[operation.source] <= operation.length <= len(self.accepted[operation.source])
                self.whole_from[operation.target] = self.whole_from[operation.source]
                self.accepted[operation.target] = self.accepted[operation.source][: operation.length]
        self.scheduler.cache.operations.clear()

    def step(self, *, is_full: bool = False) -> list[ScheduledChunk]:
        scheduler = self.scheduler
        decoding = [s for s in scheduler.running if s.pending == 1]
        oldest = min(self.sequences, default=None)
        was_running = oldest is not None and self.sequences[oldest].slot is not None
        feeds = scheduler.schedule()
        self.carry_out()
        self.check(feeds, decoding)
        if is_full or self.capacity - scheduler.cache.free > self.room:
            if feeds and not scheduler.undo(feeds):
                (last,) = scheduler.running
                self.failed.append(last.id)
                self.lengths[last.id] = len(last.tokens)
                self.cancel(last.id)
            self.carry_out()
            return []
        if was_running:
            assert self.sequences[oldest].slot is not None, "the oldest was preempted"
        for feed in feeds:
            assert feed.sequence.slot is not None
            self.accepted[feed.sequence.slot.index] += feed.tokens
        for feed in feeds:
            if feed.outputs:
                self.sample(feed)
        return feeds

    def sample(self, feed: ScheduledChunk) -> None:
        sequence, guesses = feed.sequence, feed.tokens[1:] if feed.outputs > 1 else []
        right = 0
        while True:
            if guesses and self.is_uncertain():
                sequence.is_alone = True
                break
            length = len(sequence.tokens)
            sequence.tokens.append(500 + (length % self.period if self.period else length))
            is_over = sequence.answer_length >= self.answers[sequence.id] or length + 1 >= self.capacity
            if is_over or right == len(guesses) or sequence.tokens[-1] != guesses[right]:
                break
            right += 1
        self.proposed += len(guesses)
        self.right += right
        if guesses:
            self.scheduler.trim_rejected(feed, right if sequence.is_alone else right + 1)
            self.carry_out()
        if sequence.answer_length >= self.answers[sequence.id] or len(sequence.tokens) >= self.capacity:
            self.finished.append(sequence.id)
            self.cancel(sequence.id)

    def check(self, feeds: list[ScheduledChunk], decoding: list[Sequence]) -> None:
        scheduler = self.scheduler
        assert len({feed.sequence.id for feed in feeds}) == len(feeds)
        assert sum(len(feed.tokens) for feed in feeds) <= BATCH
        fed_decoding = [feed for feed in feeds if feed.sequence in decoding]
        if fed_decoding:
            assert sum(len(feed.tokens) for feed in feeds if feed.sequence not in decoding) <= BESIDE
        assert len(scheduler.running) <= self.max_running
        for feed in feeds:
            slot = feed.sequence.slot
            assert slot is not None
            assert feed.tokens
            assert feed.sequence.id in self.first_served or feed.sequence.cached_tokens == feed.position
            assert self.accepted[slot.index] == feed.sequence.tokens[: feed.position]
            known = len(feed.tokens) - max(feed.outputs - 1, 0)
            assert feed.tokens[:known] == feed.sequence.tokens[feed.position : feed.position + known]
            assert bool(feed.outputs) == (feed.position + known == len(feed.sequence.tokens))
            assert not feed.outputs or known == 1
        assert sum(feed.outputs for feed in feeds) <= max(len(scheduler.cache.slots), len(scheduler.running))
        fed = sorted(feed.sequence.id for feed in feeds)
        self.first_served += [number for number in fed if number not in self.first_served]
        cells = {cell for slot in scheduler.cache.slots for cell in slot.cells}
        assert len(cells) == self.capacity - scheduler.cache.free <= self.capacity
        assert {s.id for s in scheduler.running} | {s.id for s in scheduler.waiting} == set(self.sequences)
        assert bool(feeds) == bool(self.sequences), "nothing was computed though somebody waits"

    def run(self, most_steps: int = 2000) -> None:
        for _ in range(most_steps):
            if not self.sequences:
                return
            self.step()
        raise AssertionError(f"still there: {self.sequences}")


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
        period=chance.randint(1, 5) if is_repetitive and can_trim else None,
        is_uncertain=lambda: chance.random() < 0.1,
    )
    resumed: set[int] = set()
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
    assert llama.scheduler.is_idle
    served = [number for number in llama.first_served if number not in resumed]
    assert served == sorted(served)


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


def test_what_was_said_before_is_guessed_and_verified_in_one_step() -> None:
    llama = Llama(capacity=200, slots=32, max_running=1, period=4)
    first = llama.submit(list(range(10)), answer=100)
    steps = 0
    while llama.sequences:
        llama.step()
        steps += 1
    assert first.tokens[10:] == [500 + at % 4 for at in range(10, 110)]
    assert llama.right > 60
    assert steps < 50


def test_guesses_that_are_wrong_leave_nothing_behind() -> None:
    llama = Llama(capacity=200, slots=32, max_running=1, period=4, is_uncertain=lambda: True)
    first = llama.submit(list(range(10)), answer=20)
    llama.run()
    assert first.tokens[10:] == [500 + at % 4 for at in range(10, 30)]
    assert (llama.proposed > 0, llama.right) == (True, 0)


def test_nothing_is_guessed_while_prompts_are_computed_or_where_it_does_not_pay() -> None:
    llama = Llama(capacity=200, slots=32, period=2)
    llama.submit([1, 2], answer=30)
    for _ in range(12):
        llama.step()
    llama.submit(list(range(40)))
    while any(sequence.pending > 1 for sequence in llama.sequences.values()):
        assert all(feed.outputs <= 1 for feed in llama.step())
    assert worthwhile(0.3, 1, 1.0, 8) == (0, 1.0)


@pytest.mark.parametrize(("share", "count"), [(1.0, 15), (0.95, 7), (0.85, 3), (0.3, 0)])
def test_the_likelier_a_guess_the_more_of_it_is_verified(share: float, count: int) -> None:
    guesses, expected = worthwhile(share, 1, 1.0, 15)
    assert guesses == count
    assert expected == pytest.approx(sum(share**at for at in range(count + 1)))


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
    cache.release(taken)
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

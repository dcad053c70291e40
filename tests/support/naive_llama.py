"""A naive llama.cpp, with the engine's loop around it, that a scheduler is driven against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modelyard.engine.kv.adapter_set import NO_ADAPTERS, AdapterSet
from modelyard.engine.kv.cache import KvCache, RestoreCheckpoint, SaveCheckpoint, ShareCells, TrimCells
from modelyard.engine.kv.checkpoints import Checkpoint, CheckpointStore
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.speculative.ngram import NgramProposer
from modelyard.protocol.values import SequenceId

BATCH = 8
BESIDE = 3
STATE_BYTES = 10


def cost(*, overhead: float) -> StepCost:
    """Steps that take as long as ``overhead`` tokens and one for each token, in milliseconds."""
    known = StepCost()
    for tokens in (1, 2, 4, 8, 16, 32, 64):
        known.observe(tokens, (overhead + tokens) / 1000)
    return known


class Llama:
    """A cache that carries operations out and is fed, and an engine's loop around it.

    Every sequence ends with ``answers`` tokens, or when it is as long as the context. ``room`` is what the cache really
    holds, where that is less than the ``capacity`` in the books. Where it cannot be trimmed, each slot has a state, and
    ``checkpoints`` of them are kept. ``turn_end`` is the token that ends a turn. ``period``: answers repeat after so
    many tokens, and are guessed. ``is_uncertain`` says of which choices the engine wants to be sure.
    """

    def __init__(
        self,
        *,
        capacity: int = 32,
        slots: int = 4,
        max_running: int = 3,
        can_trim: bool = True,
        checkpoints: int = 4,
        turn_end: int = 0,
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
            KvCache(capacity, slots, checkpoints=None if can_trim else CheckpointStore(checkpoints * STATE_BYTES)),
            max_running=max_running,
            batch_tokens=BATCH,
            prefill_beside_decode=BESIDE,
            can_trim=can_trim,
            cost=cost(overhead=10.0),
            turn_ends={turn_end},
        )
        # Length of the tokens that the state of each slot stands for.
        self.states = dict.fromkeys(range(slots), 0)
        self.computed = 0
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

    def submit(
        self, prompt: list[int], answer: int = 3, priority: int = 0, adapters: AdapterSet = NO_ADAPTERS
    ) -> Sequence:
        number = SequenceId(len(self.answers))
        return self.add(Sequence(number, number, prompt, priority, adapters=adapters), answer)

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
            self.states[slot.index] = len(tokens)
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
        checkpoints = self.scheduler.cache.checkpoints
        for operation in self.scheduler.cache.operations:
            match operation:
                case TrimCells(slot, length):
                    accepted = self.accepted[slot]
                    del accepted[length:]
                    if not accepted:
                        self.whole_from[slot] = 0
                    if self.can_trim or not accepted:
                        self.states[slot] = len(accepted)
                    assert self.states[slot] == len(accepted), "a state that cannot be cut was cut"
                case ShareCells(source, target, length):
                    assert self.accepted[target] == []
                    assert length <= len(self.accepted[source])
                    assert self.whole_from[source] <= length or not self.can_trim
                    self.whole_from[target] = self.whole_from[source]
                    salts = {self.scheduler.cache.slots[each].salt for each in (source, target)}
                    assert len(salts) == 1, "state crossed from one set of adapters to another"
                    self.accepted[target] = self.accepted[source][:length]
                    self.states[target] = length if self.can_trim else self.states[source]
                case SaveCheckpoint(slot, tokens, salt):
                    assert checkpoints is not None
                    assert self.states[slot] == len(tokens)
                    assert self.accepted[slot] == list(tokens)
                    saved = Checkpoint(tokens, salt, np.zeros(STATE_BYTES, np.uint8))
                    checkpoints.add(saved, ((each.tokens, each.salt) for each in self.scheduler.cache.slots))
                    assert checkpoints.size_bytes <= checkpoints.limit_bytes
                case RestoreCheckpoint(slot, checkpoint):
                    assert self.accepted[slot][: len(checkpoint.tokens)] == list(checkpoint.tokens)
                    self.states[slot] = len(checkpoint.tokens)
                    self.whole_from[slot] = min(self.whole_from[slot], len(checkpoint.tokens))
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
            slot = feed.sequence.slot.index
            assert self.whole_from[slot] <= len(self.accepted[slot])
            assert self.states[slot] == len(self.accepted[slot]), "the state is another one"
            self.accepted[slot] += feed.tokens
            self.states[slot] += len(feed.tokens)
            self.computed += len(feed.tokens)
        if scheduler.save_checkpoints(feeds):
            self.carry_out()
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
            self.scheduler.drafts.settle(feed, right)
            self.carry_out()
        if sequence.answer_length >= self.answers[sequence.id] or len(sequence.tokens) >= self.capacity:
            self.finished.append(sequence.id)
            self.cancel(sequence.id)

    def check(self, feeds: list[ScheduledChunk], decoding: list[Sequence]) -> None:
        scheduler = self.scheduler
        assert len({feed.sequence.id for feed in feeds}) == len(feeds)
        assert len({feed.sequence.adapters for feed in feeds}) <= 1, "a step has one set of adapters"
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

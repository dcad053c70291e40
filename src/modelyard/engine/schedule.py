"""What the next step computes: decode first, then chunks of prompts, within the batch and the KV cache.

Pure: state is the two queues and the cache's books. Order of service is order of arrival; nobody overtakes, so nobody
starves. When the cache is full the youngest sequence is preempted: it waits at the head of the line with its tokens
and is computed again later. The oldest is never preempted, so there is always progress.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from modelyard.engine.kv_cache import KvCache
from modelyard.engine.messages import SequenceId
from modelyard.engine.prefix import place
from modelyard.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens of one sequence that go into the batch, the first of them at ``position``."""

    sequence: Sequence
    position: int
    tokens: list[int]
    wants_logits: bool


class Scheduler:
    """Chooses each step of one engine.

    Args:
        cache: the books of the KV cache.
        max_running: sequences that run at once.
        batch_tokens: most tokens in a step.
        prefill_beside_decode: most tokens of prompts in a step that also decodes. Running streams wait for the whole
            step, so this bounds the gap that a long prompt makes in them.
        can_trim: whether the model's memory can be cut back to an earlier token.
    """

    def __init__(
        self, cache: KvCache, *, max_running: int, batch_tokens: int, prefill_beside_decode: int, can_trim: bool
    ) -> None:
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._was_undone = False
        self._max_running = max_running
        self._batch_tokens = batch_tokens
        self._prefill_beside_decode = prefill_beside_decode
        self._can_trim = can_trim

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        """Put a new sequence in the line: behind all that are as urgent."""
        at = len(self.waiting)
        while at and self.waiting[at - 1].priority < sequence.priority:
            at -= 1
        self.waiting.insert(at, sequence)

    def remove(self, sequence: SequenceId) -> bool:
        """Take a sequence out, finished or cancelled; what it computed stays as a prefix. False if it is unknown."""
        for running in self.running:
            if running.id == sequence:
                self.running.remove(running)
                self._leave_slot(running)
                return True
        for waiting in self.waiting:
            if waiting.id == sequence:
                self.waiting.remove(waiting)
                self.cache.forsake(sequence)
                return True
        return False

    def drain(self) -> list[Sequence]:
        """Take all sequences out, in order of arrival, each with the slot that it runs in or waits for, if any.

        Whoever takes them releases the slots.
        """
        awaited = {slot.awaited_by: slot for slot in self.cache.slots}
        for waiting in self.waiting:
            waiting.slot = awaited.get(waiting.id)
        sequences = sorted((*self.running, *self.waiting), key=lambda sequence: sequence.arrival)
        self.running, self.waiting = [], deque()
        return sequences

    def schedule(self) -> list[Feed]:
        """The feeds of the next step; [] only where there is nothing to compute.

        The cache's books hold the fed tokens from now on; its ``operations`` are to be carried out before the step.
        """
        self.cache.commit()
        while True:
            feeds = self._decode()
            budget = self._batch_tokens - len(feeds)
            if feeds:
                budget = min(budget, self._prefill_beside_decode)
            budget = self._prefill(feeds, budget)
            # After a step that did not fit, one without newcomers: what gave way would come back and not fit again.
            if not (self._was_undone and self.running):
                self._admit(feeds, budget)
            if feeds or not self.running:
                self._was_undone = False
                return feeds
            self._preempt_youngest()

    def undo(self, feeds: list[Feed]) -> bool:
        """Take back a step that llama.cpp had no room for, and make room: idle prefixes first, then the youngest.

        False where there is nothing left to give up: the one sequence that runs does not fit by itself.
        """
        self._was_undone = True
        for feed in feeds:
            assert feed.sequence.slot is not None
            self.cache.trim(feed.sequence.slot, feed.position)
        if self.cache.idle:
            self.cache.make_room(self.cache.capacity)
            return True
        if len(self.running) == 1:
            return False
        self._preempt_youngest()
        return True

    def _decode(self) -> list[Feed]:
        while True:
            decoding = [sequence for sequence in self.running if sequence.pending == 1]
            if self.cache.make_room(len(decoding)):
                return [self._feed(sequence, 1) for sequence in decoding]
            self._preempt_youngest()

    def _prefill(self, feeds: list[Feed], budget: int) -> int:
        for sequence in self.running:
            # A sequence that has just been fed its one token has nothing pending.
            if not sequence.pending:
                continue
            count = _chunk(sequence, budget)
            self.cache.make_room(count)
            count = min(count, self.cache.free)
            if count == 0:
                break
            feeds.append(self._feed(sequence, count))
            budget -= count
        return budget

    def _admit(self, feeds: list[Feed], budget: int) -> None:
        while self.waiting and budget and len(self.running) < self._max_running:
            head = self.waiting[0]
            placement = place(head.tokens, self.cache.slots, can_trim=self._can_trim)
            if placement is None:
                return
            promised = sum(sequence.pending for sequence in self.running)
            needed = len(head.tokens) - placement.reused + promised
            slot, donor = placement.slot, placement.donor
            # Of an idle donor, what is reused makes no room.
            kept = placement.reused if donor is not None and donor.owner is None else 0
            if needed + kept > self.cache.free + self.cache.idle:
                return
            self.cache.trim(slot, placement.reused if slot is donor else 0)
            if donor is not None and donor is not slot:
                self.cache.share(donor, slot, placement.reused)
            self.cache.forsake(head.id)
            self.cache.take(slot, head.id)
            self.waiting.popleft()
            self.running.append(head)
            head.slot = slot
            if not self.cache.make_room(needed):
                self._preempt(head)
                return
            if head.cached_tokens is None:
                head.cached_tokens = placement.reused
            count = _chunk(head, budget)
            feeds.append(self._feed(head, count))
            budget -= count

    def _feed(self, sequence: Sequence, count: int) -> Feed:
        assert sequence.slot is not None
        position = sequence.fed
        tokens = sequence.tokens[position : position + count]
        self.cache.extend(sequence.slot, tokens)
        return Feed(sequence, position, tokens, wants_logits=not sequence.pending)

    def _preempt_youngest(self) -> None:
        self._preempt(max(self.running, key=lambda sequence: (-sequence.priority, sequence.arrival)))

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        slot = sequence.slot
        assert slot is not None
        self.cache.trim(slot, 0)
        self._leave_slot(sequence)
        # Before all that are as urgent: it has begun.
        at = 0
        while at < len(self.waiting) and self.waiting[at].priority > sequence.priority:
            at += 1
        self.waiting.insert(at, sequence)

    def _leave_slot(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self.cache.release(sequence.slot)
        sequence.slot = None


def _chunk(sequence: Sequence, budget: int) -> int:
    """How many pending tokens to feed at once: never the last of a prompt together with those before it.

    llama.cpp's arithmetic depends on the number of tokens in a batch. Fed by itself, the last token gives the same
    logits whether the tokens before it were just computed or found in the cache: the same request, the same answer.
    """
    return min(max(sequence.pending - 1, 1), budget)

"""What the next step computes: decode first, then chunks of prompts, within the batch and the KV cache.

Pure: state is the two queues and the cache's books. Order of service is order of arrival; nobody overtakes, so nobody
starves. When the cache is full the youngest sequence is preempted: it waits at the head of the line with its tokens
and is computed again later. The oldest is never preempted, so there is always progress.

A picture is fed whole, in a step of its own: llama.cpp takes tokens or embeddings, not both. While others decode, every
other step is theirs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.kv.prefix import common_prefix, place
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.speculative.policy import MAX_PROPOSED, worthwhile
from modelyard.protocol.values import SequenceId

# How much longer than its decoding alone a step may be for the sake of a long prompt: running streams wait for it, and
# the longest gap in them is to stay below three times the usual one.
STRETCH = 2.5

# However little that leaves, a step has so many tokens: llama.cpp's kernels take four at a time.
MIN_STEP = 4

# Where nobody waits, a prompt is computed in parts of 64, 128, 256, 512 tokens, as large as can be done in this time:
# a cancel, and a request that comes, wait for the end of a step.
MAX_STEP_S = 0.5

# Tokens of a common beginning for which a prompt waits until another has computed them.
WORTH_WAITING = 32


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """Tokens of one sequence that go into the batch, the first of them at ``position``.

    Logits are wanted behind the last ``outputs`` of them. Where that is more than one, all tokens but the first are
    guesses, which the sequence does not hold yet. ``picture`` is what the tokens stand for, all of them, where they
    are placeholders; then it is the only feed of its step.
    """

    sequence: Sequence
    position: int
    tokens: list[int]
    outputs: int
    picture: ImageSpan | None = None


class Scheduler:
    """Chooses each step of one engine.

    Args:
        cache: the books of the KV cache.
        max_running: sequences that run at once.
        batch_tokens: most tokens in a step.
        prefill_beside_decode: most tokens of prompts in a step that also decodes. A longer prompt gets fewer: running
            streams wait for the whole step.
        can_trim: whether the model's memory can be cut back to an earlier token.
        cost: how long steps take, as far as that is known.
    """

    def __init__(
        self,
        cache: KvCache,
        *,
        max_running: int,
        batch_tokens: int,
        prefill_beside_decode: int,
        can_trim: bool,
        cost: StepCost,
    ) -> None:
        self.cache = cache
        self.cost = cost
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        # Those that have left the line for the first time, until somebody takes note of them.
        self.begun: list[Sequence] = []
        # Has steps to itself until its next token, if any does.
        self.alone: Sequence | None = None
        self._was_undone = False
        self._was_picture = False
        self._max_running = max_running
        self._batch_tokens = batch_tokens
        self._prefill_beside_decode = prefill_beside_decode
        self._can_trim = can_trim

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.running and not self.waiting

    @property
    def only_decodes(self) -> bool:
        """Whether nobody has a prompt to be computed: only then are there guesses in a step."""
        return not self.waiting and all(sequence.pending == 1 for sequence in self.running)

    @property
    def admissible(self) -> Iterator[Sequence]:
        """Those in line for which there is a place, if the cache has room for them."""
        return islice(self.waiting, self._max_running - len(self.running))

    def add(self, sequence: Sequence, *, alone: bool = False) -> None:
        """Put a new sequence in the line: behind all that are as urgent. It may have to be ``alone``, one at a time."""
        if alone:
            self.alone = sequence
        at = len(self.waiting)
        while at and self.waiting[at - 1].priority < sequence.priority:
            at -= 1
        self.waiting.insert(at, sequence)

    def remove(self, sequence: SequenceId) -> Sequence | None:
        """Take a sequence out, finished or cancelled; what it computed stays as a prefix. None if it is unknown."""
        if self.alone is not None and self.alone.id == sequence:
            self.alone = None
        for running in self.running:
            if running.id == sequence:
                self.running.remove(running)
                self._leave_slot(running)
                return running
        for waiting in self.waiting:
            if waiting.id == sequence:
                self.waiting.remove(waiting)
                self.cache.release_reservation(sequence)
                return waiting
        return None

    def drain(self) -> list[Sequence]:
        """Take all sequences out, in order of arrival, each with the slot that it runs in or waits for, if any.

        Whoever takes them releases the slots.
        """
        awaited = {slot.awaited_by: slot for slot in self.cache.slots}
        for waiting in self.waiting:
            waiting.slot = awaited.get(waiting.id)
        sequences = sorted((*self.running, *self.waiting), key=lambda sequence: sequence.arrival)
        self.running, self.waiting, self.alone = [], deque(), None
        return sequences

    def schedule(self) -> list[ScheduledChunk]:
        """The feeds of the next step; [] only where there is nothing to compute.

        The cache's books hold the fed tokens from now on; its ``operations`` are to be carried out before the step.
        """
        self.cache.commit(sequence.slot for sequence in self.running if sequence.slot is not None)
        return self._schedule() if self.alone is None else self._schedule_alone(self.alone)

    def _schedule_alone(self, sequence: Sequence) -> list[ScheduledChunk]:
        """A step of one sequence alone. Others keep their places, unless it needs the room."""
        while True:
            running = [other for other in self.running if other is not sequence]
            waiting = [other for other in self.waiting if other is not sequence]
            self.running = [other for other in self.running if other is sequence]
            self.waiting = deque() if self.running else deque((sequence,))
            feeds = self._schedule()
            self.running, self.waiting = [*running, *self.running], deque((*self.waiting, *waiting))
            if feeds or not running:
                return feeds
            self._preempt(max(running, key=_expendability))

    def _schedule(self) -> list[ScheduledChunk]:
        is_their_turn = self._was_picture and any(sequence.pending == 1 for sequence in self.running)
        self._was_picture = False
        while True:
            if not is_their_turn and (feed := self._show()):
                return [feed]
            feeds = self._decode()
            step = _Step(self, len(feeds))
            self._prefill(feeds, step)
            # After a step that did not fit, one without newcomers: what gave way would come back and not fit again.
            if not (self._was_undone and self.running):
                self._admit(feeds, step)
                if feeds and not step.prompt_tokens:
                    self._guess(feeds)
            if feeds or not self.running:
                self._was_undone = False
                return feeds
            if feed := self._show():
                return [feed]
            self._preempt_youngest()

    def settle(self, feed: ScheduledChunk, kept: int) -> None:
        """Of a feed that was computed, the first ``kept`` tokens stay: guesses behind them were wrong.

        The tokens that were right are those of the sequence by now.
        """
        assert feed.sequence.slot is not None
        self.cache.trim(feed.sequence.slot, feed.position + kept)

    def undo(self, feeds: list[ScheduledChunk]) -> bool:
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

    def _decode(self) -> list[ScheduledChunk]:
        while True:
            decoding = [sequence for sequence in self.running if sequence.pending == 1]
            if self.cache.make_room(len(decoding)):
                return [self._feed(sequence, 1) for sequence in decoding]
            self._preempt_youngest()

    def _show(self) -> ScheduledChunk | None:
        """The next picture of the first sequence that comes to one, where the cache has room for it."""
        for sequence in self.running:
            picture = sequence.next_picture
            if picture is not None and self.cache.make_room(picture.length):
                self._was_picture = True
                return self._feed(sequence, picture.length, picture)
        return None

    def _prefill(self, feeds: list[ScheduledChunk], step: _Step) -> None:
        for sequence in self.running:
            # A sequence that has just been fed its one token has nothing pending.
            if not sequence.pending or sequence.next_picture:
                continue
            count = step.chunk(sequence)
            self.cache.make_room(count)
            count = min(count, self.cache.free)
            if count == 0:
                break
            feeds.append(self._feed(sequence, count))
            step.prompt_tokens += count

    def _admit(self, feeds: list[ScheduledChunk], step: _Step) -> None:
        while self.waiting and step.budget and len(self.running) < self._max_running:
            head = self.waiting[0]
            placement = place(head.tokens, self.cache.slots, can_trim=self._can_trim, salt=head.salt)
            if placement is None or self._is_being_computed(head, placement.reused):
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
            self.cache.release_reservation(head.id)
            self.cache.take(slot, head.id, head.salt)
            self.waiting.popleft()
            self.running.append(head)
            head.slot = slot
            if not self.cache.make_room(needed):
                self._preempt(head)
                return
            if head.cached_tokens is None:
                head.cached_tokens = placement.reused
                self.begun.append(head)
            head.to_prefill = head.pending
            if head.next_picture:
                continue
            count = step.chunk(head)
            if not count:
                return
            feeds.append(self._feed(head, count))
            step.prompt_tokens += count

    def _is_being_computed(self, head: Sequence, reused: int) -> bool:
        """Whether a running sequence is about to compute what ``head`` could reuse beyond ``reused`` tokens.

        Waiting for it costs nothing: prompts are computed in the order of their admission.
        """
        if not self._can_trim:
            return False
        tokens = head.tokens[:-1]
        for running in self.running:
            assert running.slot is not None
            if running.salt != head.salt:
                continue
            common = common_prefix(tokens, running.tokens)
            # One that decodes is always one token behind.
            if common >= WORTH_WAITING and common > max(reused, running.slot.computed + 1):
                return True
        return False

    def _guess(self, feeds: list[ScheduledChunk]) -> None:
        """Let sequences go on with guesses, each as far as the step is expected to give more tokens a second for it.

        A step asks for no more logits than there are slots: there is memory for so many.
        """
        length, expected = len(feeds), float(len(feeds))
        for at, feed in enumerate(feeds):
            sequence, most = feed.sequence, min(len(self.cache.slots), self._batch_tokens) - length
            if sequence.proposer is None or sequence.is_alone or most < 1:
                sequence.is_alone = False
                continue
            propose = sequence.proposer.propose(sequence.tokens, min(most, MAX_PROPOSED))
            count, expected = worthwhile(sequence.proposer.share, length, expected, len(propose))
            if not count or not self.cache.make_room(count):
                continue
            assert sequence.slot is not None
            self.cache.extend(sequence.slot, propose[:count])
            feeds[at] = ScheduledChunk(sequence, feed.position, [*feed.tokens, *propose[:count]], 1 + count)
            length += count

    def _feed(self, sequence: Sequence, count: int, picture: ImageSpan | None = None) -> ScheduledChunk:
        assert sequence.slot is not None
        position = sequence.fed
        tokens = sequence.tokens[position : position + count]
        self.cache.extend(sequence.slot, tokens)
        return ScheduledChunk(sequence, position, tokens, outputs=0 if sequence.pending else 1, picture=picture)

    def _preempt_youngest(self) -> None:
        self._preempt(max(self.running, key=_expendability))

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


def _expendability(sequence: Sequence) -> tuple[int, int]:
    """The higher, the sooner it gives way: less urgent ones first, of these the youngest."""
    return -sequence.priority, sequence.arrival


class _Step:
    """The part of one step that prompts may take.

    Args:
        scheduler: whose step it is.
        decoding: sequences that decode in it.
    """

    def __init__(self, scheduler: Scheduler, decoding: int) -> None:
        self.prompt_tokens = 0
        self._cost = scheduler.cost
        self._decoding = decoding
        self._short = scheduler._prefill_beside_decode
        self._most = min(scheduler._batch_tokens - decoding, self._short if decoding else scheduler._batch_tokens)

    @property
    def budget(self) -> int:
        """Tokens of prompts that still have a place."""
        return self._most - self.prompt_tokens

    def chunk(self, sequence: Sequence) -> int:
        """How many pending tokens to feed at once: never the last of a prompt together with those before it.

        llama.cpp's arithmetic depends on the number of tokens in a batch. Fed by itself, the last token gives the same
        logits whether the tokens before it were just computed or found in the cache: the same request, the same answer.
        """
        wanted = sequence.text_within(min(max(sequence.pending - 1, 1), self.budget))
        beside = self._decoding + self.prompt_tokens
        if self._decoding and sequence.to_prefill > self._short:
            allowed = self._cost.most_tokens(beside, STRETCH * self._cost.seconds(self._decoding), wanted)
            return allowed if self.prompt_tokens else min(max(allowed, MIN_STEP - beside, 1), wanted)
        largest = self._short
        # The first step of all is a small one: it may take long, and tells how long.
        while largest < wanted and (self._cost.seconds(beside + 2 * largest) or math.inf) <= MAX_STEP_S:
            largest *= 2
        return min(wanted, largest)

"""Schedules the next step: decode first, then chunks of prompts, within the batch and the KV cache.

Pure: the state is the two queues and the cache's accounting. Service is in order of arrival; no sequence overtakes, so
none starves. When the cache is full the youngest sequence is preempted: it waits at the head of the queue with its
tokens and is computed again later. The oldest is never preempted, so there is always progress.

An image is computed whole, in a step of its own: llama.cpp takes tokens or embeddings, not both. While other sequences
decode, every other step is theirs.

All sequences of a step use the same adapters. Where there are several sets of adapters, they take turns, and the others
keep their slots meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from itertools import islice

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.checkpoints import checkpoint_positions
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.kv.prefix import SlotPlacement, place
from modelyard.engine.kv.prefix_tree import common_prefix
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.adapter_turns import AdapterTurns
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.drafts import Drafts
from modelyard.engine.scheduling.step_budget import StepBudget
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.protocol.values import SequenceId

# Length of a common prefix from which on a prompt waits until another sequence has computed it.
MIN_AWAITED_PREFIX = 32


class Scheduler:
    """Chooses each step of one engine.

    Args:
        cache: accounting of the KV cache.
        max_running: limit of sequences that run at once.
        batch_tokens: limit of tokens in a step.
        prefill_beside_decode: limit of prompt tokens in a step that also decodes. A longer prompt gets fewer:
            running streams wait for the whole step.
        can_trim: whether the model's memory can be cut back to any earlier token. Where it cannot, the cache has
            checkpoints.
        cost: estimates of the time that steps take.
        turn_ends: tokens that end a turn of a conversation.
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
        turn_ends: Collection[int] = (),
    ) -> None:
        self.cache = cache
        self.cost = cost
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        # A step asks for no more logits than there are slots, since memory is reserved for so many.
        self.drafts = Drafts(cache, cost, min(len(cache.slots), batch_tokens))
        self.preemptions = 0
        # Sequences that have left the queue for the first time; the engine's loop takes them out.
        self.started: list[Sequence] = []
        # The sequence that is computed without others until its next token, if any.
        self.alone: Sequence | None = None
        # Whether new sequences wait rather than have idle prefixes evicted.
        self.spares_prefixes = False
        self._turns = AdapterTurns()
        self._is_stalled = False
        self._was_undone = False
        self._was_image = False
        self._max_running = max_running
        self._batch_tokens = batch_tokens
        self._prefill_beside_decode = prefill_beside_decode
        self._can_trim = can_trim
        self._turn_ends = turn_ends

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.running and not self.waiting

    @property
    def is_stalled(self) -> bool:
        """Whether the last step computed nothing because no waiting sequence fits the cache, or may evict prefixes."""
        return self._is_stalled and not self.running and bool(self.waiting)

    @property
    def only_decodes(self) -> bool:
        """Whether all running sequences decode and none waits: only then does a step have draft tokens."""
        return not self.waiting and all(sequence.pending == 1 for sequence in self.running)

    @property
    def admissible(self) -> Iterator[Sequence]:
        """Waiting sequences that may run at once, if the cache has room for them."""
        return islice(self.waiting, self._max_running - len(self.running))

    def add(self, sequence: Sequence, *, alone: bool = False) -> None:
        """Queue a new sequence behind all of the same or a higher priority; ``alone`` has it computed by itself."""
        if alone:
            self.alone = sequence
        at = len(self.waiting)
        while at and self.waiting[at - 1].priority < sequence.priority:
            at -= 1
        self.waiting.insert(at, sequence)

    def remove(self, sequence: SequenceId) -> Sequence | None:
        """Remove and return a sequence; what it computed stays as a prefix. None where the sequence is unknown."""
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
        """Remove all sequences; return them in order of arrival, each with the slot that it runs in or waits for.

        The caller must release the slots.
        """
        awaited = {slot.awaited_by: slot for slot in self.cache.slots}
        for waiting in self.waiting:
            waiting.slot = awaited.get(waiting.id)
        sequences = sorted((*self.running, *self.waiting), key=lambda sequence: sequence.arrival)
        self.running, self.waiting, self.alone = [], deque(), None
        return sequences

    def schedule(self) -> list[ScheduledChunk]:
        """Return the chunks of the next step; [] where there is nothing to compute, or where ``is_stalled``.

        The cache's accounting holds their tokens from now on; its ``operations`` must be carried out before the step.
        """
        self.cache.commit(sequence.slot for sequence in self.running if sequence.slot is not None)
        chunks = self._schedule() if self.alone is None else self._schedule_alone(self.alone)
        self._is_stalled = not chunks
        return chunks

    def _schedule_alone(self, sequence: Sequence) -> list[ScheduledChunk]:
        """Return a step of one sequence alone. Others keep their slots, unless it needs the room."""
        while True:
            running = [other for other in self.running if other is not sequence]
            waiting = [other for other in self.waiting if other is not sequence]
            self.running = [other for other in self.running if other is sequence]
            self.waiting = deque() if self.running else deque((sequence,))
            chunks = self._schedule()
            self.running, self.waiting = [*running, *self.running], deque((*self.waiting, *waiting))
            if chunks or not running:
                return chunks
            self.preempt(max(running, key=_eviction_key))

    def begin_turn(self) -> list[Sequence]:
        """Settle which adapters the next step is for; return the running sequences that use them."""
        self._settle_turn(has_head=True)
        return self._in_turn

    def _settle_turn(self, *, has_head: bool) -> None:
        """Settle which adapters the next step is for.

        Args:
            has_head: whether the first waiting sequence may have the turn, to be admitted.
        """
        sets = {sequence.adapters for sequence in self.running}
        if self.waiting and (has_head or not sets) and len(self.running) < self._max_running:
            sets.add(self.waiting[0].adapters)
        if sets:
            self._turns.begin(sets)

    @property
    def _in_turn(self) -> list[Sequence]:
        """The running sequences with the adapters of the step."""
        return [sequence for sequence in self.running if sequence.adapters == self._turns.current]

    def _schedule(self) -> list[ScheduledChunk]:
        has_head = True
        while True:
            self._settle_turn(has_head=has_head)
            chunks = self._schedule_turn()
            if chunks:
                self._turns.charge(self.cost.seconds(sum(len(chunk.tokens) for chunk in chunks)))
            if chunks or not self.running:
                return chunks
            # There is no room yet for the first waiting sequence, the only one with these adapters.
            has_head = False

    def _schedule_turn(self) -> list[ScheduledChunk]:
        """Return a step of the sequences whose turn it is; [] where none of them runs, and none can be admitted."""
        is_their_turn = self._was_image and any(sequence.pending == 1 for sequence in self._in_turn)
        self._was_image = False
        while True:
            if not is_their_turn and (chunk := self._schedule_image()):
                return [chunk]
            chunks = self._decode()
            step = self._budget(len(chunks))
            self._prefill(chunks, step)
            # After a step that did not fit, admit nothing: the preempted sequence would come back and not fit again.
            if not (self._was_undone and self.running):
                self._admit(chunks, step)
                if chunks and not step.prompt_tokens:
                    self.drafts.add(chunks)
            if chunks or not self._in_turn:
                self._was_undone = False
                return chunks
            if chunk := self._schedule_image():
                return [chunk]
            self.preempt_youngest()

    def _budget(self, decoding: int) -> StepBudget:
        # Streams with other adapters wait for the step, too.
        others = any(sequence.pending == 1 for sequence in self.running) if not decoding else False
        return StepBudget(
            self.cost,
            max(decoding, int(others)),
            batch_tokens=self._batch_tokens,
            prefill_beside_decode=self._prefill_beside_decode,
            # A step asks for no more logits than there are slots, and each running sequence may need one.
            scored=max(1, len(self.cache.slots) - self._max_running),
        )

    def undo(self, chunks: list[ScheduledChunk]) -> bool:
        """Undo a step that llama.cpp had no room for, and make room: idle prefixes first, then the youngest sequence.

        Returns False where nothing is left to evict: the one running sequence does not fit by itself.
        """
        self._was_undone = True
        self.drafts.undo()
        for chunk in chunks:
            assert chunk.sequence.slot is not None
            self.cache.trim(chunk.sequence.slot, chunk.position)
        if self.cache.idle:
            self.cache.make_room(self.cache.capacity)
            return True
        if len(self.running) == 1:
            return False
        self.preempt_youngest()
        return True

    def _decode(self) -> list[ScheduledChunk]:
        while True:
            decoding = [sequence for sequence in self._in_turn if sequence.pending == 1]
            if self.cache.make_room(len(decoding)):
                return [self._take_chunk(sequence, 1) for sequence in decoding]
            self.preempt_youngest()

    def _schedule_image(self) -> ScheduledChunk | None:
        """Schedule the next image of the first sequence that has reached one, where the cache has room for it."""
        for sequence in self._in_turn:
            image = sequence.next_image
            if image is not None and self.cache.make_room(image.length):
                self._was_image = True
                return self._take_chunk(sequence, image.length, image)
        return None

    def _prefill(self, chunks: list[ScheduledChunk], step: StepBudget) -> None:
        for sequence in self._in_turn:
            # A sequence that decodes in this step has nothing pending.
            if not sequence.pending or sequence.next_image:
                continue
            count = step.chunk_length(sequence)
            self.cache.make_room(count)
            count = min(count, self.cache.free)
            if count == 0:
                break
            chunks.append(self._take_chunk(sequence, count))
            step.prompt_tokens += count

    def _admit(self, chunks: list[ScheduledChunk], step: StepBudget) -> None:
        while self.waiting and step.budget and len(self.running) < self._max_running:
            head = self.waiting[0]
            if head.adapters != self._turns.current:
                return
            # A prompt that is scored is computed from its first token.
            sought = head.tokens[:1] if head.scores_prompt else head.tokens
            checkpoints = self.cache.checkpoints
            along = [] if checkpoints is None else checkpoints.along(sought, head.salt)
            placement = place(sought, self.cache.slots, can_trim=self._can_trim, salt=head.salt, checkpoints=along)
            if placement is None or self._is_being_computed(head, placement.reused):
                return
            promised = sum(sequence.pending for sequence in self.running)
            needed = len(head.tokens) - placement.reused + promised
            slot, donor = placement.slot, placement.donor
            # What is reused of an idle donor cannot be evicted to make room.
            kept = placement.reused if donor is not None and donor.owner is None else 0
            if needed + kept > self.cache.free + self.cache.idle or (self.spares_prefixes and needed > self.cache.free):
                return
            self._prepare_slot(head, placement)
            self.cache.release_reservation(head.id)
            self.cache.assign(slot, head.id, head.salt)
            self.waiting.popleft()
            self.running.append(head)
            head.slot = slot
            if not self.cache.make_room(needed):
                self.preempt(head)
                return
            if head.cached_tokens is None:
                head.cached_tokens = placement.reused
                self.started.append(head)
            head.to_prefill = head.pending
            if head.next_image:
                continue
            count = step.chunk_length(head)
            if not count:
                return
            chunks.append(self._take_chunk(head, count))
            step.prompt_tokens += count

    def _prepare_slot(self, head: Sequence, placement: SlotPlacement) -> None:
        """Put what a sequence reuses into its slot, and choose where checkpoints are made of the rest."""
        slot, donor, reused, checkpoint = placement.slot, placement.donor, placement.reused, placement.checkpoint
        if donor is slot and checkpoint is None and reused == len(slot.tokens) and self.cache.makes_checkpoints:
            # The end of an answer, from which other conversations may go on, too.
            self.cache.save_checkpoint(slot)
        if donor is slot:
            self.cache.trim(slot, reused, checkpoint)
        else:
            self.cache.evict(slot)
            if donor is not None:
                self.cache.share(donor, slot, reused, checkpoint)
        if self.cache.makes_checkpoints:
            head.checkpoints_at = checkpoint_positions(head.tokens, reused, placement.common, self._turn_ends)

    def save_checkpoints(self, chunks: list[ScheduledChunk]) -> bool:
        """After a step was computed: make the checkpoints that are due behind it; whether there are any."""
        is_any = False
        for chunk in chunks:
            sequence = chunk.sequence
            while sequence.checkpoints_at and sequence.checkpoints_at[0] <= sequence.fed:
                if sequence.checkpoints_at.pop(0) == sequence.fed:
                    assert sequence.slot is not None
                    self.cache.save_checkpoint(sequence.slot)
                    is_any = True
        return is_any

    def _is_being_computed(self, head: Sequence, reused: int) -> bool:
        """Whether a running sequence is about to compute more of the prefix of ``head`` than the ``reused`` tokens.

        Waiting for it costs nothing: prompts are computed in the order of their admission. Where the memory may not be
        trimmed there any more, the running sequence gets a checkpoint at the end of the common prefix.
        """
        if head.scores_prompt or not (self._can_trim or self.cache.makes_checkpoints):
            return False
        tokens = head.tokens[:-1]
        for running in self.running:
            assert running.slot is not None
            if running.salt != head.salt:
                continue
            common = common_prefix(tokens, running.tokens)
            # A sequence that decodes is always one token behind.
            if common < MIN_AWAITED_PREFIX or common <= max(reused, running.slot.computed + 1):
                continue
            if not self.cache.makes_checkpoints or running.will_save(reused, common):
                return True
        return False

    def _take_chunk(self, sequence: Sequence, count: int, image: ImageSpan | None = None) -> ScheduledChunk:
        assert sequence.slot is not None
        position = sequence.fed
        tokens = sequence.tokens[position : position + count]
        self.cache.extend(sequence.slot, tokens)
        if not sequence.pending:
            outputs = 1
        else:
            outputs = count if sequence.scores_prompt and position < sequence.prompt_length else 0
        return ScheduledChunk(sequence, position, tokens, outputs, image)

    def preempt_youngest(self) -> None:
        """Preempt the running sequence of the lowest priority, and of these the youngest."""
        self.preempt(max(self.running, key=_eviction_key))

    def preempt(self, sequence: Sequence) -> None:
        """Have a running sequence wait at the head of the queue, to be computed again from its beginning."""
        self.preemptions += 1
        self.running.remove(sequence)
        slot = sequence.slot
        assert slot is not None
        self.cache.trim(slot, 0)
        self._leave_slot(sequence)
        # Ahead of all sequences of the same priority, since it has already started.
        at = 0
        while at < len(self.waiting) and self.waiting[at].priority > sequence.priority:
            at += 1
        self.waiting.insert(at, sequence)

    def _leave_slot(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self.cache.make_idle(sequence.slot)
        sequence.slot = None
        sequence.checkpoints_at = []


def _eviction_key(sequence: Sequence) -> tuple[int, int]:
    """Sort key for eviction; the highest goes first: the lowest priority, and of equal ones the youngest."""
    return -sequence.priority, sequence.arrival

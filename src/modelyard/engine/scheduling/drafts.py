"""Adds draft tokens to the steps of one engine, and keeps the credit that each sequence has for them.

Hot path: ``add`` runs once for each step that only decodes.
"""

from __future__ import annotations

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.speculative.policy import MAX_CREDIT_STEPS, MAX_PROPOSED, Offer, credited, plan_drafts


class Drafts:
    """The draft tokens of one engine's steps.

    Args:
        cache: accounting of the KV cache.
        cost: estimates of the time that steps take.
        limit: limit of tokens in a step with drafts, which asks for as many logits.
    """

    def __init__(self, cache: KvCache, cost: StepCost, limit: int) -> None:
        self._cache, self._cost, self._limit = cache, cost, limit
        # The sequences of the last step with drafts, and its tokens; 0 where its time is in their credits already.
        self._sequences: list[Sequence] = []
        self._tokens = 0

    def add(self, chunks: list[ScheduledChunk]) -> None:
        """Add draft tokens to the chunks of a step that only decodes, where they are expected to save time."""
        self._charge()
        sequences = [chunk.sequence for chunk in chunks]
        base = self._cost.relative(len(chunks))
        for sequence in sequences:
            sequence.credit = min(credited(sequence.credit, base, base), MAX_CREDIT_STEPS * base)
        room = self._limit - len(chunks)
        drafts = [self._draft(sequence, room) for sequence in sequences]
        if not any(drafts):
            return
        offers = [
            Offer(len(draft), sequence.proposer.share, sequence.proposer.kept, sequence.credit)
            if draft and sequence.proposer is not None
            else Offer(0, 0.0, 1.0, sequence.credit)
            for draft, sequence in zip(drafts, sequences, strict=True)
        ]
        counts = plan_drafts(offers, self._cost.relative, room)
        for at, (draft, count) in enumerate(zip(drafts, counts, strict=True)):
            if count and self._cache.make_room(count):
                chunks[at] = self._extended(chunks[at], draft[:count])
        self._tokens = sum(len(chunk.tokens) for chunk in chunks)
        self._sequences = sequences

    def undo(self) -> None:
        """Forget the drafts of a step that was not computed."""
        self._sequences = []

    def settle(self, chunk: ScheduledChunk, accepted: int) -> None:
        """Tell the proposer how the draft of a computed chunk did, and trim what was rejected from the KV cache.

        The accepted tokens already belong to the sequence. Where it is to be alone, the token behind them was thrown
        away, and is computed again.
        """
        sequence = chunk.sequence
        assert sequence.proposer is not None
        assert sequence.slot is not None
        kept = not sequence.is_alone
        sequence.proposer.record_verified(chunk.outputs - 1, accepted, kept=kept)
        saved = (accepted - (not kept)) * self._cost.relative(len(self._sequences))
        sequence.credit = credited(sequence.credit, saved)
        self._cache.trim(sequence.slot, chunk.position + accepted + kept)

    def _draft(self, sequence: Sequence, room: int) -> list[int]:
        """Return the draft tokens that a step has room for; [] for a sequence that is to be alone."""
        if sequence.proposer is None or sequence.is_alone or room < 1:
            sequence.is_alone = False
            return []
        return sequence.proposer.propose(sequence.tokens, min(room, MAX_PROPOSED))

    def _extended(self, chunk: ScheduledChunk, draft: list[int]) -> ScheduledChunk:
        sequence = chunk.sequence
        assert sequence.slot is not None
        self._cache.extend(sequence.slot, draft)
        return ScheduledChunk(sequence, chunk.position, [*chunk.tokens, *draft], 1 + len(draft))

    def _charge(self) -> None:
        """Charge the sequences of the last step for the time that its drafts took, as it is known after the step."""
        if self._sequences:
            length = len(self._sequences)
            took = self._cost.relative(self._tokens) - self._cost.relative(length)
            for sequence in self._sequences:
                sequence.credit = credited(sequence.credit, 0.0, took)
            self._sequences = []

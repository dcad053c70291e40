"""Drafting: a small model proposes tokens, and a large one of the same vocabulary verifies them in one step.

Source: Y. Leviathan, M. Kalman, Y. Matias, "Fast Inference from Transformers via Speculative Decoding", 2023; here for
greedy drafts alone: a draft token is accepted if it is the token that would have been sampled anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from modelyard.engine.kv.prefix_tree import common_prefix
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Batch, Context
from modelyard.engine.settings import DRAFT_BATCH_TOKENS
from modelyard.engine.speculative.ngram import NgramProposer
from modelyard.engine.speculative.policy import MAX_PROPOSED, Acceptance, StepCosts, drafts_worthwhile
from modelyard.protocol.values import SequenceId

logger = logging.getLogger(__name__)

# Prompt tokens that the draft model computes at once while other sequences decode.
_CATCH_UP_BESIDE: Final = 32

# Share of draft tokens that are accepted, before any was verified.
_FIRST_SHARE: Final = 0.8


class DraftProposer:
    """Proposes draft tokens of one sequence: looked up in its text, which costs nothing, or else drafted by a model.

    It holds nothing of the draft model: it may leave its engine with a suspended sequence.
    """

    __slots__ = ("_acceptance", "_drafted", "_found", "_length", "_lookup")

    def __init__(self, lookup: NgramProposer | None) -> None:
        self._lookup = lookup
        self._found: list[int] = []
        self._drafted: list[int] = []
        self._length = 0
        self._acceptance = Acceptance(_FIRST_SHARE)

    def draft_length(
        self, tokens: Sequence[int], draft_cost: float, cost: StepCosts, sequences: int, credit: float
    ) -> int:
        """Return how many tokens to draft after ``tokens``; for the other parameters see ``drafts_worthwhile``."""
        self._look_up(tokens)
        if self._found:
            return 0
        self._acceptance.settle_back()
        return drafts_worthwhile(self._acceptance, draft_cost, cost, sequences, credit)

    def _look_up(self, tokens: Sequence[int]) -> None:
        self._length, self._drafted = len(tokens), []
        self._found = [] if self._lookup is None else self._lookup.propose(tokens, MAX_PROPOSED)

    def set_draft(self, drafted: list[int]) -> None:
        """Set the tokens that the draft model drafted."""
        self._drafted = drafted

    @property
    def share(self) -> float:
        """Probability that a token of the last draft is accepted, if those before it are."""
        return self._lookup.share if self._found and self._lookup is not None else self._acceptance.share

    @property
    def kept(self) -> float:
        """Probability that the token behind the accepted ones is kept."""
        return self._lookup.kept if self._found and self._lookup is not None else self._acceptance.kept

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Return at most ``limit`` of the tokens that were looked up or drafted."""
        if self._length != len(tokens):
            # No draft was asked for in this step.
            self._look_up(tokens)
        return (self._found or self._drafted)[:limit]

    def record_verified(self, proposed: int, accepted: int, *, kept: bool) -> None:
        """Learn how the last draft did."""
        if self._found and self._lookup is not None:
            self._lookup.record_verified(proposed, accepted, kept=kept)
        else:
            # An uncertain token counts neither for the draft model nor against it: what it cost is in the credit.
            self._acceptance.record(proposed if kept else accepted, accepted, kept=True)


@dataclass(slots=True)
class _Slot:
    """One sequence number of the draft model's cache; idle, with its last content, where ``owner`` is None.

    salt is the salt of the sequence whose tokens the slot holds; see ``Submit.cache_salt``.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    owner: SequenceId | None = None
    salt: str = ""

    def common(self, sequence: TokenSequence) -> int:
        """Return how many of its tokens ``sequence`` can reuse."""
        return common_prefix(self.tokens, sequence.tokens) if self.salt == sequence.salt else 0


@dataclass(slots=True)
class _Draft:
    """The draft of one sequence in progress."""

    slot: _Slot
    proposer: DraftProposer
    count: int
    pending: list[int]
    drafted: list[int] = field(default_factory=list)


class DraftModel:
    """The draft model of one engine. It belongs to the engine's thread.

    Args:
        context: a context on the draft model's weights.
        slots: sequences that ``context`` can tell apart.
        cost: cost of a step of the draft model, in steps of the model that verifies.
        window: window of the narrowest attention layers of the draft model; 0 where all layers see everything.
    """

    def __init__(self, context: Context, slots: int, cost: float, window: int = 0) -> None:
        self.context = context
        self._cost, self._window = cost, window
        self._slots = [_Slot(index) for index in range(slots)]
        self._batch = Batch(DRAFT_BATCH_TOKENS)

    def draft(self, sequences: Sequence[TokenSequence], cost: StepCosts) -> None:
        """Draft tokens for those of ``sequences``, which all decode next, for which drafting pays.

        All of them are charged for its time, except for prompts: whoever names a draft model wants it to compute them.

        cost: times of steps of the model that verifies.
        """
        drafting = []
        credit = min(sequence.credit for sequence in sequences)
        for sequence in sequences:
            if isinstance(sequence.proposer, DraftProposer) and not sequence.is_alone:
                count = sequence.proposer.draft_length(sequence.tokens, self._cost, cost, len(sequences), credit)
                if count:
                    drafting.append((sequence, sequence.proposer, count))
        if drafting:
            drafts = [self._start(sequence, proposer, count) for sequence, proposer, count in drafting]
            missed = sum(
                min(len(draft.pending), sequence.answer_length)
                for draft, (sequence, _, _) in zip(drafts, drafting, strict=True)
            )
            longest = max(draft.count for draft in drafts)
            took = self._cost * (cost(max(missed, len(drafts))) + (longest - 1) * cost(len(drafts)))
            self._generate(drafts, beside=len(sequences) > 1)
            for sequence in sequences:
                sequence.credit -= took

    def release(self, sequence: SequenceId) -> None:
        """Release the slot of a sequence that has ended; its tokens remain as a prefix."""
        for slot in self._slots:
            if slot.owner == sequence:
                slot.owner = None

    def _start(self, sequence: TokenSequence, proposer: DraftProposer, count: int) -> _Draft:
        own = [slot for slot in self._slots if slot.owner == sequence.id]
        idle = [slot for slot in self._slots if slot.owner is None]
        slot = max(own or idle, key=lambda slot: (slot.common(sequence), -len(slot.tokens)))
        # The last token is always computed, since the draft continues from it.
        length = min(slot.common(sequence), len(sequence.tokens) - 1)
        is_seen = not self._window or self.context.first_position(slot.index) <= max(0, length - self._window + 1)
        self._trim(slot, length if is_seen else 0)
        slot.owner, slot.salt = sequence.id, sequence.salt
        return _Draft(slot, proposer, count, sequence.tokens[len(slot.tokens) :])

    def _generate(self, drafts: list[_Draft], *, beside: bool) -> None:
        """Compute the pending tokens of each draft, then extend it token by token once none is pending."""
        room = DRAFT_BATCH_TOKENS
        while drafts:
            length, computed = 0, []
            for draft in drafts:
                limit = min(room - length, _CATCH_UP_BESIDE if beside else room)
                part = draft.pending[:limit]
                if not part:
                    continue
                is_last = len(part) == len(draft.pending)
                length = self._batch.fill(
                    length, part, len(draft.slot.tokens), draft.slot.index, outputs=1 if is_last else 0
                )
                draft.slot.tokens.extend(part)
                computed.append((draft, is_last))
            if not self._decode(length):
                return
            complete = [draft for draft, is_last in computed if is_last]
            if complete:
                for draft, token in zip(complete, self.context.logits(len(complete)).argmax(axis=1), strict=True):
                    draft.pending = [int(token)]
                    draft.drafted.append(int(token))
                    draft.proposer.set_draft(draft.drafted)
            drafts = [draft for draft in complete if len(draft.drafted) < draft.count]

    def _decode(self, length: int) -> bool:
        """Compute the batch; False where it does not fit the cache, and then all slots are emptied."""
        used = sum(len(slot.tokens) for slot in self._slots)
        if used > self.context.length:
            for slot in self._slots:
                if slot.owner is None:
                    used -= len(slot.tokens)
                    self._trim(slot, 0)
        if used <= self.context.length:
            outcome = self.context.decode(self._batch, length)
            if outcome == Context.DECODED:
                return True
            logger.warning("Drafting failed: llama_decode returned %s: %s", outcome, self.context.failure())
        for slot in self._slots:
            self._trim(slot, 0)
        return False

    def _trim(self, slot: _Slot, length: int) -> None:
        if length < len(slot.tokens):
            del slot.tokens[length:]
            self.context.trim(slot.index, length)

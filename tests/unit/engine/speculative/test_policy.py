"""How many tokens are drafted, and what is learned from them."""

from __future__ import annotations

from math import inf
from typing import cast

import numpy as np
import pytest

from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.llama import Batch, Context
from modelyard.engine.speculative.draft_model import DraftModel, DraftProposer
from modelyard.engine.speculative.ngram import NgramProposer
from modelyard.engine.speculative.policy import MAX_DRAFTED, Acceptance, Offer, drafts_worthwhile, plan_drafts
from modelyard.protocol.values import SequenceId

SMALL = 0.1


def slow(tokens: int) -> float:
    """Times on a machine that arithmetic bounds."""
    return 0.65 + 0.35 * tokens


def fast(tokens: int) -> float:
    """Times on a machine that memory bounds."""
    return 0.98 + 0.02 * tokens


def offer(available: int, share: float, *, kept: float = 1.0, credit: float = inf) -> Offer:
    return Offer(available, share, kept, credit)


@pytest.mark.parametrize(("share", "count"), [(1.0, 15), (0.95, 7), (0.85, 3), (0.3, 0)])
def test_the_likelier_a_guess_the_more_of_it_is_verified(share: float, count: int) -> None:
    assert plan_drafts([offer(15, share)], slow, 31) == [count]


def test_the_cheaper_another_token_is_the_more_are_verified() -> None:
    assert plan_drafts([offer(31, 0.45)], slow, 31) == [0]
    assert plan_drafts([offer(31, 0.45)], fast, 31) == [3]


def test_no_more_is_verified_than_there_is_room_for() -> None:
    assert plan_drafts([offer(15, 0.99)] * 3, fast, 4) == [2, 1, 1]
    assert plan_drafts([offer(15, 0.99)], fast, 0) == [0]


def test_guesses_that_would_be_computed_again_are_worth_less() -> None:
    assert plan_drafts([offer(15, 0.8)], slow, 31) == [3]
    assert plan_drafts([offer(15, 0.8, kept=0.1)], slow, 31) == [0]


def test_of_several_streams_the_likeliest_guesses_are_verified() -> None:
    assert plan_drafts([offer(0, 0.0), offer(8, 0.5), offer(8, 0.9)], fast, 7) == [0, 1, 6]


def test_where_guesses_are_equally_likely_those_of_the_stream_that_was_cost_most_are_verified() -> None:
    assert plan_drafts([offer(1, 0.9, credit=9), offer(1, 0.9, credit=8)], fast, 1) == [0, 1]


def test_no_stream_waits_for_the_guesses_of_another_beyond_its_credit() -> None:
    poor = -1.5 * slow(2)
    assert plan_drafts([offer(8, 0.95), offer(0, 0.0, credit=poor)], slow, 31) == [0, 0]
    assert plan_drafts([offer(8, 0.95), offer(0, 0.0, credit=poor + 0.8)], slow, 31) == [2, 0]


def worthwhile(share: float, draft_cost: float, sequences: int = 1, *, kept: float = 1.0, credit: float = inf) -> int:
    acceptance = Acceptance(share)
    acceptance.kept = kept
    return drafts_worthwhile(acceptance, draft_cost, slow, sequences, credit)


@pytest.mark.parametrize(("share", "count"), [(1.0, MAX_DRAFTED), (0.8, 2), (0.3, 0)])
def test_the_likelier_a_draft_holds_the_more_is_drafted(share: float, count: int) -> None:
    assert worthwhile(share, SMALL) == count


def test_a_draft_model_as_large_as_the_other_never_drafts() -> None:
    assert worthwhile(0.99, 1.0) == 0


def test_of_many_sequences_each_drafts_less() -> None:
    assert worthwhile(0.9, SMALL, 8) <= worthwhile(0.9, SMALL)


def test_what_cannot_be_afforded_or_is_computed_again_is_not_drafted() -> None:
    assert worthwhile(0.9, SMALL, credit=0) == 1
    assert worthwhile(0.9, SMALL, credit=-0.1) == 0
    assert worthwhile(0.7, SMALL) > worthwhile(0.7, SMALL, kept=0.1) == 0


def test_what_stood_there_before_is_not_drafted() -> None:
    guesses = DraftProposer(NgramProposer())
    tokens = [1, 2, 3, 4, 5, 1, 2, 3]
    assert guesses.draft_length(tokens, SMALL, slow, 1, inf) == 0
    assert guesses.propose(tokens, 2) == [4, 5]


def test_drafts_that_fail_are_given_up_and_tried_again_later() -> None:
    guesses = DraftProposer(None)
    wanted, length = [], 10
    for _ in range(400):
        tokens = list(range(length))
        wanted.append(guesses.draft_length(tokens, SMALL, slow, 1, inf))
        if wanted[-1]:
            guesses.set_draft([7] * wanted[-1])
            guesses.record_verified(len(guesses.propose(tokens, 8)), 0, kept=True)
        length += 1
    given_up = wanted.index(0)
    assert 0 < given_up < 10
    assert 1 <= sum(count > 0 for count in wanted[given_up:]) <= 8


def test_a_draft_for_other_tokens_is_not_taken_for_a_guess() -> None:
    guesses = DraftProposer(None)
    assert guesses.draft_length([1, 2, 3], SMALL, slow, 1, inf) > 0
    guesses.set_draft([4, 5])
    assert guesses.propose([1, 2, 3], 8) == [4, 5]
    assert guesses.propose([1, 2, 3, 9], 8) == []


class Scripted:
    """A draft model that always says 7, in a context of ``length`` cells."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.steps: list[int] = []

    def decode(self, _batch: Batch, length: int) -> int:
        self.steps.append(length)
        return Context.DECODED

    def logits(self, rows: int) -> np.ndarray:
        return np.eye(8, dtype=np.float32)[[7] * rows]

    def trim(self, _slot: int, _length: int) -> None:
        pass


def decoding(tokens: int, number: int = 0) -> Sequence:
    sequence = Sequence(SequenceId(number), number, list(range(tokens)))
    sequence.proposer = DraftProposer(None)
    sequence.credit = 10.0
    return sequence


def drafted(sequence: Sequence) -> list[int]:
    assert sequence.proposer is not None
    return sequence.proposer.propose(sequence.tokens, MAX_DRAFTED)


def test_a_draft_model_reads_what_it_has_not_read_and_says_what_is_wanted() -> None:
    context, sequence = Scripted(100), decoding(20)
    drafter = DraftModel(cast(Context, context), 2, SMALL)
    drafter.draft([sequence], slow)
    assert drafted(sequence) == [7, 7]
    assert context.steps == [20, 1]
    sequence.tokens.append(7)
    drafter.draft([sequence], slow)
    # It said the first 7 itself, and has read it.
    assert context.steps[2] == 1


def test_a_draft_model_that_has_not_caught_up_says_nothing_yet() -> None:
    context, sequence = Scripted(1000), decoding(200)
    drafter = DraftModel(cast(Context, context), 2, SMALL)
    drafter.draft([sequence], slow)
    assert drafted(sequence) == []
    drafter.draft([sequence], slow)
    assert drafted(sequence) == [7, 7]
    assert context.steps[:2] == [128, 72]


def test_where_its_context_is_full_nothing_is_drafted_and_idle_sequences_give_way() -> None:
    context = Scripted(30)
    drafter = DraftModel(cast(Context, context), 2, SMALL)
    first, second, long = decoding(20), decoding(25, 1), decoding(40, 2)
    drafter.draft([first], slow)
    drafter.release(SequenceId(0))
    second.tokens = [5] * 25
    drafter.draft([second], slow)
    assert drafted(second) == [7, 7]
    drafter.release(SequenceId(1))
    drafter.draft([long], slow)
    assert drafted(long) == []

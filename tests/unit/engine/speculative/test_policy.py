"""How many tokens are drafted, and what is learned from them."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.llama import Batch, Context
from modelyard.engine.speculative.draft_model import DraftModel, DraftProposer
from modelyard.engine.speculative.ngram import NgramProposer
from modelyard.engine.speculative.policy import MAX_DRAFTED, drafts_worthwhile
from modelyard.protocol.values import SequenceId

SMALL = 0.1


@pytest.mark.parametrize(("share", "count"), [(1.0, MAX_DRAFTED), (0.8, 2), (0.3, 0)])
def test_the_likelier_a_draft_holds_the_more_is_drafted(share: float, count: int) -> None:
    assert drafts_worthwhile(share, SMALL, 1) == count


def test_a_draft_model_as_large_as_the_other_never_drafts() -> None:
    assert drafts_worthwhile(0.99, 1.0, 1) == 0


def test_of_many_sequences_each_drafts_less() -> None:
    assert drafts_worthwhile(0.9, SMALL, 8) <= drafts_worthwhile(0.9, SMALL, 1)


def test_what_stood_there_before_is_not_drafted() -> None:
    guesses = DraftProposer(NgramProposer())
    tokens = [1, 2, 3, 4, 5, 1, 2, 3]
    assert guesses.draft_length(tokens, SMALL, 1) == 0
    assert guesses.propose(tokens, 2) == [4, 5]


def test_drafts_that_fail_are_given_up_and_tried_again_later() -> None:
    guesses = DraftProposer(None)
    wanted, length = [], 10
    for _ in range(100):
        tokens = list(range(length))
        wanted.append(guesses.draft_length(tokens, SMALL, 1))
        if wanted[-1]:
            guesses.set_draft([7] * wanted[-1])
            guesses.record_verified(len(guesses.propose(tokens, 8)), 0)
        length += 1
    given_up = wanted.index(0)
    assert 0 < given_up < 10
    assert 1 <= sum(count > 0 for count in wanted[given_up:]) <= 2


def test_a_draft_for_other_tokens_is_not_taken_for_a_guess() -> None:
    guesses = DraftProposer(None)
    assert guesses.draft_length([1, 2, 3], SMALL, 1) > 0
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
    return sequence


def drafted(sequence: Sequence) -> list[int]:
    assert sequence.proposer is not None
    return sequence.proposer.propose(sequence.tokens, MAX_DRAFTED)


def test_a_draft_model_reads_what_it_has_not_read_and_says_what_is_wanted() -> None:
    context, sequence = Scripted(100), decoding(20)
    drafter = DraftModel(cast(Context, context), 2, SMALL)
    drafter.draft([sequence])
    assert drafted(sequence) == [7, 7]
    assert context.steps == [20, 1]
    sequence.tokens.append(7)
    drafter.draft([sequence])
    # It said the first 7 itself, and has read it.
    assert context.steps[2] == 1


def test_a_draft_model_that_has_not_caught_up_says_nothing_yet() -> None:
    context, sequence = Scripted(1000), decoding(200)
    drafter = DraftModel(cast(Context, context), 2, SMALL)
    drafter.draft([sequence])
    assert drafted(sequence) == []
    drafter.draft([sequence])
    assert drafted(sequence) == [7, 7]
    assert context.steps[:2] == [128, 72]


def test_where_its_context_is_full_nothing_is_drafted_and_idle_sequences_give_way() -> None:
    context = Scripted(30)
    drafter = DraftModel(cast(Context, context), 2, SMALL)
    first, second, long = decoding(20), decoding(25, 1), decoding(40, 2)
    drafter.draft([first])
    drafter.release(SequenceId(0))
    second.tokens = [5] * 25
    drafter.draft([second])
    assert drafted(second) == [7, 7]
    drafter.release(SequenceId(1))
    drafter.draft([long])
    assert drafted(long) == []

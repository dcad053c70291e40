"""How many tokens are drafted, and what is learned from them."""

from __future__ import annotations

import pytest

from modelyard.engine.draft import DraftedGuesses
from modelyard.engine.lookup import PromptLookup
from modelyard.engine.speculation import MOST_DRAFTED, drafts_worthwhile

SMALL = 0.1


@pytest.mark.parametrize(("share", "count"), [(1.0, MOST_DRAFTED), (0.8, 2), (0.3, 0)])
def test_the_likelier_a_draft_holds_the_more_is_drafted(share: float, count: int) -> None:
    assert drafts_worthwhile(share, SMALL, 1) == count


def test_a_draft_model_as_large_as_the_other_never_drafts() -> None:
    assert drafts_worthwhile(0.99, 1.0, 1) == 0


def test_of_many_sequences_each_drafts_less() -> None:
    assert drafts_worthwhile(0.9, SMALL, 8) <= drafts_worthwhile(0.9, SMALL, 1)


def test_what_stood_there_before_is_not_drafted() -> None:
    guesses = DraftedGuesses(PromptLookup())
    tokens = [1, 2, 3, 4, 5, 1, 2, 3]
    assert guesses.wanted(tokens, SMALL, 1) == 0
    assert guesses.guess(tokens, 2) == [4, 5]


def test_drafts_that_fail_are_given_up_and_tried_again_later() -> None:
    guesses = DraftedGuesses(None)
    wanted, length = [], 10
    for _ in range(100):
        tokens = list(range(length))
        wanted.append(guesses.wanted(tokens, SMALL, 1))
        if wanted[-1]:
            guesses.take([7] * wanted[-1])
            guesses.learn(len(guesses.guess(tokens, 8)), 0)
        length += 1
    given_up = wanted.index(0)
    assert 0 < given_up < 10
    assert 1 <= sum(count > 0 for count in wanted[given_up:]) <= 2


def test_a_draft_for_other_tokens_is_not_taken_for_a_guess() -> None:
    guesses = DraftedGuesses(None)
    assert guesses.wanted([1, 2, 3], SMALL, 1) > 0
    guesses.take([4, 5])
    assert guesses.guess([1, 2, 3], 8) == [4, 5]
    assert guesses.guess([1, 2, 3, 9], 8) == []

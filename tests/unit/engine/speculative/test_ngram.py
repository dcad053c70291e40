"""Guesses from what was said before."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from modelyard.engine.speculative import ngram as lookup_module
from modelyard.engine.speculative.ngram import MAX_MATCH_LENGTH, MIN_MATCH_LENGTH, NgramProposer, PredictionProposer
from modelyard.engine.speculative.policy import Offer, plan_drafts


def test_what_followed_the_last_tokens_before_is_guessed() -> None:
    assert NgramProposer().propose([1, 2, 3, 4, 5, 9, 1, 2, 3], 2) == [4, 5]


def test_of_several_places_the_latest_counts() -> None:
    assert NgramProposer().propose([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], 1) == [8]


def test_a_guess_may_run_into_the_tokens_that_it_goes_on_from() -> None:
    assert NgramProposer().propose([6, 6, 6, 6], 8) == [6]


def test_without_an_earlier_place_nothing_is_guessed() -> None:
    assert NgramProposer().propose([], 5) == []
    assert NgramProposer().propose([1, 2], 5) == []
    assert NgramProposer().propose([1, 2, 3, 4, 5, 6], 5) == []


def test_tokens_that_are_added_are_found_later() -> None:
    guesses, tokens = NgramProposer(), [1, 2, 3, 4]
    assert guesses.propose(tokens, 5) == []
    tokens += [9, 1, 2, 3]
    assert guesses.propose(tokens, 5) == [4, 9, 1, 2, 3]


def test_a_guess_stands_where_its_first_tokens_stood_in_any_text() -> None:
    chance = random.Random(5)
    for _ in range(200):
        guesses, tokens = NgramProposer(), [chance.randrange(3) for _ in range(40)]
        for _ in range(20):
            tokens.append(chance.randrange(3))
            propose = guesses.propose(tokens, 4)
            places = [
                tokens[at : at + 4]
                for at in range(MIN_MATCH_LENGTH, len(tokens))
                if tokens[at - MIN_MATCH_LENGTH : at] == tokens[-MIN_MATCH_LENGTH:]
            ]
            assert propose == (places[-1] if places else [])


def test_a_long_match_is_trusted_more_than_a_short_one() -> None:
    short, long = NgramProposer(), NgramProposer()
    short.propose([*range(40), 99, *range(MIN_MATCH_LENGTH)], 1)
    long.propose([*range(40), 99, *range(MAX_MATCH_LENGTH + 5)], 1)
    assert short.share < long.share < 1


def test_guesses_that_fail_are_trusted_less_and_those_that_hold_more() -> None:
    good, bad = NgramProposer(), NgramProposer()
    for guesses in (good, bad):
        guesses.propose([1, 2, 3, 4, 1, 2, 3], 1)
    before = good.share
    good.record_verified(8, 8, kept=True)
    bad.record_verified(8, 0, kept=True)
    assert bad.share < before < good.share
    bad.record_verified(0, 0, kept=True)
    for _ in range(50):
        bad.record_verified(8, 0, kept=True)
    assert bad.share < 0.01


def test_a_guess_that_was_uncertain_is_trusted_less_although_it_was_right() -> None:
    guesses = NgramProposer()
    guesses.propose([1, 2, 3, 4, 1, 2, 3], 1)
    before = guesses.share
    guesses.record_verified(1, 0, kept=False)
    assert guesses.share < before
    assert guesses.kept < 1


def test_a_guess_that_is_not_trusted_is_trusted_again_after_a_while() -> None:
    guesses, tokens = NgramProposer(), [1, 2, 3, 4, 1, 2, 3]
    guesses.propose(tokens, 1)
    before = guesses.share
    for _ in range(50):
        guesses.record_verified(1, 0, kept=False)
    for _ in range(1000):
        guesses.propose(tokens, 1)
    assert (guesses.share, guesses.kept) == pytest.approx((before, 1), rel=0.02)


def test_a_long_prompt_is_looked_through_in_parts_and_not_beyond_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookup_module, "_MAX_INDEXED_PER_STEP", 10)
    monkeypatch.setattr(lookup_module, "_MAX_INDEXED", 30)
    guesses, tokens = NgramProposer(), [*range(100), 85, 86, 87]
    assert guesses.propose(tokens, 2) == []
    assert guesses.propose(tokens, 2) == [88, 89]
    far = NgramProposer()
    tokens = [*range(100), 5, 6, 7]
    assert [far.propose(tokens, 2) for _ in range(5)] == [[]] * 5


PREDICTED = [1, 2, 3, 4, 5, 6, 7]


class Nothing:
    """Guesses the same wrong token, and notes what it is told of it."""

    share, kept = 0.25, 0.5

    def __init__(self) -> None:
        self.learnt: list[tuple[int, int, bool]] = []

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        return [99][:most]

    def record_verified(self, proposed: int, accepted: int, *, kept: bool) -> None:
        self.learnt.append((proposed, accepted, kept))


def predicted(otherwise: Nothing | None = None) -> PredictionProposer:
    return PredictionProposer(PREDICTED, 2, otherwise or Nothing())


@pytest.mark.parametrize(("said", "goes_on"), [([], [1, 2, 3]), ([1, 2], [3, 4, 5]), ([9, 3, 4, 5], [6, 7])])
def test_a_prediction_goes_on_where_the_answer_is_in_it(said: list[int], goes_on: list[int]) -> None:
    assert predicted().propose([50, 51, *said], 3) == goes_on


@pytest.mark.parametrize("said", [[2], [1, 3], [9, 9, 9], PREDICTED])
def test_where_it_does_not_another_guesses(said: list[int]) -> None:
    otherwise = Nothing()
    proposer = predicted(otherwise)
    assert proposer.propose([50, 51, *said], 3) == [99]
    assert (proposer.share, proposer.kept) == (otherwise.share, otherwise.kept)
    proposer.record_verified(1, 0, kept=False)
    assert otherwise.learnt == [(1, 0, False)]


def test_a_prediction_that_fails_is_trusted_less_until_it_costs_nothing() -> None:
    proposer = predicted()
    shares = []
    for _ in range(30):
        proposer.propose([50, 51], 4)
        shares.append(proposer.share)
        proposer.record_verified(4, 0, kept=True)
    assert shares == sorted(shares, reverse=True)
    assert plan_drafts([Offer(4, proposer.share, proposer.kept, 10)], lambda tokens: 0.8 + 0.2 * tokens, 4) == [0]
    proposer.record_verified(4, 4, kept=True)
    assert proposer.share > shares[-1]


def test_a_prediction_of_nothing_predicts_nothing() -> None:
    assert PredictionProposer([], 1, Nothing()).propose([5, 6, 7, 8], 3) == [99]

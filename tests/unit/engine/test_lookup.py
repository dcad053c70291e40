"""Guesses from what was said before."""

from __future__ import annotations

import random

import pytest

from modelyard.engine import lookup as lookup_module
from modelyard.engine.lookup import LONGEST_MATCH, SHORTEST_MATCH, PromptLookup


def test_what_followed_the_last_tokens_before_is_guessed() -> None:
    assert PromptLookup().guess([1, 2, 3, 4, 5, 9, 1, 2, 3], 2) == [4, 5]


def test_of_several_places_the_latest_counts() -> None:
    assert PromptLookup().guess([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], 1) == [8]


def test_a_guess_may_run_into_the_tokens_that_it_goes_on_from() -> None:
    assert PromptLookup().guess([6, 6, 6, 6], 8) == [6]


def test_without_an_earlier_place_nothing_is_guessed() -> None:
    assert PromptLookup().guess([], 5) == []
    assert PromptLookup().guess([1, 2], 5) == []
    assert PromptLookup().guess([1, 2, 3, 4, 5, 6], 5) == []


def test_tokens_that_are_added_are_found_later() -> None:
    guesses, tokens = PromptLookup(), [1, 2, 3, 4]
    assert guesses.guess(tokens, 5) == []
    tokens += [9, 1, 2, 3]
    assert guesses.guess(tokens, 5) == [4, 9, 1, 2, 3]


def test_a_guess_stands_where_its_first_tokens_stood_in_any_text() -> None:
    chance = random.Random(5)
    for _ in range(200):
        guesses, tokens = PromptLookup(), [chance.randrange(3) for _ in range(40)]
        for _ in range(20):
            tokens.append(chance.randrange(3))
            guess = guesses.guess(tokens, 4)
            places = [
                tokens[at : at + 4]
                for at in range(SHORTEST_MATCH, len(tokens))
                if tokens[at - SHORTEST_MATCH : at] == tokens[-SHORTEST_MATCH:]
            ]
            assert guess == (places[-1] if places else [])


def test_a_long_match_is_trusted_more_than_a_short_one() -> None:
    short, long = PromptLookup(), PromptLookup()
    short.guess([*range(40), 99, *range(SHORTEST_MATCH)], 1)
    long.guess([*range(40), 99, *range(LONGEST_MATCH + 5)], 1)
    assert short.share < long.share < 1


def test_guesses_that_fail_are_trusted_less_and_those_that_hold_more() -> None:
    good, bad = PromptLookup(), PromptLookup()
    for guesses in (good, bad):
        guesses.guess([1, 2, 3, 4, 1, 2, 3], 1)
    before = good.share
    good.learn(8, 8)
    bad.learn(8, 0)
    assert bad.share < before < good.share
    bad.learn(0, 0)
    for _ in range(50):
        bad.learn(8, 0)
    assert bad.share < 0.01


def test_a_long_prompt_is_looked_through_in_parts_and_not_beyond_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookup_module, "_INDEXED_A_STEP", 10)
    monkeypatch.setattr(lookup_module, "_INDEXED_MOST", 30)
    guesses, tokens = PromptLookup(), [*range(100), 85, 86, 87]
    assert guesses.guess(tokens, 2) == []
    assert guesses.guess(tokens, 2) == [88, 89]
    far = PromptLookup()
    tokens = [*range(100), 5, 6, 7]
    assert [far.guess(tokens, 2) for _ in range(5)] == [[]] * 5

"""How likely tokens were, let out with the text that they belong to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.engine.output.logprobs import LogprobRecorder, log_softmax

PIECES = {0: b"a", 1: b"bc", 2: "é".encode()[:1], 3: "é".encode()[1:], 4: b"<control>"}
SCORES = log_softmax(np.array([2.0, 1.0, 3.0, 0.0, -1.0], np.float32))


def trail(most: int = 2) -> LogprobRecorder:
    return LogprobRecorder(most, PIECES.__getitem__)


def added(tokens: list[int], sizes: dict[int, int] | None = None) -> LogprobRecorder:
    made = trail()
    for token in tokens:
        made.add(token, (sizes or {}).get(token, len(PIECES[token])), SCORES)
    return made


def test_log_probabilities_are_those_of_the_softmax() -> None:
    logits = np.array([1000.0, 999.0, -np.inf], np.float32)
    scores = log_softmax(logits)
    assert [scores.of(token) for token in range(3)] == pytest.approx([-0.31326, -1.31326, -np.inf], abs=1e-5)
    assert sum(math.exp(SCORES.of(token)) for token in PIECES) == pytest.approx(1)
    # The sampler may change the logits afterwards.
    logits[:] = 0
    assert scores.of(2) == -np.inf


def test_the_likeliest_come_first_with_the_token_itself_apart() -> None:
    entry = trail(most=3).entry(4, SCORES)
    assert (entry.token, entry.logprob) == (b"<control>", SCORES.of(4))
    assert [token for token, _ in entry.top] == [PIECES[2], PIECES[0], PIECES[1]]
    assert [score for _, score in entry.top] == sorted((score for _, score in entry.top), reverse=True)


@pytest.mark.parametrize(("most", "told"), [(0, 0), (1, 1), (5, 5), (20, 5)])
def test_as_many_are_told_as_are_asked_for_and_there_are(most: int, told: int) -> None:
    assert len(trail(most).entry(0, SCORES).top) == told


def test_tokens_wait_for_their_text() -> None:
    made = added([0, 1])
    assert [each.token for each in made.release("ab")] == [b"a"]
    assert [each.token for each in made.release("c")] == [b"bc"]
    assert made.release("") == ()


def test_parts_of_a_character_come_with_the_character() -> None:
    made = trail()
    made.add(2, 1, SCORES)
    assert made.release("") == ()
    made.add(3, 1, SCORES)
    assert [each.token for each in made.release("é")] == [PIECES[2], PIECES[3]]


def test_a_control_token_counts_as_the_text_that_it_adds() -> None:
    silent, spelt = added([4, 0], {4: 0}), added([4, 0])
    assert [each.token for each in silent.release("a")] == [b"<control>", b"a"]
    assert [each.token for each in spelt.release("<control>")] == [b"<control>"]


def test_what_is_held_comes_with_the_end_but_for_what_a_stop_string_took() -> None:
    assert [each.token for each in added([0, 2]).release_last("a", is_cut=False)] == [b"a", PIECES[2]]
    assert [each.token for each in added([0, 1, 0]).release_last("ab", is_cut=True)] == [b"a", b"bc"]
    assert added([0]).release_last("", is_cut=True) == ()


def test_a_prompt_is_scored_once_in_whatever_parts_it_is_computed() -> None:
    tokens = [0, 1, 2, 3]
    logits = np.array([[2.0, 1.0, 3.0, 0.0, -1.0]] * 4, np.float32)
    whole, parts = trail(), trail()
    whole.score(tokens, 0, logits)
    parts.score(tokens, 0, logits[:2])
    # The sequence gave way, and is computed again from its beginning.
    for at in range(4):
        parts.score(tokens, at, logits[at : at + 1])
    assert parts.prompt[1:] == whole.prompt[1:]
    assert [entry.token for entry in whole.prompt] == [PIECES[token] for token in tokens]
    assert np.isnan(whole.prompt[0].logprob)
    assert [entry.logprob for entry in whole.prompt[1:]] == [SCORES.of(token) for token in tokens[1:]]

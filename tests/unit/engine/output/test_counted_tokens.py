"""Samplers count the tokens of the answer, also where a budget or a grammar put them in place of those drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelyard.engine.guidance import Constraint, ConstraintBroken
from modelyard.engine.guidance.matcher import Matcher
from modelyard.engine.output.adjustments import Adjustments
from modelyard.engine.output.reasoning_budget import BudgetedSampler, ReasoningBudget, ReasoningSpan
from modelyard.engine.output.restricted import RestrictedSampler
from modelyard.engine.output.sampler import ConstrainedSampler, GreedySampler
from unit.engine.guidance.words import SIZE, TOKENS, vocabulary

CONTEXT: Any = None


class Counting(GreedySampler):
    """A greedy sampler that remembers what it has counted."""

    def __init__(self) -> None:
        super().__init__(Adjustments({}))
        self.counted: list[int] = []

    def sample(self, context: Any, index: int, logits: npt.NDArray[np.float32]) -> int:
        token = super().sample(context, index, logits)
        self.counted.append(token)
        return token

    def accept(self, token: int) -> None:
        self.counted.append(token)


def liking(text: bytes) -> npt.NDArray[np.float32]:
    """The logits of a model that likes the characters of a text, the first one best."""
    logits = np.zeros(SIZE, np.float32)
    for rank, byte in enumerate(reversed(text), start=1):
        logits[byte] = rank
    return logits


def sampled(sampler: Any, likes: bytes, tokens: int, *, draws: bool) -> list[int]:
    """The next tokens of a model that likes the characters of a text."""
    answer = []
    for _ in range(tokens):
        if draws:
            token, probabilities = sampler.draw(liking(likes))
            assert probabilities()[token] > 0
            sampler.accept(token)
        else:
            token = sampler.sample(CONTEXT, 0, liking(likes))
        answer.append(token)
    return answer


@pytest.mark.parametrize("draws", [False, True])
def test_a_token_that_ends_an_answer_in_time_is_the_one_that_counts(draws: bool) -> None:
    inner = Counting()
    constraint = Constraint(vocabulary(), Matcher(vocabulary(), 'start: "\\"" /[a-z]+/ "\\""'))
    constraint.tokens_left = 6
    answer = sampled(ConstrainedSampler(inner, constraint), b'x"', 6, draws=draws)
    assert b"".join(TOKENS[token] for token in answer) == b'"xxxx"'
    assert inner.counted == answer


@pytest.mark.parametrize("draws", [False, True])
def test_a_token_that_a_budget_forces_is_the_one_that_counts(draws: bool) -> None:
    inner = Counting()
    span = ReasoningSpan(b"<think>", b"</think>", tuple(b"</think>"), is_open=True)
    budgeted = BudgetedSampler(inner, ReasoningBudget(span, 2, lambda token: TOKENS[token]))
    answer = sampled(budgeted, b"x", 12, draws=draws)
    assert b"".join(TOKENS[token] for token in answer) == b"xx</think>xx"
    assert inner.counted == answer


@pytest.mark.parametrize("draws", [False, True])
def test_only_allowed_tokens_are_chosen(draws: bool) -> None:
    sampler = RestrictedSampler(GreedySampler(Adjustments({})), SIZE, tuple(b"ab"))
    assert bytes(sampled(sampler, b"xyb", 3, draws=draws)) == b"bbb"


@pytest.mark.parametrize("draws", [False, True])
def test_an_excluded_sequence_is_never_completed(draws: bool) -> None:
    sampler = RestrictedSampler(GreedySampler(Adjustments({})), SIZE, None, [tuple(b"xxx"), tuple(b"y")])
    assert bytes(sampled(sampler, b"xyz", 7, draws=draws)) == b"xxzxxzx"


def test_what_an_earlier_engine_has_sampled_belongs_to_an_excluded_sequence() -> None:
    sampler = RestrictedSampler(GreedySampler(Adjustments({})), SIZE, None, [tuple(b"xxx")], list(b"abxx"))
    assert bytes(sampled(sampler, b"xz", 2, draws=False)) == b"zx"


def test_a_token_that_is_sampled_again_counts_once_towards_an_excluded_sequence() -> None:
    sampler = RestrictedSampler(GreedySampler(Adjustments({})), SIZE, None, [tuple(b"xx")])
    uncertain = np.zeros(SIZE, np.float32)
    uncertain[ord("x")] = 0.1
    assert not sampler.is_certain(uncertain.copy(), sampler.sample(CONTEXT, 0, uncertain))
    assert bytes(sampled(sampler, b"xz", 2, draws=False)) == b"xz"


def test_a_grammar_that_allows_none_of_the_allowed_tokens_fails_its_request() -> None:
    constraint = Constraint(vocabulary(), Matcher(vocabulary(), "start: /[0-9]+/"))
    sampler = ConstrainedSampler(RestrictedSampler(GreedySampler(Adjustments({})), SIZE, tuple(b"ab")), constraint)
    with pytest.raises(ConstraintBroken, match="allows"):
        sampler.sample(CONTEXT, 0, liking(b"a"))

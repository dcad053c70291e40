"""Reasoning ends at its budget, whatever the model would say, and is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelyard.engine.guidance import Constraint
from modelyard.engine.guidance.matcher import Matcher
from modelyard.engine.output.adjustments import Adjustments
from modelyard.engine.output.reasoning_budget import BudgetedSampler, ReasoningBudget, ReasoningCounter, ReasoningSpan
from modelyard.engine.output.sampler import ConstrainedSampler, GreedySampler
from unit.engine.guidance.words import CONTROL, SIZE, TOKENS, vocabulary

CONTEXT: Any = None
OPEN = ReasoningSpan(b"<think>", b"</think>", tuple(b"\n</think>\n"), is_open=True)
SHUT = ReasoningSpan(b"<think>", b"</think>", tuple(b"\n</think>\n"), is_open=False)


def piece(token: int) -> bytes:
    return TOKENS[token]


def liking(text: bytes) -> npt.NDArray[np.float32]:
    """The logits of a model that likes the characters of a text, the first one best."""
    logits = np.zeros(SIZE, np.float32)
    for rank, byte in enumerate(reversed(text), start=1):
        logits[byte] = rank
    return logits


def said(sampler: Any, likes: list[bytes]) -> bytes:
    """What a model says that likes each of ``likes`` at its place."""
    return b"".join(piece(sampler.sample(CONTEXT, 0, liking(like))) for like in likes)


def budgeted(span: ReasoningSpan, limit: int) -> BudgetedSampler:
    return BudgetedSampler(GreedySampler(Adjustments({})), ReasoningBudget(span, limit, piece))


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_reasoning_that_the_prompt_has_opened_ends_at_its_budget(limit: int) -> None:
    assert said(budgeted(OPEN, limit), [b"x"] * 20) == (b"x" * limit + b"\n</think>\n" + b"x" * 20)[:20]


def test_reasoning_that_the_answer_opens_ends_at_its_budget() -> None:
    likes = [bytes([byte]) for byte in b" <think>"] + [b"x"] * 15
    assert said(budgeted(SHUT, 3), likes) == b" <think>xxx\n</think>\nxx"


def test_reasoning_that_ends_earlier_is_left_alone() -> None:
    likes = [bytes([byte]) for byte in b"a</think>bcdefgh"]
    assert said(budgeted(OPEN, 10), likes) == b"a</think>bcdefgh"


def test_an_answer_without_reasoning_is_left_alone() -> None:
    likes = [bytes([byte]) for byte in b"<thin air>, and more of it"]
    assert said(budgeted(SHUT, 0), likes) == b"<thin air>, and more of it"


def test_a_character_is_not_split() -> None:
    likes = [bytes([byte]) for byte in "é€x".encode()] + [b"x"] * 9
    assert said(budgeted(OPEN, 1), likes).startswith("é\n</think>\n".encode())
    assert said(budgeted(OPEN, 3), likes).startswith("é€\n</think>".encode())


def test_a_token_that_is_taken_back_does_not_count() -> None:
    sampler = budgeted(OPEN, 2)
    uncertain = np.zeros(SIZE, np.float32)
    uncertain[ord("x")] = 0.1
    for _ in range(5):
        row = uncertain.copy()
        assert not sampler.is_certain(row, sampler.sample(CONTEXT, 0, row))
    assert said(sampler, [b"x"] * 5) == b"xx\n</"


@pytest.mark.parametrize("limit", [1, 20])
def test_a_token_of_the_content_that_is_taken_back_opens_no_reasoning(limit: int) -> None:
    sampler = budgeted(OPEN, limit)
    said(sampler, [bytes([byte]) for byte in b"x\n</think>\nab"])
    uncertain = np.zeros(SIZE, np.float32)
    uncertain[ord("c")] = 0.1
    row = uncertain.copy()
    assert not sampler.is_certain(row, sampler.sample(CONTEXT, 0, row))
    assert said(sampler, [b"c"] * 30) == b"c" * 30


def test_a_token_that_a_bias_bans_is_forced_all_the_same() -> None:
    sampler = BudgetedSampler(GreedySampler(Adjustments({ord("\n"): -np.inf})), ReasoningBudget(OPEN, 0, piece))
    assert said(sampler, [b"x"] * 12) == b"\n</think>\nxx"


def test_a_forced_token_is_certain() -> None:
    sampler = budgeted(OPEN, 0)
    row = liking(b"x")
    assert sampler.is_certain(row, sampler.sample(CONTEXT, 0, row))


def test_tokens_of_an_earlier_engine_count() -> None:
    whole = said(budgeted(OPEN, 4), [b"x"] * 18)
    for cut in range(len(whole)):
        sampler = budgeted(OPEN, 4)
        for token in whole[:cut]:
            sampler.budget.accept(token)
        assert said(sampler, [b"x"] * (18 - cut)) == whole[cut:]


def test_a_grammar_behind_reasoning_holds_when_the_budget_ends_it() -> None:
    span = ReasoningSpan(b"<think>", b"<control>", (CONTROL,), is_open=True)
    grammar = f"start: T <[{CONTROL}]> /[0-9]+/\nT: /(?s:.*)/"
    constraint = Constraint(vocabulary(), Matcher(vocabulary(), grammar))
    sampler = ConstrainedSampler(budgeted(span, 3), constraint)
    assert said(sampler, [b"x7"] * 6) == b"xxx<control>77"


def test_a_token_that_the_grammar_excludes_is_not_forced() -> None:
    span = ReasoningSpan(b"<think>", b"<control>", (CONTROL,), is_open=True)
    constraint = Constraint(vocabulary(), Matcher(vocabulary(), "start: /[0-9]+/"))
    assert said(ConstrainedSampler(budgeted(span, 1), constraint), [b"x7"] * 3) == b"777"


@pytest.mark.parametrize(
    ("span", "pieces", "length"),
    [
        (OPEN, [b"a", b"b", b"</think>", b"c"], 3),
        (OPEN, [b"a", b"</th", b"ink>c", b"d"], 3),
        (OPEN, [b"a", b"b"], 2),
        (SHUT, [b"\n", b"<think>", b"a", b"</think>", b"c"], 4),
        (SHUT, [b"a", b"<think>", b"</think>"], 0),
        (SHUT, [], 0),
        (OPEN, [], 0),
    ],
)
def test_tokens_of_reasoning_are_counted_with_its_markers(
    span: ReasoningSpan, pieces: list[bytes], length: int
) -> None:
    counter = ReasoningCounter(span)
    for each in pieces:
        counter.push(each)
    assert counter.count == length

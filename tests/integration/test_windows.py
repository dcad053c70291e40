"""Layers with a sliding window lose what they no longer read: a prefix without it is not reused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import Stop
from support.engine_driver import Driven, engine


def words(seed: int, length: int) -> tuple[int, ...]:
    chance = random.Random(seed)
    return (2, *(chance.randrange(1000, 32_000) for _ in range(length - 1)))


def reused(driven: Driven, prompt: tuple[int, ...], number: int) -> int:
    """Tokens of a prompt that were not computed again."""
    driven.answer(Tokens(prompt), number=number, max_tokens=1)
    return driven.finished(number).usage.cached_tokens


@pytest.fixture
def driven(drawn_weights: dict[str, Path]) -> Iterator[Driven]:
    """An engine that computes prompts in short steps, after each of which llama.cpp looks for cells again."""
    driven = engine(drawn_weights["gemma3"], context_length=2304, batch_tokens=64)
    yield driven
    driven.stopped(Stop())


def test_a_prefix_whose_window_others_have_overwritten_is_computed_again(driven: Driven) -> None:
    for number, length in enumerate((600, 1472, 700)):
        reused(driven, words(number, length), number)
    # The third prompt took the cells of the first, and then those that windows of the second are past.
    branch = words(1, 1472)[:600] + words(3, 20)
    # All prompts have their first token in common.
    assert reused(driven, branch, 3) == 1

"""Texts of characters that a vocabulary lacks: llama.cpp takes a time that grows with the square of their number."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.engine.llama.model import MAX_UNCOMMON, Model
from modelyard.engine.llama.weights import Weights

ELSEWHERE = [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "is_elsewhere"),
    [("line\r\n" * (MAX_UNCOMMON + 1), True), ("line " * 4 * MAX_UNCOMMON, False), ("line\r\n" * 1000, False)],
)
def test_a_text_with_many_of_them_is_tokenised_in_a_process(
    weights: dict[str, Path], text: str, is_elsewhere: bool
) -> None:
    """Gemma's vocabulary has no token for a carriage return."""
    loaded = Weights([weights["gemma3"]], on_progress=lambda _: True, end_tokens=frozenset(), is_vocabulary_only=True)
    model = Model(loaded, lambda *_, **__: ELSEWHERE)
    assert (model.tokenize(text, add_special=False) == ELSEWHERE) is is_elsewhere
    loaded.free()

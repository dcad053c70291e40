"""Projectors of Pixtral's tower contain the embedding that is inserted between the rows of an image."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.converter.row_break import with_row_break


class Projector:
    """The tensor filter of a projector class of llama.cpp's converter."""

    model_arch = "mmproj"
    use_break_tok = True

    @classmethod
    def filter_tensors(cls, item: Any) -> Any:
        return None if "language_model." in item[0] else item


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("language_model.model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.language_model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("language_model.lm_head.weight", None),
        ("vision_tower.ln_pre.weight", "vision_tower.ln_pre.weight"),
    ],
)
def test_of_the_language_model_the_token_embeddings_alone_are_read(name: str, read: str | None) -> None:
    weights = object()
    assert with_row_break(Projector).filter_tensors((name, weights)) == ((read, weights) if read else None)


def test_other_projectors_are_left_alone() -> None:
    class Other(Projector):
        use_break_tok = False

    assert with_row_break(Other) is Other

"""What a model is not asked for twice."""

from __future__ import annotations

import pytest

from modelyard.hub import Kind
from modelyard.yard.kinds import refusal

ALL: dict[str, Kind | None] = {"smol": "text", "eye": "multimodal", "minilm": "embedding", "unseen": None}


@pytest.mark.parametrize(("kind", "wanted"), [("text", "text"), ("multimodal", "text"), ("embedding", "embedding")])
def test_a_model_does_what_it_can(kind: Kind, wanted: Kind) -> None:
    assert refusal("m", kind, wanted, ALL) is None


def test_a_chat_with_an_embedding_model_is_pointed_to_those_that_chat() -> None:
    refused = refusal("minilm", "embedding", "text", ALL)
    assert refused is not None
    assert (refused.code, refused.status, refused.param) == ("unsupported_operation", 400, "model")
    assert str(refused) == (
        "The model 'minilm' is an embedding model, served at /v1/embeddings: it generates no text. "
        "Models that do: smol, eye."
    )


@pytest.mark.parametrize("kind", ["text", "multimodal"])
def test_embeddings_of_another_model_are_pointed_to_embedding_models(kind: Kind) -> None:
    assert str(refusal("smol", kind, "embedding", ALL)) == (
        "The model 'smol' generates text and embeds none. Embedding models: minilm."
    )


def test_where_there_is_none_that_is_said() -> None:
    alone: dict[str, Kind | None] = {"smol": "text"}
    assert str(refusal("smol", "text", "embedding", alone)).endswith("None of the models here is an embedding model.")
    assert str(refusal("m", "embedding", "text", {"m": "embedding"})).endswith("None of the models here does.")

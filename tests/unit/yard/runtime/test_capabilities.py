"""What a model is not asked for twice."""

from __future__ import annotations

import pytest

from modelyard.hub import Kind
from modelyard.yard.runtime.capabilities import Task, refusal

ALL: dict[str, Kind | None] = {
    "smol": "text",
    "eye": "multimodal",
    "minilm": "embedding",
    "bge": "rerank",
    "unseen": None,
}


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("text", "text"), ("multimodal", "text"), ("embedding", "embedding"), ("rerank", "rerank")],
)
def test_a_model_does_what_it_can(kind: Kind, wanted: Task) -> None:
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
        "The model 'smol' generates text: it makes no embeddings. Models that do: minilm."
    )


@pytest.mark.parametrize(
    ("model", "kind", "wanted", "ending"),
    [
        ("smol", "text", "rerank", "'smol' generates text: it ranks no documents. Models that do: bge."),
        ("minilm", "embedding", "rerank", "served at /v1/embeddings: it ranks no documents. Models that do: bge."),
        ("bge", "rerank", "text", "served at /v1/rerank: it generates no text. Models that do: smol, eye."),
        ("bge", "rerank", "embedding", "served at /v1/rerank: it makes no embeddings. Models that do: minilm."),
    ],
)
def test_rankings_are_a_task_of_their_own(model: str, kind: Kind, wanted: Task, ending: str) -> None:
    assert str(refusal(model, kind, wanted, ALL)).endswith(ending)


def test_the_error_reports_that_no_model_does_the_task() -> None:
    alone: dict[str, Kind | None] = {"smol": "text"}
    assert str(refusal("smol", "text", "embedding", alone)).endswith("None of the models here does.")
    assert str(refusal("m", "embedding", "text", {"m": "embedding"})).endswith("None of the models here does.")

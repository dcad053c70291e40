"""The kind of a model, from its header, its projector and the configured kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import GgufHeader, GgufTensor
from modelyard.hub.select.kind import check_kind, kind_of

PATH = Path("m.gguf")


def header(architecture: str, pooling: int | None = None) -> GgufHeader:
    metadata = {"general.architecture": architecture}
    more = {} if pooling is None else {f"{architecture}.pooling_type": pooling}
    return GgufHeader(3, metadata | more, (), 0)


def ranker(architecture: str, scores: int, pooling: int | None = None) -> GgufHeader:
    head = GgufTensor("cls.output.weight", (32, scores), "F32", 0, 128 * scores)
    return replace(header(architecture, pooling), tensors=(head,))


LLAMA, BERT, QWEN_EMBEDDING = header("llama"), header("bert", 1), header("qwen3", 3)


@pytest.mark.parametrize(
    ("model", "wanted", "has_projector", "kind"),
    [
        (LLAMA, "auto", False, "text"),
        (LLAMA, "auto", True, "multimodal"),
        (LLAMA, "text", False, "text"),
        (LLAMA, "text", True, "text"),
        (LLAMA, "embedding", False, "embedding"),
        (LLAMA, "multimodal", True, "multimodal"),
        (BERT, "auto", False, "embedding"),
        (BERT, "embedding", False, "embedding"),
        (header("bert"), "auto", False, "embedding"),
        (header("llama", 0), "auto", False, "text"),
        (QWEN_EMBEDDING, "auto", False, "embedding"),
        (QWEN_EMBEDDING, "auto", True, "embedding"),
        (QWEN_EMBEDDING, "text", False, "text"),
        (ranker("qwen3vl", 2, pooling=4), "auto", True, "rerank"),
        (ranker("bert", 1), "auto", False, "rerank"),
        (ranker("bert", 1, pooling=1), "rerank", False, "rerank"),
        (ranker("qwen3", 2, pooling=4), "auto", False, "rerank"),
        (ranker("qwen3", 2, pooling=4), "text", False, "text"),
    ],
)
def test_a_kind_follows_from_the_files_unless_it_is_said(
    model: GgufHeader, wanted: str, has_projector: bool, kind: str
) -> None:
    assert kind_of(PATH, model, wanted, has_projector=has_projector) == kind


@pytest.mark.parametrize(
    ("model", "wanted", "has_projector", "reason"),
    [
        (BERT, "text", False, "kind = 'text', but this is an encoder (bert), which generates no text"),
        (BERT, "multimodal", True, "kind = 'multimodal', but this is an encoder (bert)"),
        (LLAMA, "embedding", True, "kind = 'embedding', but a projector comes with this model"),
        (LLAMA, "multimodal", False, "kind = 'multimodal', but no projector (mmproj) comes with this model"),
        (ranker("bert", 1), "text", False, "which generates no text. Write kind = 'rerank'"),
        (ranker("bert", 1), "embedding", False, "kind = 'embedding', but this model ranks documents"),
        (ranker("bert", 3), "auto", False, "Its head tells 3 classes apart and ranks no documents"),
        (ranker("bert", 2), "rerank", False, "Its head tells 2 classes apart"),
        (header("qwen3", 4), "auto", False, "but the head that scores them ('cls.output.weight') is not in it"),
        (BERT, "rerank", False, "kind = 'rerank', but this model (bert) has no head that scores documents"),
        (header("t5"), "embedding", False, "this architecture (t5) yields no embeddings"),
    ],
)
def test_a_kind_that_the_files_are_not_is_refused(
    model: GgufHeader, wanted: str, has_projector: bool, reason: str
) -> None:
    with pytest.raises(UnusableModel) as refused:
        kind_of(PATH, model, wanted, has_projector=has_projector)
    assert str(refused.value).startswith("m.gguf: ")
    assert reason in str(refused.value)


@pytest.mark.parametrize("kind", ["auto", "text", "embedding", "rerank", "multimodal"])
def test_these_kinds_are_served(kind: str) -> None:
    check_kind(kind)


@pytest.mark.parametrize("kind", ["diffusion", "speech"])
def test_these_kinds_are_not(kind: str) -> None:
    message = f"kind = '{kind}' is not supported. Write 'text', 'embedding', 'rerank' or 'multimodal', or 'auto'"
    with pytest.raises(UnusableModel, match=message):
        check_kind(kind)


@pytest.mark.parametrize("wanted", ["auto", "text"])
def test_a_decoder_that_needs_an_encoder_is_refused(wanted: str) -> None:
    with pytest.raises(UnusableModel, match=r"encoder and a decoder are not supported"):
        kind_of(PATH, header("t5"), wanted)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("llada", "fills in a text by diffusion"),
        ("dream", "fills in a text by diffusion"),
        ("qwen3tts", "yields sound, and no text"),
        ("wavtokenizer-dec", "yields sound, and no text"),
        ("eagle3", "guesses for another model"),
    ],
)
def test_a_model_that_continues_no_text_is_refused_by_its_kind(architecture: str, reason: str) -> None:
    with pytest.raises(UnusableModel, match=reason):
        kind_of(PATH, header(architecture), "auto")

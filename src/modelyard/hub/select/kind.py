"""Determines the kind of a model from its files: text, embedding, rerank or multimodal."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.header import RANKING_HEAD, GgufHeader

Kind = Literal["text", "embedding", "rerank", "multimodal"]

# Kinds that compute one vector or score for a whole text, and generate no text.
POOLED_KINDS: Final[frozenset[Kind]] = frozenset({"embedding", "rerank"})

_SERVED: Final = ("auto", "text", "embedding", "rerank", "multimodal")

# Decoders that read the output of an encoder, or that generate sound: llama.cpp yields no embeddings of them.
_WITHOUT_VECTORS: Final = frozenset({"t5", "wavtokenizer-dec"})

_TRANSLATES: Final = (
    "translates what an encoder has read, and does not continue a text. Models of an encoder and a decoder are not "
    "supported. Name one that only decodes."
)
_DENOISES: Final = (
    "fills in a text by diffusion, and does not continue one token by token. Such models are not supported. Name one "
    "that does."
)
_SPEAKS: Final = "yields sound, and no text. Models that speak are not supported. Name one that writes."
_DRAFTS: Final = (
    "guesses for another model, from what that has computed, and answers nothing by itself. Name the model that it "
    "belongs to."
)
# Architectures that llama.cpp loads, but that do not generate useful text by themselves, or abort the process.
# Source: llama.cpp, src/llama-arch.cpp, llm_arch_is_diffusion; src/llama-model.cpp, llama_model_has_encoder;
# src/models/qwen3tts.cpp, pockettts.cpp, wavtokenizer-dec.cpp, gemma4-assistant.cpp, eagle3.cpp, dflash.cpp.
_NO_GENERATORS: Final = {
    "t5": _TRANSLATES,
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), _DENOISES),
    **dict.fromkeys(("qwen3tts", "pockettts", "wavtokenizer-dec"), _SPEAKS),
    **dict.fromkeys(("gemma4-assistant", "eagle3", "dflash"), _DRAFTS),
}

# Rerankers with two scores, "yes" and "no", of which the first counts: architecture and number of scores.
_YES_OR_NO: Final = frozenset({("qwen3", 2), ("qwen3vl", 2)})


def check_kind(wanted: str) -> None:
    """Check the configured kind, before any file is read.

    Raises:
        UnusableModel: the kind is not supported.
    """
    if wanted not in _SERVED:
        raise UnusableModel(
            f"kind = '{wanted}' is not supported. Write 'text', 'embedding', 'rerank' or 'multimodal', or 'auto' to "
            "tell it from the files."
        )


def kind_of(path: Path, header: GgufHeader, wanted: str, *, has_projector: bool = False) -> Kind:
    """Return the kind that the model of ``header`` is served as.

    Args:
        path: path of the first file, for messages.
        header: header of the first file.
        wanted: the configured kind; "auto" determines it from the files.
        has_projector: whether the model has a projector, which turns images or sound into embeddings.

    Raises:
        UnusableModel: the files are not of the configured kind.
    """
    if wanted == "auto":
        return _kind_from_header(path, header, has_projector=has_projector)
    if wanted == "rerank":
        if not header.is_ranker:
            raise UnusableModel(
                f"{path}: kind = 'rerank', but this model ({header.architecture}) has no head that scores documents. "
                "Name a reranker, or remove kind."
            )
        _check_ranks(path, header)
        return "rerank"
    if wanted == "embedding":
        _check_embeds(path, header, has_projector=has_projector)
        return "embedding"
    if header.is_encoder:
        raise UnusableModel(
            f"{path}: kind = '{wanted}', but this is an encoder ({header.architecture}), which generates no text. "
            f"Write kind = '{'rerank' if header.is_ranker else 'embedding'}', or remove it."
        )
    _check_generates_alone(path, header)
    if wanted != "multimodal":
        return "text"
    if not has_projector:
        raise UnusableModel(
            f"{path}: kind = 'multimodal', but no projector (mmproj) comes with this model. Put its file beside "
            "the model's, or remove kind."
        )
    return "multimodal"


def _kind_from_header(path: Path, header: GgufHeader, *, has_projector: bool) -> Kind:
    if header.is_ranker:
        _check_ranks(path, header)
        return "rerank"
    if header.is_embedding_model:
        return "embedding"
    _check_generates_alone(path, header)
    return "multimodal" if has_projector else "text"


def _check_embeds(path: Path, header: GgufHeader, *, has_projector: bool) -> None:
    """Raise UnusableModel for models that yield no embeddings of texts."""
    if header.is_ranker:
        raise UnusableModel(
            f"{path}: kind = 'embedding', but this model ranks documents and yields no embeddings. Write kind = "
            "'rerank', or remove it."
        )
    if has_projector:
        raise UnusableModel(
            f"{path}: kind = 'embedding', but a projector comes with this model, which is for conversations with "
            "pictures or sound. Remove kind, or name the model's GGUF file alone."
        )
    if header.architecture in _WITHOUT_VECTORS:
        raise UnusableModel(
            f"{path}: kind = 'embedding', but this architecture ({header.architecture}) yields no embeddings. Name an "
            "embedding model."
        )


def _check_generates_alone(path: Path, header: GgufHeader) -> None:
    """Raise UnusableModel for models that do not continue a text by themselves."""
    if (reason := _NO_GENERATORS.get(header.architecture)) is not None:
        raise UnusableModel(f"{path}: This model ({header.architecture}) {reason}")


def _check_ranks(path: Path, header: GgufHeader) -> None:
    """Raise UnusableModel for models that declare that they rank, but lack a usable ranking head.

    Without a head llama.cpp yields a part of a vector; for Qwen3, whose two scores are "yes" and "no", it computes
    probabilities. Source: llama.cpp, src/llama-graph.cpp, build_pooling.
    """
    if header.scores == 0:
        raise UnusableModel(
            f"{path}: It declares that it ranks documents, but the head that scores them ('{RANKING_HEAD}') is not in "
            "it. Get a file that was converted as a reranker."
        )
    if header.scores > 1 and (header.architecture, header.scores) not in _YES_OR_NO:
        raise UnusableModel(
            f"{path}: Its head tells {header.scores} classes apart and ranks no documents. Classifiers are not "
            "supported. Name a reranker, whose head has one score."
        )

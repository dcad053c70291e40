"""What a model does, told from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.header import RANKING_HEAD, GgufHeader

Kind = Literal["text", "embedding", "rerank", "multimodal"]

# What computes one thing of a whole text, and generates none.
POOLED_KINDS: Final[frozenset[Kind]] = frozenset({"embedding", "rerank"})

_SERVED: Final = ("auto", "text", "embedding", "rerank", "multimodal")

# Decoders that are fed by an encoder, or that yield sound: a vector cannot be had of them.
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
# What llama.cpp loads, and what computes no text that is worth reading, or ends the process.
# Source: llama.cpp, src/llama-arch.cpp, llm_arch_is_diffusion; src/llama-model.cpp, llama_model_has_encoder;
# src/models/qwen3tts.cpp, pockettts.cpp, wavtokenizer-dec.cpp, gemma4-assistant.cpp, eagle3.cpp, dflash.cpp.
_NO_GENERATORS: Final = {
    "t5": _TRANSLATES,
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), _DENOISES),
    **dict.fromkeys(("qwen3tts", "pockettts", "wavtokenizer-dec"), _SPEAKS),
    **dict.fromkeys(("gemma4-assistant", "eagle3", "dflash"), _DRAFTS),
}

# Rankers with two scores, of which the first is what counts.
_YES_OR_NO: Final = frozenset({("qwen3", 2), ("qwen3vl", 2)})


def check_kind(wanted: str) -> None:
    """Refuse what cannot be served whatever its files are.

    Raises:
        UnusableModel: it says so.
    """
    if wanted not in _SERVED:
        raise UnusableModel(
            f"kind = '{wanted}' is not supported. Write 'text', 'embedding', 'rerank' or 'multimodal', or 'auto' to "
            "tell it from the files."
        )


def kind_of(path: Path, header: GgufHeader, wanted: str, *, has_projector: bool = False) -> Kind:
    """What the model of ``header`` is served as.

    Args:
        path: of its first file, for messages.
        header: of its first file.
        wanted: the configured kind; "auto" leaves it to the files.
        has_projector: whether a projector, which turns pictures or sound into embeddings, comes with it.

    Raises:
        UnusableModel: the wanted kind is not what the files are.
    """
    architecture = header.architecture
    if wanted == "auto":
        if header.is_ranker:
            _check_ranks(path, header)
            return "rerank"
        if header.is_embedding_model:
            return "embedding"
        _check_generates_alone(path, header)
        return "multimodal" if has_projector else "text"
    if wanted == "rerank":
        if not header.is_ranker:
            raise UnusableModel(
                f"{path}: kind = 'rerank', but this model ({architecture}) has no head that scores documents. Name a "
                "reranker, or remove kind."
            )
        _check_ranks(path, header)
        return "rerank"
    if wanted == "embedding":
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
        if architecture in _WITHOUT_VECTORS:
            raise UnusableModel(
                f"{path}: kind = 'embedding', but of this architecture ({architecture}) no embeddings can be had. "
                "Name an embedding model."
            )
        return "embedding"
    if header.is_encoder:
        raise UnusableModel(
            f"{path}: kind = '{wanted}', but this is an encoder ({architecture}), which generates no text. "
            f"Write kind = '{'rerank' if header.is_ranker else 'embedding'}', or remove it."
        )
    _check_generates_alone(path, header)
    if wanted == "multimodal":
        if not has_projector:
            raise UnusableModel(
                f"{path}: kind = 'multimodal', but no projector (mmproj) comes with this model. Put its file beside "
                "the model's, or remove kind."
            )
        return "multimodal"
    return "text"


def _check_generates_alone(path: Path, header: GgufHeader) -> None:
    """Refuse models that do not continue a text by themselves."""
    if (reason := _NO_GENERATORS.get(header.architecture)) is not None:
        raise UnusableModel(f"{path}: This model ({header.architecture}) {reason}")


def _check_ranks(path: Path, header: GgufHeader) -> None:
    """Refuse what declares that it ranks, and does not.

    Source: llama.cpp, src/llama-graph.cpp, build_pooling: without a head it yields a part of a vector. Of Qwen3, whose
    two scores are "yes" and "no", it makes probabilities.
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

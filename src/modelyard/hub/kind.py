"""What a model does, told from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from modelyard.errors import UnusableModel
from modelyard.hub.gguf_header import GgufHeader

Kind = Literal["text", "embedding", "multimodal"]

_SERVED: Final = ("auto", "text", "embedding", "multimodal")

# Decoders that are fed by an encoder, or that yield sound: a vector cannot be had of them.
_WITHOUT_VECTORS: Final = frozenset({"t5", "wavtokenizer-dec"})


def check_kind(wanted: str) -> None:
    """Refuse what cannot be served whatever its files are.

    Raises:
        UnusableModel: it says so.
    """
    if wanted not in _SERVED:
        raise UnusableModel(
            f"kind = '{wanted}' is not supported. Write 'text', 'embedding' or 'multimodal', or 'auto' to tell it from "
            "the files."
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
        if has_projector:
            return "multimodal"
        return "embedding" if header.is_embedding_model else "text"
    if wanted == "embedding":
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
            "Write kind = 'embedding', or remove it."
        )
    if wanted == "multimodal":
        if not has_projector:
            raise UnusableModel(
                f"{path}: kind = 'multimodal', but no projector (mmproj) comes with this model. Put its file beside "
                "the model's, or remove kind."
            )
        return "multimodal"
    return "text"

"""What the header of a model's file tells of it before the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.config import Model
from modelyard.hub import POOLED_KINDS, ModelFiles
from modelyard.yard.memory.cache_bytes import context_cells


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """Properties of a model, as its header has them.

    Attributes:
        architecture: as in the header, such as "llama".
        context_length: tokens of the context that an engine of it is given.
        quantization: type of its weights.
        size_bytes: size of its files, without a projector.
        can_chat: whether it has a chat template.
    """

    architecture: str
    context_length: int
    quantization: str
    size_bytes: int
    can_chat: bool


def header_facts(files: ModelFiles, model: Model) -> HeaderFacts:
    """Return what is known of ``model`` from its ``files``."""
    header = files.header
    has_template = model.chat_template is not None or bool(header.metadata.get("tokenizer.chat_template"))
    return HeaderFacts(
        architecture=header.architecture,
        context_length=context_cells(header, model.device.max_seq_len),
        quantization=files.quantization,
        size_bytes=files.size_bytes,
        can_chat=files.kind not in POOLED_KINDS and has_template,
    )

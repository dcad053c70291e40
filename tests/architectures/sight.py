"""What a row of the table of architectures that see says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from architectures.shapes import base

EDGE: Final = 112

# Stand for token ids behind the vocabulary, which only pictures have.
PICTURE: Final = "PICTURE"
VIDEO: Final = "VIDEO"
BEGIN: Final = "BEGIN"
END: Final = "END"

CLIP_MEAN: Final = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD: Final = [0.26862954, 0.26130258, 0.27577711]
QWEN_PROCESSOR: Final[Mapping[str, Any]] = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
QWEN_TOWER: Final[Mapping[str, Any]] = {
    "num_heads": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
QWEN_TOKENS: Final[Mapping[str, Any]] = {
    "image_token_id": PICTURE,
    "video_token_id": VIDEO,
    "vision_start_token_id": BEGIN,
    "vision_end_token_id": END,
}


@dataclass(frozen=True, slots=True)
class Seeing:
    """One architecture that sees.

    Attributes:
        name: by which it is asked for.
        model: class of transformers.
        settings: of the class's configuration.
        tokens: embeddings that the picture becomes, with ``edge`` pixels a side.
        around: texts that libmtmd puts before and behind the picture.
        tokenizer: a name of ``tokenizers.MAKERS``.
        processor: keys of preprocessor_config.json.
        tower: prefix of the tower's tensors as published, where transformers writes another: (written, published).
        given: how transformers is given the picture: a name of ``pictures.GIVEN``.
        edge: pixels a side of the picture.
        published: tables of config.json as the published checkpoints have them, where transformers writes others.
        layout: a name of ``layouts.LAYOUTS``, of checkpoints that transformers does not write as they are published.
        row_break: a token between the rows of the picture's embeddings, which are as many as its columns.
    """

    name: str
    model: str
    settings: Mapping[str, Any]
    tokens: int
    around: tuple[str, str] = ("", "")
    tokenizer: str = "pictured"
    processor: Mapping[str, Any] = field(default_factory=dict)
    tower: tuple[str, str] | None = None
    row_break: str = ""
    given: str = "pixels"
    edge: int = EDGE
    published: Mapping[str, Any] = field(default_factory=dict)
    layout: str = ""


def text(*more: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """The settings of a language model beside a tower."""
    return base(*more, pad_token_id=0, **settings)

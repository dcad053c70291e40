"""Architectures that see: their towers in the small, and how transformers is shown a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from architectures.shapes import base, layer_types, rope

EDGE: Final = 112

# Stand for token ids behind the vocabulary, which only pictures have.
PICTURE: Final = "PICTURE"
VIDEO: Final = "VIDEO"
BEGIN: Final = "BEGIN"
END: Final = "END"

_TOWER: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": EDGE,
    "patch_size": 14,
}
_CLIP_MEAN: Final = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD: Final = [0.26862954, 0.26130258, 0.27577711]
_PIXTRAL_TOWER: Final = {
    "model_type": "pixtral",
    "hidden_size": 64,
    "head_dim": 16,
    "intermediate_size": 128,
    # The converter knows as many projector matrices as the tower has layers, counted from 0: the second is number 2.
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": EDGE * 2,
    "patch_size": 14,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
}
_PIXTRAL_PROCESSOR: Final = {
    "image_processor_type": "PixtralImageProcessor",
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
    "size": {"longest_edge": EDGE * 2},
}
_QWEN_PROCESSOR: Final = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
_QWEN_TOWER: Final = {
    "num_heads": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_QWEN_TOKENS: Final = {
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
        tokens: embeddings that the picture becomes, with EDGE pixels a side.
        around: texts that libmtmd puts before and behind the picture.
        tokenizer: a name of ``tokenizers.MAKERS``.
        processor: keys of preprocessor_config.json.
        tower: prefix of the tower's tensors as published, where transformers writes another: (written, published).
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

    @property
    def has_sections(self) -> bool:
        """Whether positions have sections, and pictures are cut into patches before they are given to the model."""
        return self.name.startswith("qwen")


def _text(**settings: Any) -> dict[str, Any]:
    return base(pad_token_id=0, **settings)


SEEING: Final[dict[str, Seeing]] = {
    one.name: one
    for one in (
        Seeing(
            "gemma3-vision",
            "Gemma3ForConditionalGeneration",
            {
                "text_config": _text(
                    head_dim=32,
                    sliding_window=64,
                    query_pre_attn_scalar=32,
                    tie_word_embeddings=True,
                    num_hidden_layers=7,
                    layer_types=layer_types(7, 6),
                    rope_parameters={
                        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    },
                ),
                "vision_config": {"model_type": "siglip_vision_model", **_TOWER},
                "mm_tokens_per_image": 4,
                "image_token_id": PICTURE,
                "image_token_index": PICTURE,
                "boi_token_index": BEGIN,
                "eoi_token_index": END,
                "tie_word_embeddings": True,
            },
            4,
            ("<start_of_image>", "<end_of_image>"),
            "sentencepiece-plain",
            tower=("vision_tower.", "vision_tower.vision_model."),
        ),
        Seeing(
            "qwen2-vl",
            "Qwen2VLForConditionalGeneration",
            {
                "text_config": _text(**rope(1e6, mrope_section=[4, 6, 6])),
                "vision_config": {"depth": 4, "embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2, **_QWEN_TOWER},
                **_QWEN_TOKENS,
            },
            16,
            ("<|vision_start|>", "<|vision_end|>"),
            processor={"image_mean": _CLIP_MEAN, "image_std": _CLIP_STD, **_QWEN_PROCESSOR},
        ),
        Seeing(
            "qwen2.5-vl",
            "Qwen2_5_VLForConditionalGeneration",
            {
                "text_config": _text(**rope(1e6, mrope_section=[4, 6, 6])),
                "vision_config": {
                    "depth": 4,
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "out_hidden_size": 128,
                    "window_size": 112,
                    "fullatt_block_indexes": [1, 3],
                    **_QWEN_TOWER,
                },
                **_QWEN_TOKENS,
            },
            16,
            ("<|vision_start|>", "<|vision_end|>"),
            processor={"image_mean": _CLIP_MEAN, "image_std": _CLIP_STD, **_QWEN_PROCESSOR},
        ),
        Seeing(
            "qwen3-vl",
            "Qwen3VLForConditionalGeneration",
            {
                "text_config": _text(head_dim=32, **rope(1e6, mrope_section=[8, 4, 4], mrope_interleaved=True)),
                "vision_config": {
                    "depth": 3,
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "out_hidden_size": 128,
                    "deepstack_visual_indexes": [0, 1],
                    "num_position_embeddings": 256,
                    **_QWEN_TOWER,
                },
                **_QWEN_TOKENS,
                "tie_word_embeddings": False,
            },
            16,
            ("<|vision_start|>", "<|vision_end|>"),
            processor={**_QWEN_PROCESSOR, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
        ),
        Seeing(
            "llava",
            "LlavaForConditionalGeneration",
            {
                "text_config": {"model_type": "llama", **_text()},
                "vision_config": {
                    "model_type": "clip_vision_model",
                    "projection_dim": 64,
                    **_TOWER,
                    "num_hidden_layers": 3,
                },
                "image_token_id": PICTURE,
                "image_token_index": PICTURE,
                "vision_feature_layer": -2,
                "vision_feature_select_strategy": "default",
            },
            64,
            processor={
                "crop_size": {"height": EDGE, "width": EDGE},
                "do_center_crop": True,
                "size": {"shortest_edge": EDGE},
                "image_mean": _CLIP_MEAN,
                "image_std": _CLIP_STD,
            },
            tower=("vision_tower.", "vision_tower.vision_model."),
        ),
        Seeing(
            "pixtral",
            "LlavaForConditionalGeneration",
            {
                "text_config": {"model_type": "mistral", **_text(head_dim=32, sliding_window=None, **rope(1e6))},
                "vision_config": _PIXTRAL_TOWER,
                "image_token_id": PICTURE,
                "image_token_index": PICTURE,
                "vision_feature_layer": -1,
                "vision_feature_select_strategy": "full",
                "tie_word_embeddings": False,
            },
            64,
            ("", "[IMG_END]"),
            processor={**_PIXTRAL_PROCESSOR, "patch_size": {"height": 14, "width": 14}},
            row_break="[IMG_BREAK]",
        ),
        Seeing(
            "mistral-small-3",
            "Mistral3ForConditionalGeneration",
            {
                "text_config": {"model_type": "mistral", **_text(head_dim=32, sliding_window=None, **rope(1e6))},
                "vision_config": _PIXTRAL_TOWER,
                "image_token_id": PICTURE,
                "image_token_index": PICTURE,
                "vision_feature_layer": -1,
                "spatial_merge_size": 2,
                "tie_word_embeddings": False,
            },
            16,
            ("", "[IMG_END]"),
            processor={**_PIXTRAL_PROCESSOR, "patch_size": 14},
            row_break="[IMG_BREAK]",
        ),
        Seeing(
            "smolvlm",
            "SmolVLMForConditionalGeneration",
            {
                "text_config": {"model_type": "llama", "architectures": ["VLlama3ForCausalLM"], **_text()},
                "vision_config": {"model_type": "smolvlm_vision", **_TOWER},
                "scale_factor": 2,
                "image_token_id": PICTURE,
                "tie_word_embeddings": False,
            },
            16,
            ("<fake_token_around_image><global-img>", "<fake_token_around_image>"),
            processor={
                "size": {"longest_edge": EDGE},
                "max_image_size": {"longest_edge": EDGE},
                "do_image_splitting": False,
            },
        ),
    )
}

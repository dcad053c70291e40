"""Architectures that see: their towers in the small, and how transformers is shown a picture."""

from __future__ import annotations

from typing import Final

from architectures.seeing_too import SEEING_TOO
from architectures.shapes import layer_types, rope
from architectures.sight import (
    BEGIN,
    CLIP_MEAN,
    CLIP_STD,
    EDGE,
    END,
    PICTURE,
    QWEN_PROCESSOR,
    QWEN_TOKENS,
    QWEN_TOWER,
    Seeing,
    text,
)

_TOWER: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": EDGE,
    "patch_size": 14,
}
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
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "size": {"longest_edge": EDGE * 2},
}

SEEING: Final[dict[str, Seeing]] = {
    one.name: one
    for one in (
        Seeing(
            "gemma3-vision",
            "Gemma3ForConditionalGeneration",
            {
                "text_config": text(
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
            given="typed",
        ),
        Seeing(
            "qwen2-vl",
            "Qwen2VLForConditionalGeneration",
            {
                "text_config": text(**rope(1e6, mrope_section=[4, 6, 6])),
                "vision_config": {"depth": 4, "embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2, **QWEN_TOWER},
                **QWEN_TOKENS,
            },
            16,
            ("<|vision_start|>", "<|vision_end|>"),
            processor={"image_mean": CLIP_MEAN, "image_std": CLIP_STD, **QWEN_PROCESSOR},
            given="sections",
        ),
        Seeing(
            "qwen2.5-vl",
            "Qwen2_5_VLForConditionalGeneration",
            {
                "text_config": text(**rope(1e6, mrope_section=[4, 6, 6])),
                "vision_config": {
                    "depth": 4,
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "out_hidden_size": 128,
                    "window_size": 112,
                    "fullatt_block_indexes": [1, 3],
                    **QWEN_TOWER,
                },
                **QWEN_TOKENS,
            },
            16,
            ("<|vision_start|>", "<|vision_end|>"),
            processor={"image_mean": CLIP_MEAN, "image_std": CLIP_STD, **QWEN_PROCESSOR},
            given="sections",
        ),
        Seeing(
            "qwen3-vl",
            "Qwen3VLForConditionalGeneration",
            {
                "text_config": text(head_dim=32, **rope(1e6, mrope_section=[8, 4, 4], mrope_interleaved=True)),
                "vision_config": {
                    "depth": 3,
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "out_hidden_size": 128,
                    "deepstack_visual_indexes": [0, 1],
                    "num_position_embeddings": 256,
                    **QWEN_TOWER,
                },
                **QWEN_TOKENS,
                "tie_word_embeddings": False,
            },
            16,
            ("<|vision_start|>", "<|vision_end|>"),
            processor={**QWEN_PROCESSOR, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
            given="sections",
        ),
        Seeing(
            "llava",
            "LlavaForConditionalGeneration",
            {
                "text_config": {"model_type": "llama", **text()},
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
                "image_mean": CLIP_MEAN,
                "image_std": CLIP_STD,
            },
            tower=("vision_tower.", "vision_tower.vision_model."),
        ),
        Seeing(
            "pixtral",
            "LlavaForConditionalGeneration",
            {
                "text_config": {"model_type": "mistral", **text(head_dim=32, sliding_window=None, **rope(1e6))},
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
            given="sized",
        ),
        Seeing(
            "mistral-small-3",
            "Mistral3ForConditionalGeneration",
            {
                "text_config": {"model_type": "mistral", **text(head_dim=32, sliding_window=None, **rope(1e6))},
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
            given="sized",
        ),
        Seeing(
            "smolvlm",
            "SmolVLMForConditionalGeneration",
            {
                "text_config": {"model_type": "llama", "architectures": ["VLlama3ForCausalLM"], **text()},
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
            given="tiles",
        ),
        *SEEING_TOO,
    )
}

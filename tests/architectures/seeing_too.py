"""More architectures that see, of which most have language models with a state or with experts."""

from __future__ import annotations

from typing import Final

from architectures.recurrent import LINEAR, SECTIONED
from architectures.shapes import rope
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
    VIDEO,
    Seeing,
    text,
)

_SMALL: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    # The converter knows as many projector matrices as the tower has layers, counted from 0: InternVL has a number 3.
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
_INTERNVL: Final = {
    "text_config": {"model_type": "qwen2", **text(**rope(1e6))},
    "vision_config": {
        **_SMALL,
        "attention_bias": True,
        "image_size": [EDGE, EDGE],
        "patch_size": [14, 14],
    },
    "image_token_id": PICTURE,
    "downsample_ratio": 0.5,
    "tie_word_embeddings": False,
}
_IMAGENET: Final = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

SEEING_TOO: Final = (
    Seeing(
        "qwen3.5-vision",
        "Qwen3_5ForConditionalGeneration",
        {
            "text_config": text(LINEAR, SECTIONED, head_dim=64),
            "vision_config": {
                "depth": 3,
                "hidden_size": 64,
                "intermediate_size": 128,
                "out_hidden_size": 128,
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
        # transformers gives a model_type that it knows the makers' own tokenizer, which this small one is not.
        published={"model_type": "qwen3_5_small"},
    ),
    Seeing(
        "internvl",
        "InternVLForConditionalGeneration",
        _INTERNVL,
        16,
        ("<img>", "</img>"),
        processor={**_IMAGENET, "crop_size": EDGE, "size": EDGE, "image_processor_type": "CLIPFeatureExtractor"},
        layout="internvl-chat",
    ),
    Seeing(
        "internvl-hf",
        "InternVLForConditionalGeneration",
        _INTERNVL,
        16,
        ("<img>", "</img>"),
        processor={
            **_IMAGENET,
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "min_patches": 1,
            "max_patches": 12,
        },
    ),
    Seeing(
        "llama4-vision",
        "Llama4ForConditionalGeneration",
        {
            "text_config": text(
                rope(5e5),
                head_dim=32,
                intermediate_size_mlp=256,
                num_local_experts=4,
                num_experts_per_tok=1,
                interleave_moe_layer_step=2,
                attention_chunk_size=8192,
                no_rope_layers=[1, 1, 1, 0],
            ),
            "vision_config": {
                **_SMALL,
                "intermediate_size": 256,
                "projector_input_dim": 128,
                "projector_output_dim": 128,
                "vision_output_dim": 128,
                "image_size": EDGE,
                "patch_size": 14,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "image_token_index": PICTURE,
            "boi_token_index": BEGIN,
            "eoi_token_index": END,
        },
        16,
        ("<|image_start|>", "<|image_end|>"),
        processor={"image_processor_type": "Llama4ImageProcessorFast", "max_patches": 16},
        given="merged",
    ),
    Seeing(
        "glm4v",
        "Glm4vForConditionalGeneration",
        {
            "text_config": text(
                head_dim=32,
                **rope(1e4, partial_rotary_factor=0.5, mrope_section=[2, 3, 3]),
            ),
            "vision_config": {
                "depth": 3,
                "hidden_size": 64,
                "intermediate_size": 128,
                "out_hidden_size": 128,
                "image_size": EDGE,
                **QWEN_TOWER,
            },
            "image_token_id": PICTURE,
            "video_token_id": VIDEO,
            "image_start_token_id": BEGIN,
            "image_end_token_id": END,
            "video_start_token_id": BEGIN,
            "video_end_token_id": END,
        },
        16,
        ("<|begin_of_image|>", "<|end_of_image|>"),
        "glm-pictured",
        processor={
            **QWEN_PROCESSOR,
            "image_processor_type": "Glm4vImageProcessor",
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
            "size": {"shortest_edge": 12544, "longest_edge": 9633792},
        },
        given="sections",
    ),
    Seeing(
        "lfm2-vl",
        "Lfm2VlForConditionalGeneration",
        {
            "text_config": {
                "model_type": "lfm2",
                "architectures": ["Lfm2ForCausalLM"],
                **text(
                    tie_word_embeddings=True,
                    layer_types=["conv", "full_attention", "full_attention", "full_attention"],
                    conv_L_cache=3,
                    block_auto_adjust_ff_dim=False,
                    block_multiple_of=64,
                    block_ff_dim=256,
                ),
            },
            "vision_config": {
                "model_type": "siglip2_vision_model",
                **_SMALL,
                "num_patches": 256,
                "patch_size": 16,
                "vision_use_head": False,
            },
            "image_token_id": PICTURE,
            "projector_hidden_size": 128,
            "downsample_factor": 2,
            "tie_word_embeddings": True,
        },
        64,
        ("<|image_start|>", "<|image_end|>"),
        processor={"image_processor_type": "Lfm2VlImageProcessorFast", "downsample_factor": 2, "tile_size": 512},
        given="shaped",
        tower=("vision_tower.", "vision_tower.vision_model."),
        edge=256,
    ),
)

"""Checkpoints as their makers publish them, where transformers has a class of its own with other names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

_INTERNVL_NAMES: Final = (
    (r"^(model\.)?vision_tower\.encoder\.layer\.", "vision_model.encoder.layers."),
    (r"^(model\.)?vision_tower\.embeddings\.", "vision_model.embeddings."),
    (r"embeddings\.cls_token$", "embeddings.class_embedding"),
    (r"embeddings\.position_embeddings$", "embeddings.position_embedding"),
    (r"embeddings\.patch_embeddings\.projection", "embeddings.patch_embedding"),
    (r"\.attention\.projection_layer\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.lambda_([12])$", r".ls\1"),
    (r"^(model\.)?multi_modal_projector\.layer_norm\.", "mlp1.0."),
    (r"^(model\.)?multi_modal_projector\.linear_1\.", "mlp1.1."),
    (r"^(model\.)?multi_modal_projector\.linear_2\.", "mlp1.3."),
)


def _internvl_chat(folder: Path) -> None:
    """OpenGVLab's own layout, which has a program of theirs beside it."""
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    renamed = {_renamed(name, _INTERNVL_NAMES): weight for name, weight in load_file(path).items()}
    for query in [name for name in renamed if ".attention.q_proj." in name]:
        parts = [renamed.pop(query.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        renamed[query.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    save_file(renamed, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    text, vision = config["text_config"], config["vision_config"]
    published_config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "downsample_ratio": config["downsample_ratio"],
        "dynamic_image_size": True,
        "force_image_size": vision["image_size"][0],
        "llm_config": {**text, "architectures": ["Qwen2ForCausalLM"]},
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "use_thumbnail": True,
        "vision_config": {
            **vision,
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "image_size": vision["image_size"][0],
            "patch_size": vision["patch_size"][0],
            "qkv_bias": True,
        },
    }
    (folder / "config.json").write_text(json.dumps(published_config, indent=1), "utf-8")


def _renamed(name: str, names: Iterable[tuple[str, str]]) -> str:
    for pattern, published in names:
        name = re.sub(pattern, published, name)
    return name


LAYOUTS: Final[Mapping[str, Callable[[Path], Any]]] = {"internvl-chat": _internvl_chat}

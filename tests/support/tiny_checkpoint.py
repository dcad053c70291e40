"""A checkpoint of a few random weights, in the layout of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HIDDEN, OUTER, VOCABULARY = 256, 320, 64

SHAPES = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
    "model.layers.0.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.0.self_attn.q_proj.bias": (HIDDEN,),
    "model.layers.0.mlp.up_proj.weight": (OUTER, HIDDEN),
    "model.layers.0.mlp.down_proj.weight": (HIDDEN, OUTER),
    "model.layers.0.input_layernorm.weight": (HIDDEN,),
    "lm_head.weight": (VOCABULARY, HIDDEN),
}


def make_tiny_checkpoint(folder: Path, shapes: dict[str, tuple[int, ...]] | None = None) -> dict[str, np.ndarray]:
    """Write the checkpoint; its weights, which are of half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, 0.1, shape).astype(np.float16) for name, shape in (shapes or SHAPES).items()}
    save_file(weights, folder / "model.safetensors")
    config = {"model_type": "llama", "text_config": {"quantization_config": {"bits": 4}}, "quantization_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return weights

"""Checkpoints of random weights, as large as a test needs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np


def random_checkpoint(folder: Path, like: Path, *, vocabulary: int, width: int, layers: int = 1) -> Path:
    """Write a small Llama in bfloat16 into ``folder``, with the tokenizer of the checkpoint ``like``.

    Its largest tensor are the embeddings, of ``vocabulary`` times ``width`` weights.
    """
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(like / name, folder / name)
    hidden = 2 * width
    config = json.loads((like / "config.json").read_text("utf-8")) | {
        "dtype": "bfloat16",
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "vocab_size": vocabulary,
    }
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{name}.mlp.{part}_proj.weight": (hidden, width) for part in ("gate", "up")}
        shapes |= {f"{name}.mlp.down_proj.weight": (width, hidden)}
        shapes |= {f"{name}.{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
    _write(folder / "model.safetensors", shapes)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def _write(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Source of the layout: https://github.com/huggingface/safetensors, Format."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    row = (random.standard_normal(2**20).astype(np.float32) * 0.02).view(np.uint32) >> 16
    block = row.astype("<u2").tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        while at > 0:
            at -= file.write(block[:at])

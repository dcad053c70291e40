"""Checkpoints of random weights, as large as a test needs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np


def random_checkpoint(
    folder: Path, like: Path, *, vocabulary: int, width: int, layers: int = 1, experts: int = 0
) -> Path:
    """Write a small Llama in bfloat16 into ``folder``, with the tokenizer of the checkpoint ``like``.

    Its largest tensor are the embeddings, of ``vocabulary`` times ``width`` weights. With experts it is a Mixtral.
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
    if experts:
        config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
        config |= {"num_local_experts": experts, "num_experts_per_tok": 2}
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        if experts:
            shapes |= {f"{name}.block_sparse_moe.gate.weight": (experts, width)}
        feed_forwards = [f"{name}.block_sparse_moe.experts.{expert}" for expert in range(experts)] or [f"{name}.mlp"]
        gate, down, up = ("w1", "w2", "w3") if experts else ("gate_proj", "down_proj", "up_proj")
        for part in feed_forwards:
            shapes |= {f"{part}.{gate}.weight": (hidden, width), f"{part}.{up}.weight": (hidden, width)}
            shapes |= {f"{part}.{down}.weight": (width, hidden)}
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
    # An odd number of weights, so that equal shapes hold different ones.
    values = (random.standard_normal(2**20 + 1) * 0.02).astype(np.float32)
    block = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        while at > 0:
            at -= file.write(block[:at])

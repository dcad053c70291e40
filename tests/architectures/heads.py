"""Prediction heads (MTP) of published checkpoints, which transformers neither computes nor writes.

Source of the names: the index files of zai-org/GLM-4.5-Air, deepseek-ai/DeepSeek-V3 and Qwen/Qwen3-Next-80B-A3B.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

_LAYER: Final = re.compile(r"(.*?)layers\.(\d+)\.(.*)")

# Where a head lies: behind the last layer, as DeepSeek and GLM have it, or by itself, as Qwen has it.
APPENDED: Final = "appended"
APART: Final = "apart"
# Qwen3.5's configuration counts its heads, which Qwen3-Next's does not.
APART_AND_COUNTED: Final = "apart and counted"


def add_heads(folder: Path, kind: str) -> None:
    """Write one head of that kind into the checkpoint in ``folder``: a copy of its last layer, and what joins it."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    named = {name: found for name in weights if (found := _LAYER.fullmatch(name)) is not None}
    last = max(int(found[2]) for found in named.values())
    prefix = next(found[1] for found in named.values())
    place = f"{prefix}layers.{last + 1}." if kind == APPENDED else "mtp.layers.0."
    head = {place + found[3]: weights[name].clone() for name, found in named.items() if int(found[2]) == last}
    weights |= head | _joints(weights, prefix, place, kind)
    save_file(weights, path, metadata={"format": "pt"})
    declared = {APPENDED: "num_nextn_predict_layers", APART_AND_COUNTED: "mtp_num_hidden_layers"}.get(kind)
    if declared:
        config_path = folder / "config.json"
        config = json.loads(config_path.read_text("utf-8")) | {declared: 1}
        config_path.write_text(json.dumps(config, indent=1), "utf-8")


def _joints(weights: dict[str, Any], prefix: str, place: str, kind: str) -> dict[str, Any]:
    """The tensors that join a head to the model."""
    import torch

    embeddings, norm = weights[f"{prefix}embed_tokens.weight"], weights[f"{prefix}norm.weight"]
    hidden = norm.shape[0]
    joining = torch.randn(hidden, 2 * hidden, generator=torch.Generator().manual_seed(2)) / hidden
    if kind == APPENDED:
        return {
            f"{place}embed_tokens.weight": embeddings.clone(),
            f"{place}enorm.weight": norm.clone(),
            f"{place}hnorm.weight": norm.clone(),
            f"{place}eh_proj.weight": joining,
            f"{place}shared_head.norm.weight": norm.clone(),
            f"{place}shared_head.head.weight": embeddings.clone(),
        }
    return {
        "mtp.fc.weight": joining,
        "mtp.norm.weight": norm.clone(),
        "mtp.pre_fc_norm_embedding.weight": norm.clone(),
        "mtp.pre_fc_norm_hidden.weight": norm.clone(),
    }

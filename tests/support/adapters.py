"""Writes LoRA adapters with drawn weights, as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelyard.formats.gguf.read import read_header
from support.gguf_writer import F32, STR, Pairs, Tensor, gguf

TARGETS = ("attn_q", "attn_v", "ffn_down")


def adapter_pairs(architecture: str = "llama", alpha: float = 16.0) -> Pairs:
    return {
        "general.architecture": (STR, architecture),
        "general.type": (STR, "adapter"),
        "adapter.type": (STR, "lora"),
        "adapter.lora.alpha": (F32, alpha),
    }


def matrices(name: str, shape: Sequence[int], rank: int) -> list[Tensor]:
    """A and B of a tensor with ``shape``, in ggml's order."""
    return [Tensor(f"{name}.lora_a", (shape[0], rank)), Tensor(f"{name}.lora_b", (rank, shape[1]))]


def write_adapter(
    path: Path, base: Path, *, seed: int = 0, rank: int = 4, strength: float = 0.02, targets: Sequence[str] = TARGETS
) -> Path:
    """An adapter of a model, large enough to change its answers.

    strength: standard deviation of the product's numbers, with its scale.
    """
    header, drawn = read_header(base), np.random.default_rng(seed)
    changed = [tensor for tensor in header.tensors if tensor.name.split(".")[-2] in targets]
    tensors = [each for tensor in changed for each in matrices(tensor.name, tensor.shape, rank)]
    alpha = float(rank)
    written = gguf(adapter_pairs(header.architecture, alpha), tensors)
    size = sum(tensor.size for tensor in tensors)
    assert all(tensor.size % 32 == 0 and tensor.size < 1 << 20 for tensor in tensors)
    numbers = drawn.normal(0.0, (strength / rank**0.5) ** 0.5, size // 4).astype("<f4")
    path.write_bytes(written[: len(written) - size] + numbers.tobytes())
    return path

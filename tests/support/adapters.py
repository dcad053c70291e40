"""Writes LoRA adapters with drawn weights, as llama.cpp's converter writes them, and control vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelyard.formats.gguf.read import read_header
from support.gguf_writer import F32, STR, U32, Pairs, Tensor, gguf, model_pairs, model_tensors

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


def write_vector(path: Path, directions: Mapping[int, Sequence[float]]) -> Path:
    """A control vector with a direction for each layer that is given."""
    tensors = [Tensor(f"direction.{layer}", (len(direction),)) for layer, direction in directions.items()]
    written = gguf({"general.architecture": (STR, "controlvector")}, tensors)
    size = sum(-(-tensor.size // 32) * 32 for tensor in tensors)
    data = b"".join(
        np.asarray(direction, "<f4").tobytes().ljust(-(-4 * len(direction) // 32) * 32, b"\0")
        for direction in directions.values()
    )
    path.write_bytes(written[: len(written) - size] + data)
    return path


def write_drawn_model(
    path: Path, merged: Path | None = None, scale: float = 1.0, seed: int = 11, layers: int = 1
) -> Path:
    """A tiny model with drawn weights in F32, into whose weights the adapter ``merged`` is merged as ``peft`` does it.

    Source: peft, src/peft/tuners/lora/layer.py, get_delta_weight: B A, times alpha / rank.
    """
    drawn, one = np.random.default_rng(seed), model_tensors()
    further = [replace(each, name=each.name.replace("blk.0", f"blk.{n}")) for n in range(1, layers) for each in one[2:]]
    tensors = [*one, *further]
    added = {} if merged is None else _products(merged, scale)
    written = gguf({**model_pairs(), "llama.block_count": (U32, layers)}, tensors)
    data = b""
    for tensor in tensors:
        rows = drawn.normal(0.0, 0.3, tuple(reversed(tensor.shape))).astype("<f4")
        weights = np.ones_like(rows) if tensor.name.endswith("_norm.weight") else rows
        data += (weights + added.get(tensor.name, np.float32(0))).astype("<f4").tobytes()
    path.write_bytes(written[: len(written) - len(data)] + data)
    return path


def _products(path: Path, scale: float) -> dict[str, np.ndarray]:
    """What an adapter adds to each tensor: [rows, columns]."""
    header = read_header(path)
    raw = path.read_bytes()
    start = len(raw) - sum(tensor.size_bytes for tensor in header.tensors)
    numbers = {
        tensor.name: np.frombuffer(raw, "<f4", tensor.size_bytes // 4, start + tensor.offset).reshape(
            tensor.shape[::-1]
        )
        for tensor in header.tensors
    }
    alpha = header.metadata["adapter.lora.alpha"]
    assert isinstance(alpha, float)
    added = {}
    for name, a in numbers.items():
        if name.endswith(".lora_a"):
            b = numbers[f"{name.removesuffix('a')}b"]
            added[name.removesuffix(".lora_a")] = scale * alpha / len(a) * (b @ a)
    return added

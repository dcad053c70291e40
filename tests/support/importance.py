"""Importance matrices, and a model that every type of weights fits."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

WIDTH = 256
LAYER = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def square_model(path: Path) -> list[str]:
    """Write a llama with rows of 256 random weights; the names of the weights of its only layer."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_block_count(1)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 256])
    random = np.random.default_rng(0)
    names = [f"blk.0.{part}.weight" for part in LAYER]
    for name in (*names, "token_embd.weight", "output.weight"):
        rows = len(tokens) if not name.startswith("blk") else WIDTH
        writer.add_tensor(name, random.standard_normal((rows, WIDTH)).astype(np.float16))
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return names


def write_legacy(path: Path, columns: Mapping[str, NDArray[np.float32]]) -> Path:
    """Source of the layout: llama.cpp, tools/imatrix/imatrix.cpp, save_imatrix_legacy."""
    content = struct.pack("<i", len(columns))
    for name, values in columns.items():
        content += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, len(values))
        content += values.astype("<f4").tobytes()
    path.write_bytes(content)
    return path


def write_gguf(path: Path, columns: Mapping[str, NDArray[np.float32]]) -> Path:
    """Source of the layout: llama.cpp, tools/imatrix/imatrix.cpp, save_imatrix."""
    writer = GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    for name, values in columns.items():
        writer.add_tensor(f"{name}.in_sum2", values.reshape(1, -1) * 7)
        writer.add_tensor(f"{name}.counts", np.full((1, 1), 7, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

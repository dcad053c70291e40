"""A small hybrid model: three recurrent layers and one of attention, as Qwen3.5 has them, with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import llama_gguf
import numpy as np

_ARCHITECTURE: Final = "qwen35"


@dataclass(frozen=True, slots=True)
class HybridShape:
    """Widths of the model, and of its recurrence: heads, the width of a head, the tokens that its convolution sees."""

    width: int = 512
    inner_feed: int = 1024
    layers: int = 4
    heads: int = 4
    key_heads: int = 2
    head: int = 128
    states: int = 16
    state: int = 128
    kernel: int = 4

    def numbers(self) -> dict[str, int]:
        return {
            "block_count": self.layers,
            "context_length": 32768,
            "embedding_length": self.width,
            "feed_forward_length": self.inner_feed,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.key_heads,
            "attention.key_length": self.head,
            "attention.value_length": self.head,
            "rope.dimension_count": 32,
            "full_attention_interval": self.layers,
            "ssm.conv_kernel": self.kernel,
            "ssm.state_size": self.state,
            "ssm.group_count": self.states,
            "ssm.time_step_rank": self.states,
            "ssm.inner_size": self.states * self.state,
        }


WIDE: Final = HybridShape()
# Computes a prompt of a thousand tokens in a fraction of a second.
NARROW: Final = HybridShape(width=128, inner_feed=256, heads=2, key_heads=1, head=64, states=2)


def write_hybrid(path: Path, tokenizer: Path, shape: HybridShape = WIDE) -> Path:
    """Write the model with the tokenizer of another GGUF file; 100 MB, or 15 where it is narrow.

    ``path`` is returned.
    """
    llama_gguf.add_to_path()
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, _ARCHITECTURE)
    fields = GGUFReader(tokenizer).fields
    for name, field in fields.items():
        if name.startswith("tokenizer."):
            is_array = field.types[0] == GGUFValueType.ARRAY
            kind = field.types[-1] if is_array else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=kind)
    for name, number in shape.numbers().items():
        writer.add_uint32(f"{_ARCHITECTURE}.{name}", number)
    writer.add_float32(f"{_ARCHITECTURE}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32(f"{_ARCHITECTURE}.rope.freq_base", 1e6)
    writer.add_array(f"{_ARCHITECTURE}.rope.dimension_sections", [6, 5, 5, 0])
    for name, weight in _weights(shape, len(fields["tokenizer.ggml.tokens"].data)):
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights(shape: HybridShape, vocabulary: int) -> list[tuple[str, Any]]:
    rng = np.random.default_rng(0)

    def matrix(*sizes: int) -> Any:
        return (rng.standard_normal(sizes, np.float32) / np.sqrt(sizes[-1])).astype(np.float16)

    def ones(*sizes: int) -> Any:
        return np.ones(sizes, np.float32)

    width = shape.width

    weights = [("token_embd.weight", matrix(vocabulary, width)), ("output_norm.weight", ones(width))]
    for layer in range(shape.layers):
        parts = _attention(shape, matrix, ones) if layer == shape.layers - 1 else _recurrence(shape, matrix, ones)
        parts |= {
            "attn_norm.weight": ones(width),
            "post_attention_norm.weight": ones(width),
            "ffn_gate.weight": matrix(shape.inner_feed, width),
            "ffn_up.weight": matrix(shape.inner_feed, width),
            "ffn_down.weight": matrix(width, shape.inner_feed),
        }
        weights += [(f"blk.{layer}.{name}", weight) for name, weight in parts.items()]
    return weights


def _attention(shape: HybridShape, matrix: Any, ones: Any) -> dict[str, Any]:
    width, heads, key_heads, head = shape.width, shape.heads, shape.key_heads, shape.head
    return {
        # Half of it is a gate.
        "attn_q.weight": matrix(2 * heads * head, width),
        "attn_k.weight": matrix(key_heads * head, width),
        "attn_v.weight": matrix(key_heads * head, width),
        "attn_output.weight": matrix(width, heads * head),
        "attn_q_norm.weight": ones(head),
        "attn_k_norm.weight": ones(head),
    }


def _recurrence(shape: HybridShape, matrix: Any, ones: Any) -> dict[str, Any]:
    width, states, inner = shape.width, shape.states, shape.states * shape.state
    return {
        "attn_qkv.weight": matrix(3 * inner, width),
        "attn_gate.weight": matrix(inner, width),
        "ssm_alpha.weight": matrix(states, width),
        "ssm_beta.weight": matrix(states, width),
        "ssm_a": -ones(states),
        "ssm_dt.bias": ones(states),
        "ssm_conv1d.weight": ones(3 * inner, shape.kernel) / shape.kernel,
        "ssm_norm.weight": ones(shape.state),
        "ssm_out.weight": matrix(width, inner),
    }

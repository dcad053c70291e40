"""A small hybrid model: three recurrent layers and one of attention, as Qwen3.5 has them, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import llama_gguf
import numpy as np

_ARCHITECTURE: Final = "qwen35"
_WIDTH, _INNER_FEED, _LAYERS = 512, 1024, 4
_HEADS, _KEY_HEADS, _HEAD = 4, 2, 128
# Of the recurrence: heads, the width of a head, the tokens that its convolution sees.
_STATES, _STATE, _KERNEL = 16, 128, 4

_NUMBERS: Final[dict[str, int]] = {
    "block_count": _LAYERS,
    "context_length": 32768,
    "embedding_length": _WIDTH,
    "feed_forward_length": _INNER_FEED,
    "attention.head_count": _HEADS,
    "attention.head_count_kv": _KEY_HEADS,
    "attention.key_length": _HEAD,
    "attention.value_length": _HEAD,
    "rope.dimension_count": 32,
    "full_attention_interval": _LAYERS,
    "ssm.conv_kernel": _KERNEL,
    "ssm.state_size": _STATE,
    "ssm.group_count": _STATES,
    "ssm.time_step_rank": _STATES,
    "ssm.inner_size": _STATES * _STATE,
}


def write_hybrid(path: Path, tokenizer: Path) -> Path:
    """Write the model with the tokenizer of another GGUF file; some 100 MB.

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
    for name, number in _NUMBERS.items():
        writer.add_uint32(f"{_ARCHITECTURE}.{name}", number)
    writer.add_float32(f"{_ARCHITECTURE}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32(f"{_ARCHITECTURE}.rope.freq_base", 1e6)
    writer.add_array(f"{_ARCHITECTURE}.rope.dimension_sections", [6, 5, 5, 0])
    for name, weight in _weights(len(fields["tokenizer.ggml.tokens"].data)):
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights(vocabulary: int) -> list[tuple[str, Any]]:
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> Any:
        return (rng.standard_normal(shape, np.float32) / np.sqrt(shape[-1])).astype(np.float16)

    def ones(*shape: int) -> Any:
        return np.ones(shape, np.float32)

    weights = [("token_embd.weight", matrix(vocabulary, _WIDTH)), ("output_norm.weight", ones(_WIDTH))]
    for layer in range(_LAYERS):
        parts = _attention(matrix, ones) if layer == _LAYERS - 1 else _recurrence(matrix, ones)
        parts |= {
            "attn_norm.weight": ones(_WIDTH),
            "post_attention_norm.weight": ones(_WIDTH),
            "ffn_gate.weight": matrix(_INNER_FEED, _WIDTH),
            "ffn_up.weight": matrix(_INNER_FEED, _WIDTH),
            "ffn_down.weight": matrix(_WIDTH, _INNER_FEED),
        }
        weights += [(f"blk.{layer}.{name}", weight) for name, weight in parts.items()]
    return weights


def _attention(matrix: Any, ones: Any) -> dict[str, Any]:
    return {
        # Half of it is a gate.
        "attn_q.weight": matrix(2 * _HEADS * _HEAD, _WIDTH),
        "attn_k.weight": matrix(_KEY_HEADS * _HEAD, _WIDTH),
        "attn_v.weight": matrix(_KEY_HEADS * _HEAD, _WIDTH),
        "attn_output.weight": matrix(_WIDTH, _HEADS * _HEAD),
        "attn_q_norm.weight": ones(_HEAD),
        "attn_k_norm.weight": ones(_HEAD),
    }


def _recurrence(matrix: Any, ones: Any) -> dict[str, Any]:
    inner = _STATES * _STATE
    return {
        "attn_qkv.weight": matrix(3 * inner, _WIDTH),
        "attn_gate.weight": matrix(inner, _WIDTH),
        "ssm_alpha.weight": matrix(_STATES, _WIDTH),
        "ssm_beta.weight": matrix(_STATES, _WIDTH),
        "ssm_a": -ones(_STATES),
        "ssm_dt.bias": ones(_STATES),
        "ssm_conv1d.weight": ones(3 * inner, _KERNEL) / _KERNEL,
        "ssm_norm.weight": ones(_STATE),
        "ssm_out.weight": matrix(_WIDTH, inner),
    }

"""Large models whose files have a header alone: nothing reads their weights, which take no room on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.gguf_writer import F32, TENSOR_F16, TENSOR_Q8_0, U32, VOCABULARY, Pairs, Tensor, gguf, model_pairs

TENSOR_Q4_K = 12


def words(count: int) -> list[str]:
    """A vocabulary of ``count`` tokens."""
    return [*VOCABULARY, *(f"w{number}" for number in range(count - len(VOCABULARY)))]


def write_experts(path: Path, *, layers: int = 24, experts: int = 64) -> Path:
    """Write a model of experts as Qwen3-30B-A3B is one: ``layers`` layers with so many experts, in Q4_K; 4 GB."""
    width, inner, heads, key_heads, head, vocabulary = 2048, 768, 32, 4, 128, 32_000
    numbers = {
        "block_count": layers,
        "context_length": 32768,
        "embedding_length": width,
        "feed_forward_length": 6144,
        "expert_feed_forward_length": inner,
        "expert_count": experts,
        "expert_used_count": 8,
        "attention.head_count": heads,
        "attention.head_count_kv": key_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
    }
    tensors = [
        Tensor("token_embd.weight", (width, vocabulary), TENSOR_Q4_K),
        Tensor("output.weight", (width, vocabulary), TENSOR_Q8_0),
        Tensor("output_norm.weight", (width,)),
    ]
    for layer in range(layers):
        parts = {
            "attn_norm": ((width,), 0),
            "attn_q": ((width, heads * head), TENSOR_Q4_K),
            "attn_k": ((width, key_heads * head), TENSOR_Q4_K),
            "attn_v": ((width, key_heads * head), TENSOR_Q4_K),
            "attn_output": ((heads * head, width), TENSOR_Q4_K),
            "attn_q_norm": ((head,), 0),
            "attn_k_norm": ((head,), 0),
            "ffn_norm": ((width,), 0),
            "ffn_gate_inp": ((width, experts), 0),
            "ffn_gate_exps": ((width, inner, experts), TENSOR_Q4_K),
            "ffn_up_exps": ((width, inner, experts), TENSOR_Q4_K),
            "ffn_down_exps": ((inner, width, experts), TENSOR_Q4_K),
        }
        tensors += [Tensor(f"blk.{layer}.{name}.weight", shape, kind) for name, (shape, kind) in parts.items()]
    return _write(path, "qwen3moe", numbers, tensors, vocabulary)


def write_dense(path: Path, *, layers: int = 26) -> Path:
    """Write a dense model with windows, as Gemma 3 is one: ``layers`` layers in F16; 4 GB."""
    width, inner, heads, key_heads, head, vocabulary = 2304, 9216, 8, 4, 256, 32_000
    numbers = {
        "block_count": layers,
        "context_length": 32768,
        "embedding_length": width,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": key_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.sliding_window": 1024,
        "rope.dimension_count": head,
    }
    tensors = [
        Tensor("token_embd.weight", (width, vocabulary), TENSOR_F16),
        Tensor("output_norm.weight", (width,)),
    ]
    for layer in range(layers):
        parts = {
            **dict.fromkeys(("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"), ((width,), 0)),
            "attn_q": ((width, heads * head), TENSOR_F16),
            "attn_k": ((width, key_heads * head), TENSOR_F16),
            "attn_v": ((width, key_heads * head), TENSOR_F16),
            "attn_output": ((heads * head, width), TENSOR_F16),
            "attn_q_norm": ((head,), 0),
            "attn_k_norm": ((head,), 0),
            "ffn_gate": ((width, inner), TENSOR_F16),
            "ffn_up": ((width, inner), TENSOR_F16),
            "ffn_down": ((inner, width), TENSOR_F16),
        }
        tensors += [Tensor(f"blk.{layer}.{name}.weight", shape, kind) for name, (shape, kind) in parts.items()]
    return _write(path, "gemma3", numbers, tensors, vocabulary)


def _write(path: Path, architecture: str, numbers: dict[str, int], tensors: list[Tensor], vocabulary: int) -> Path:
    own = f"{architecture}."
    pairs: Pairs = {
        key: value for key, value in model_pairs(architecture, words(vocabulary)).items() if not key.startswith(own)
    }
    pairs |= {own + name: (U32, number) for name, number in numbers.items()}
    pairs[f"{own}attention.layer_norm_rms_epsilon"] = (F32, 1e-6)
    placed, end = [], 0
    for tensor in tensors:
        placed.append(replace(tensor, offset=end))
        end += -(-tensor.size // 32) * 32
    head = _head(pairs, placed)
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(len(head) + end)
    return path


def _head(pairs: Pairs, tensors: list[Tensor]) -> bytes:
    """The header, without the data that ``gguf`` writes for small tensors."""
    data = 0
    for tensor in tensors:
        if tensor.size < 1 << 20:
            data += tensor.size
            data += -data % 32
    whole = gguf(pairs, tensors)
    return whole[: len(whole) - data]

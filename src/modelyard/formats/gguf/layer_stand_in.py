"""A model with a few layers of the shapes of another one, to measure how fast it computes. Pure but for its file.

Attention and feed-forward layers are those of Llama or Mixtral. All weights are zeros, which are read and multiplied
in the same time as others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.formats.gguf.constants import NARROW_TYPES, TENSOR_TYPES
from modelyard.formats.gguf.write import ZeroTensor, write_zeros

_BLOCKS: Final = {kind.name: kind.block_elements for kind in TENSOR_TYPES.values()}

_CONTEXT: Final = 4096


@dataclass(frozen=True, slots=True)
class LayerShapes:
    """Sizes that the speed of a model depends on.

    Attributes:
        layers: number of them.
        width: values of a token between layers.
        hidden: values inside a feed-forward layer, or inside one expert.
        heads, kv_heads: of attention.
        head: values of one head.
        vocabulary: number of tokens.
        experts, experts_used: of a feed-forward layer; 0 without experts.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    experts: int = 0
    experts_used: int = 0


def stand_in_tensors(shapes: LayerShapes, weight_type: str, layers: int) -> list[ZeroTensor]:
    """Return the tensors of a model with so many layers of those shapes, whose weights have that type."""

    def weights(name: str, columns: int, *rows: int) -> ZeroTensor:
        kind = weight_type if columns % _BLOCKS[weight_type] == 0 else NARROW_TYPES.get(weight_type, "F16")
        return f"{name}.weight", (columns, *rows), kind if columns % _BLOCKS[kind] == 0 else "F16"

    width, inner, kv = shapes.width, shapes.heads * shapes.head, shapes.kv_heads * shapes.head
    tensors = [weights("token_embd", width, shapes.vocabulary), ("output_norm.weight", (width,), "F32")]
    ending, count = ("_exps", (shapes.experts,)) if shapes.experts else ("", ())
    for number in range(layers):
        at = f"blk.{number}"
        tensors += [(f"{at}.{norm}_norm.weight", (width,), "F32") for norm in ("attn", "ffn")]
        tensors += [weights(f"{at}.attn_q", width, inner), weights(f"{at}.attn_k", width, kv)]
        tensors += [weights(f"{at}.attn_v", width, kv), weights(f"{at}.attn_output", inner, width)]
        if shapes.experts:
            tensors.append((f"{at}.ffn_gate_inp.weight", (width, shapes.experts), "F32"))
        tensors += [weights(f"{at}.ffn_{part}{ending}", width, shapes.hidden, *count) for part in ("gate", "up")]
        tensors.append(weights(f"{at}.ffn_down{ending}", shapes.hidden, width, *count))
    return tensors


def write_stand_in(path: Path, shapes: LayerShapes, weight_type: str, layers: int) -> int:
    """Write a model with so many layers, and return the size of its file.

    Args:
        path: the file.
        shapes: of the model that it stands for.
        weight_type: name of the type of the weights, such as "Q4_K".
        layers: that it has, in place of those of the model.

    Raises:
        OSError: it cannot be written.
    """
    numbers: dict[str, int | float] = {
        "block_count": layers,
        "context_length": _CONTEXT,
        "embedding_length": shapes.width,
        "feed_forward_length": shapes.hidden,
        "attention.head_count": shapes.heads,
        "attention.head_count_kv": shapes.kv_heads,
        "attention.key_length": shapes.head,
        "attention.value_length": shapes.head,
        "rope.dimension_count": shapes.head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": shapes.vocabulary,
    }
    if shapes.experts:
        numbers |= {"expert_count": shapes.experts, "expert_used_count": shapes.experts_used}
    metadata: dict[str, str | int | float] = {"general.architecture": "llama", "tokenizer.ggml.model": "none"}
    return write_zeros(
        path,
        metadata | {f"llama.{key}": value for key, value in numbers.items()},
        stand_in_tensors(shapes, weight_type, layers),
    )

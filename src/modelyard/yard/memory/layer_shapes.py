"""The layers of a model by its GGUF header: the tensors of each, and numbers of the architecture. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from modelyard.formats.gguf.header import GgufArray, GgufHeader
from modelyard.formats.gguf.layer_stand_in import LayerShapes

_LAYER_TENSOR: Final = re.compile(r"blk\.(\d+)\.(.+)")
_RECURRENT: Final = ("ssm_", "time_mix_", "shortconv.")

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Shapes of the tensors of one layer, by the part of their names that follows "blk.N."."""


def layers_of(header: GgufHeader) -> Sequence[Shapes | None]:
    """Return the tensors of each layer; None for a layer that is in another shard, or may be in part.

    Prediction heads (MTP), which are layers behind all others, are left out: llama.cpp neither computes them here nor
    keeps cells for them.

    Source: llama.cpp, src/llama-hparams.cpp, n_layer.
    """
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for tensor in header.tensors:
        if match := _LAYER_TENSOR.fullmatch(tensor.name):
            layers.setdefault(int(match[1]), {})[match[2]] = tensor.shape
    count = layer_count(header)
    if header.split[1] == 1:
        return [layers.get(number, {}) for number in range(count)]
    layers.pop(max(layers, default=0), None)
    return [layers.get(number) for number in range(count)]


def layer_count(header: GgufHeader) -> int:
    """Return the number of layers that are computed."""
    heads = number_of(header, "nextn_predict_layers")
    return header.block_count - heads if heads < header.block_count else header.block_count


def is_computed(header: GgufHeader, name: str) -> bool:
    """Whether a tensor of that name is loaded; those of prediction heads are not.

    Source: llama.cpp, src/models/*.cpp, TENSOR_SKIP where load_mtp is false.
    """
    match = _LAYER_TENSOR.fullmatch(name)
    return match is None or int(match[1]) < layer_count(header)


def is_recurrent(shapes: Shapes) -> bool:
    """Whether a layer keeps a state, alone or beside attention."""
    return any(name.startswith(_RECURRENT) for name in shapes)


def has_attention(shapes: Shapes) -> bool:
    """Whether a layer has attention, alone or beside a recurrence.

    Falcon-H1 has an attention output beside the recurrence; the projections of Kimi's layers feed the recurrence.
    """
    if "ssm_conv1d_q.weight" in shapes:
        return False
    if is_recurrent(shapes):
        return "attn_output.weight" in shapes
    return any(f"attn_{part}.weight" in shapes for part in ("q", "k", "qkv", "kv_a_mqa"))


def dimension(shapes: Shapes, name: str, axis: int) -> int:
    """Return the size of an axis of a tensor; 0 where there is no such tensor or axis."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else 0


def number_of(header: GgufHeader, key: str) -> int:
    """Return a number of the architecture; 0 where the header has none, or a list."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    return max(0, value) if isinstance(value, int) else 0


def key_width(header: GgufHeader) -> int:
    """Return the number of values in a key of one attention head; 0 where there are no heads, or of several widths."""
    heads = number_of(header, "attention.head_count")
    return number_of(header, "attention.key_length") or (number_of(header, "embedding_length") // heads if heads else 0)


def stand_in_shapes(header: GgufHeader) -> LayerShapes | None:
    """Return the shapes by which the speed of a model is measured; None where the header does not say enough."""
    width, heads, layers = (
        number_of(header, key) for key in ("embedding_length", "attention.head_count", "block_count")
    )
    experts, used = number_of(header, "expert_count"), number_of(header, "expert_used_count")
    hidden = number_of(header, "expert_feed_forward_length") or number_of(header, "feed_forward_length")
    vocabulary, head = vocabulary_size(header), key_width(header)
    kv_heads = number_of(header, "attention.head_count_kv") or heads
    if not (width and heads and layers and hidden and vocabulary) or bool(used) != bool(experts):
        return None
    if head % 2 or heads % kv_heads:
        return None
    return LayerShapes(layers, width, hidden, heads, kv_heads, head, vocabulary, experts, used)


def vocabulary_size(header: GgufHeader) -> int:
    """Return the number of tokens in the vocabulary."""
    return array_length(header, "tokenizer.ggml.tokens") or number_of(header, "vocab_size")


def array_length(header: GgufHeader, key: str) -> int:
    """Return the length of an array in the header; 0 where there is none."""
    value = header.metadata.get(key)
    return value.length if isinstance(value, GgufArray) else 0

"""What a GGUF header says about the layers of a model: the tensors of each, and numbers of the architecture. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from modelyard.formats.gguf.header import GgufHeader

_LAYER_TENSOR: Final = re.compile(r"blk\.(\d+)\.(.+)")
_RECURRENT: Final = ("ssm_", "time_mix_", "shortconv.")

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Of the tensors of one layer, by the part of their names that follows "blk.N."."""


def layers_of(header: GgufHeader) -> Sequence[Shapes | None]:
    """The tensors of each layer; None for a layer that is in another shard, or may be in part.

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
    """Layers that are computed."""
    heads = number_of(header, "nextn_predict_layers")
    return header.block_count - heads if heads < header.block_count else header.block_count


def is_computed(header: GgufHeader, name: str) -> bool:
    """Whether a tensor of that name is loaded: those of prediction heads are not.

    Source: llama.cpp, src/models/*.cpp, TENSOR_SKIP where load_mtp is false.
    """
    match = _LAYER_TENSOR.fullmatch(name)
    return match is None or int(match[1]) < layer_count(header)


def is_recurrent(shapes: Shapes) -> bool:
    """Whether a layer keeps a state, alone or beside attention."""
    return any(name.startswith(_RECURRENT) for name in shapes)


def dimension(shapes: Shapes, name: str, axis: int) -> int:
    """0 where there is no such tensor, or it has no such axis."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else 0


def number_of(header: GgufHeader, key: str) -> int:
    """A number of the architecture; 0 where the header does not say, or has a list."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    return max(0, value) if isinstance(value, int) else 0

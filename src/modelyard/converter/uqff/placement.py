"""What each tensor of a GGUF is made of, where its weights come from a UQFF: blocks as they are, or quantised again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from gguf import GGML_QUANT_SIZES, LazyNumpyTensor
from gguf import GGMLQuantizationType as Type

from modelyard.converter.ggml_blocks import encode_rows
from modelyard.converter.protocol import Refused
from modelyard.converter.rows import Rows
from modelyard.converter.uqff.blocks import block_type, blocks
from modelyard.formats.uqff.reader import UqffLayer

# What is nearest in GGUF to a layer that has no blocks there, or whose rows are not kept whole; else its own type.
_NEAREST: Final = {
    "hqq1": Type.Q2_K, "hqq2": Type.Q2_K, "hqq4": Type.Q4_K, "hqq8": Type.Q8_0, "fp8": Type.Q8_0, "f8q8": Type.Q8_0,
    "afq2": Type.Q4_1, "afq3": Type.Q4_1, "afq4": Type.Q4_1, "afq6": Type.Q6_K, "afq8": Type.Q8_0,
    "mxfp4": Type.IQ4_NL, "Q8_1": Type.Q8_0, "Q8_K": Type.Q8_0,
}  # fmt: skip

# What llama.cpp takes for rows that are no whole blocks of a type. Source: src/llama-quant.cpp, tensor_type_fallback.
_FALLBACKS: Final = {
    Type.Q2_K: Type.IQ4_NL,
    Type.Q3_K: Type.IQ4_NL,
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
}

Add = Callable[[str, Any, Type], None]
"""Puts a tensor into the file: its name, its contents, its type."""


class Placement:
    """The tensors that a converter makes of layers, until they are in the file; and what became of all."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[UqffLayer, Any, Rows | None]] = {}
        self._same: Counter[tuple[str, str]] = Counter()
        self._again: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def note(self, name: str, layer: UqffLayer, values: Any, rows: Rows | None) -> None:
        """The converter will add a tensor.

        Args:
            name: of the tensor.
            layer: that it is made of.
            values: what it is, as a lazy array in single precision.
            rows: which row of the layer each of its rows is; None where rows are not kept whole.
        """
        self._made[name] = layer, values, rows

    def has(self, name: str) -> bool:
        """Whether a tensor is made of a layer, and is not in the file yet."""
        return name in self._made

    def add(self, name: str, add: Add) -> None:
        """Put a tensor that is made of a layer into the file; it is computed when it is written."""
        layer, values, rows = self._made.pop(name)
        kind = block_type(layer)
        if rows is not None and kind is not None:
            self._same[layer.stored, kind.name] += 1
            add(name, _gathered(layer, kind, rows), kind)
            return
        wanted = _NEAREST.get(layer.stored) or Type[layer.stored]
        kind = _fitting(wanted, values.shape[-1])
        self._again[layer.stored, kind.name].append(name)
        add(name, _quantised(values, kind), kind)

    def drop(self, name: str) -> None:
        """A tensor that is made of a layer is put into the file as numbers."""
        del self._made[name]

    def notices(self) -> list[str]:
        """What is to be known about the file, in sentences."""
        return [
            f"{count} tensors of the type {stored} become {kind}, which has the same codes."
            for (stored, kind), count in self._same.items()
            if stored != kind
        ] + [
            f"{len(names)} tensors of the type {stored} are quantised again, to {kind}, which is the nearest of GGUF "
            f"(the first is {names[0]})."
            for (stored, kind), names in self._again.items()
        ]


def _gathered(layer: UqffLayer, kind: Type, rows: Rows) -> Any:
    """The blocks of those rows of a layer."""
    elements, size = GGML_QUANT_SIZES[kind]
    row = layer.shape[-1] // elements * size

    def gather(rows: Rows) -> Any:
        stored = blocks(layer).reshape(-1, row)
        in_order = np.array_equal(rows.ravel(), np.arange(len(stored)))
        return (stored if in_order else stored[rows.ravel()]).reshape(*rows.shape, row)

    return _lazy((*rows.shape, row), rows, gather)


def _fitting(kind: Type, row: int) -> Type:
    """The type itself, or what llama.cpp takes instead for rows of ``row`` weights that are no whole blocks of it."""
    while row % GGML_QUANT_SIZES[kind][0]:
        kind = _FALLBACKS.get(kind, Type.F16)
    return kind


def _quantised(values: Any, kind: Type) -> Any:
    elements, size = GGML_QUANT_SIZES[kind]
    shape = (*values.shape[:-1], values.shape[-1] // elements * size)

    def quantise(values: Any) -> Any:
        if not np.isfinite(values).all():
            raise Refused("Some weights are no finite numbers: the UQFF is damaged. Download it again.")
        return encode_rows(values.reshape(-1, values.shape[-1]), kind.name).reshape(shape)

    return _lazy(shape, values, quantise)


def _lazy(shape: tuple[int, ...], of: Any, compute: Callable[[Any], Any]) -> Any:
    meta = LazyNumpyTensor.meta_with_dtype_and_shape(np.uint8, shape)
    return LazyNumpyTensor(meta=meta, args=(of,), func=compute)

"""Adds tensors that come from UQFF layers to a GGUF file: as the blocks of the layers, or quantised again."""

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
from modelyard.formats.gguf.constants import NARROW_TYPES
from modelyard.formats.uqff.reader import UqffLayer

# Nearest GGUF types for layers without blocks in GGUF, or whose rows are not kept whole; others keep their own type.
_NEAREST: Final = {
    "hqq1": Type.Q2_K, "hqq2": Type.Q2_K, "hqq4": Type.Q4_K, "hqq8": Type.Q8_0, "fp8": Type.Q8_0, "f8q8": Type.Q8_0,
    "afq2": Type.Q4_1, "afq3": Type.Q4_1, "afq4": Type.Q4_1, "afq6": Type.Q6_K, "afq8": Type.Q8_0,
    "mxfp4": Type.IQ4_NL, "Q8_1": Type.Q8_0, "Q8_K": Type.Q8_0,
}  # fmt: skip

_FALLBACKS: Final = {Type[wide]: Type[narrow] for wide, narrow in NARROW_TYPES.items()}

Add = Callable[[str, Any, Type], None]
"""Adds a tensor to the file: its name, contents and type."""


class TensorPlacement:
    """The tensors that a converter makes of layers until they are in the file, and statistics about their types."""

    def __init__(self) -> None:
        self._pending: dict[str, tuple[UqffLayer, Any, Rows | None]] = {}
        self._kept_codes: Counter[tuple[str, str]] = Counter()
        self._requantised: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def record(self, name: str, layer: UqffLayer, values: Any, rows: Rows | None) -> None:
        """Record a tensor that the converter will add.

        Args:
            name: name of the tensor.
            layer: the layer that it is made of.
            values: its values, a lazy array in single precision.
            rows: for each of its rows, the row of the layer; None if rows are not kept whole.
        """
        self._pending[name] = layer, values, rows

    def has(self, name: str) -> bool:
        """Whether a tensor is made of a layer and not in the file yet."""
        return name in self._pending

    def add(self, name: str, add: Add) -> None:
        """Add a tensor that is made of a layer to the file; it is computed when it is written."""
        layer, values, rows = self._pending.pop(name)
        kind = block_type(layer)
        if rows is not None and kind is not None:
            self._kept_codes[layer.stored, kind.name] += 1
            add(name, _gathered(layer, kind, rows), kind)
            return
        wanted = _NEAREST.get(layer.stored) or Type[layer.stored]
        kind = _fitting(wanted, values.shape[-1])
        self._requantised[layer.stored, kind.name].append(name)
        add(name, _quantised(values, kind), kind)

    def discard(self, name: str) -> None:
        """Discard a tensor that is made of a layer, which the converter adds as numbers."""
        del self._pending[name]

    def notices(self) -> list[str]:
        """Return notices about changed types in the file, in sentences."""
        return [
            f"{count} tensors of the type {stored} become {kind}, which has the same codes."
            for (stored, kind), count in self._kept_codes.items()
            if stored != kind
        ] + [
            f"{len(names)} tensors of the type {stored} are quantised again, to {kind}, which is the nearest of GGUF "
            f"(the first is {names[0]})."
            for (stored, kind), names in self._requantised.items()
        ]


def _gathered(layer: UqffLayer, kind: Type, rows: Rows) -> Any:
    """Return a lazy array of the blocks of those rows of a layer."""
    elements, size = GGML_QUANT_SIZES[kind]
    row = layer.shape[-1] // elements * size

    def gather(rows: Rows) -> Any:
        stored = blocks(layer).reshape(-1, row)
        in_order = np.array_equal(rows.ravel(), np.arange(len(stored)))
        return (stored if in_order else stored[rows.ravel()]).reshape(*rows.shape, row)

    return _lazy((*rows.shape, row), rows, gather)


def _fitting(kind: Type, row: int) -> Type:
    """Return ``kind``, or the type that llama.cpp uses if rows of ``row`` weights are not whole blocks of ``kind``."""
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


def _lazy(shape: tuple[int, ...], source: Any, compute: Callable[[Any], Any]) -> Any:
    meta = LazyNumpyTensor.meta_with_dtype_and_shape(np.uint8, shape)
    return LazyNumpyTensor(meta=meta, args=(source,), func=compute)

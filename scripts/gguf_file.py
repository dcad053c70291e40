"""Reads a GGUF file as ``gguf.GGUFReader`` does, in a twentieth of the time: that makes an array of every string.

Source of the layout: llama.cpp, ggml/docs/gguf.md. For files that the converter or llama.cpp has written: nothing is
checked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9
_AFTER_MAGIC: Final = 8


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of the metadata.

    Attributes:
        name: its key.
        types: of the entry and, for an array, of its elements (``gguf.GGUFValueType``).
        value: what it says.
    """

    name: str
    types: list[Any]
    value: Any

    def contents(self) -> Any:
        """What it says."""
        return self.value


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    Attributes:
        name: such as "blk.0.attn_q.weight".
        tensor_type: a ``gguf.GGMLQuantizationType``.
        shape: ggml's order: the first dimension is the one that is contiguous.
        data: numbers in numpy's order, or the bytes of each row's blocks.
    """

    name: str
    tensor_type: Any
    shape: tuple[int, ...]
    data: np.ndarray


class GgufFile:
    """The metadata and the tensors of a file, which stays mapped.

    Attributes:
        fields: the metadata, by key.
        tensors: in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        import gguf

        self._raw = np.memmap(path, np.uint8, "r")
        self._view = memoryview(self._raw)
        self._at = _AFTER_MAGIC
        tensors, pairs = self._take("Q"), self._take("Q")
        self.fields = {field.name: field for field in (self._field(gguf.GGUFValueType) for _ in range(pairs))}
        heads = [self._head() for _ in range(tensors)]
        alignment = self.fields["general.alignment"].value if "general.alignment" in self.fields else 32
        begin = -(-self._at // alignment) * alignment
        self.tensors = [self._tensor(gguf, begin, *head) for head in heads]

    def _take(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._view, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _text(self) -> str:
        length = self._take("Q")
        self._at += length
        return bytes(self._view[self._at - length : self._at]).decode()

    def _field(self, kinds: Any) -> Field:
        name, kind = self._text(), self._take("I")
        if kind != _ARRAY:
            return Field(name, [kinds(kind)], self._text() if kind == _STRING else self._take(_SCALARS[kind]))
        element, count = self._take("I"), self._take("Q")
        types = [kinds(_ARRAY), kinds(element)]
        if element == _STRING:
            return Field(name, types, [self._text() for _ in range(count)])
        values = np.frombuffer(self._raw, np.dtype(_SCALARS[element]), count, self._at)
        self._at += values.nbytes
        return Field(name, types, values.tolist())

    def _head(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        shape = tuple(self._take("Q") for _ in range(self._take("I")))
        return name, shape, self._take("I"), self._take("Q")

    def _tensor(self, gguf: Any, begin: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> Tensor:
        tensor_type = gguf.GGMLQuantizationType(kind)
        elements, block_bytes = gguf.GGML_QUANT_SIZES[tensor_type]
        size = int(np.prod(shape)) // elements * block_bytes
        raw = self._raw[begin + offset : begin + offset + size]
        numbers = {"F32": np.float32, "F16": np.float16}.get(tensor_type.name)
        rows = shape[:0:-1]
        data = raw.view(numbers).reshape(*rows, shape[0]) if numbers else raw.reshape(*rows, -1)
        return Tensor(name, tensor_type, shape, data)

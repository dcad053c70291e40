"""GGUF files as values that can be changed: read whole, arrays and weights included, and written again."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelyard.formats.gguf import constants as gguf
from support.gguf_writer import string

TYPE_NUMBERS: Final = {one.name: number for number, one in gguf.TENSOR_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of the metadata: its type on disk, and a number, or the bytes of a text."""

    type: int
    value: Any


@dataclass(frozen=True, slots=True)
class Array:
    """An array of the metadata. length: what is written as its length, where that is not the truth."""

    type: int
    values: tuple[Any, ...]
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor with its bytes. offset: what is written as its place, where that is not the truth."""

    name: bytes
    shape: tuple[int, ...]
    type: int
    content: bytes = field(repr=False)
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A whole file."""

    pairs: dict[str, Scalar | Array]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """The name that the keys of the model begin with."""
        return text_of(self.pairs["general.architecture"])

    def with_pair(self, key: str, value: Scalar | Array | None) -> GgufFile:
        """This file with another value, or without the key."""
        pairs = {**self.pairs}
        if value is None:
            pairs.pop(key, None)
        else:
            pairs[key] = value
        return replace(self, pairs=pairs)

    def content(self) -> bytes:
        """The bytes of the file."""
        alignment = _alignment(self.pairs)
        head = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.pairs))]
        for key, value in self.pairs.items():
            head.append(string(key.encode("utf-8", "surrogatepass")))
            if isinstance(value, Array):
                length = len(value.values) if value.length is None else value.length
                head.append(struct.pack("<IIQ", gguf.ARRAY, value.type, length))
                head.extend(_packed(value.type, one) for one in value.values)
            else:
                head.extend((struct.pack("<I", value.type), _packed(value.type, value.value)))
        data, place = [], 0
        for tensor in self.tensors:
            offset = place if tensor.offset is None else tensor.offset
            head.append(string(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
            head.append(struct.pack("<IQ", tensor.type, offset))
            padding = -len(tensor.content) % alignment
            data.extend((tensor.content, bytes(padding)))
            place += len(tensor.content) + padding
        start = b"".join(head)
        return b"".join((start, bytes(-len(start) % alignment), *data))


def text_of(value: Scalar | Array | None) -> str:
    """The text of a value; "" where it is none."""
    return value.value.decode("utf-8", "replace") if isinstance(value, Scalar) and value.type == gguf.STRING else ""


def text(value: str | bytes) -> Scalar:
    """A text of the metadata."""
    return Scalar(gguf.STRING, value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)


def number(value: int) -> Scalar:
    """A number of 32 bits without a sign, as most of the metadata are."""
    return Scalar(gguf.UINT32, value)


def real(value: float) -> Scalar:
    """A 32-bit float of the metadata."""
    return Scalar(gguf.FLOAT32, value)


def texts(values: Any) -> Array:
    """An array of texts."""
    return Array(gguf.STRING, tuple(one.encode() if isinstance(one, str) else one for one in values))


def tensor_bytes(shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor, in whole blocks."""
    elements = int(np.prod(np.array(shape, dtype=object))) if shape else 1
    return -(-elements // gguf.TENSOR_TYPES[kind].block_elements) * gguf.TENSOR_TYPES[kind].block_bytes


def read_gguf(path: Path) -> GgufFile:
    """What is in a file that nobody has damaged."""
    content = path.read_bytes()
    place = 8

    def unpack(layout: struct.Struct) -> Any:
        nonlocal place
        (value,) = layout.unpack_from(content, place)
        place += layout.size
        return value

    def value_of(kind: int) -> Any:
        nonlocal place
        if kind != gguf.STRING:
            return unpack(gguf.SCALARS[kind])
        length = unpack(_U64)
        place += length
        return content[place - length : place]

    tensor_count, pair_count = unpack(_U64), unpack(_U64)
    pairs: dict[str, Scalar | Array] = {}
    for _ in range(pair_count):
        key, kind = value_of(gguf.STRING).decode(), unpack(_U32)
        if kind == gguf.ARRAY:
            element, length = unpack(_U32), unpack(_U64)
            pairs[key] = Array(element, tuple(value_of(element) for _ in range(length)))
        else:
            pairs[key] = Scalar(kind, value_of(kind))
    heads = []
    for _ in range(tensor_count):
        name, dimensions = value_of(gguf.STRING), unpack(_U32)
        heads.append((name, tuple(unpack(_U64) for _ in range(dimensions)), unpack(_U32), unpack(_U64)))
    start = place + -place % _alignment(pairs)
    return GgufFile(
        pairs,
        tuple(
            Tensor(name, shape, kind, content[start + offset : start + offset + tensor_bytes(shape, kind)])
            for name, shape, kind, offset in heads
        ),
    )


_U32: Final = gguf.SCALARS[gguf.UINT32]
_U64: Final = gguf.SCALARS[10]


def _packed(kind: int, value: Any) -> bytes:
    return string(value) if kind == gguf.STRING else gguf.SCALARS[kind].pack(value)


def _alignment(pairs: dict[str, Scalar | Array]) -> int:
    value = pairs.get("general.alignment")
    given = value.value if isinstance(value, Scalar) and isinstance(value.value, int) else 0
    return given if 0 < given <= 1 << 16 else gguf.DEFAULT_ALIGNMENT

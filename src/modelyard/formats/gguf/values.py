"""The values in the header of a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array of the metadata, without its contents.

    Attributes:
        type: type of its elements, such as "i32", "f32", "str".
        length: number of elements.
    """

    type: str
    length: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """The place and the layout of one tensor.

    Attributes:
        name: such as "blk.0.attn_q.weight".
        shape: in ggml's order, the contiguous dimension first.
        type: such as "Q4_K", "F32".
        offset: bytes from the start of the data section.
        size_bytes: size without the padding behind it.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int


Value: TypeAlias = int | float | bool | str | GgufArray

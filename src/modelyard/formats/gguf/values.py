"""What the header of a GGUF file is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array of the metadata, its contents left in the file.

    Attributes:
        type: of its elements, as in "i32", "f32", "str".
        length: elements.
    """

    type: str
    length: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies, and how it is stored.

    Attributes:
        name: such as "blk.0.attn_q.weight".
        shape: ggml's order: the first dimension is the one that is contiguous.
        type: such as "Q4_K", "F32".
        offset: bytes from the start of the data section.
        size_bytes: without the padding after it.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int


Value: TypeAlias = int | float | bool | str | GgufArray

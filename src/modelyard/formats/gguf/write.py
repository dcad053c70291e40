"""Writes a GGUF file whose tensors are zeros. Source: ggml/include/gguf.h."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from modelyard.formats.gguf.constants import TENSOR_TYPES

_MAGIC: Final = b"GGUF"
_VERSION: Final = 3
_ALIGNMENT: Final = 32
_U32, _F32, _STRING = 4, 6, 8
_NUMBERS: Final = {kind.name: number for number, kind in TENSOR_TYPES.items()}

ZeroTensor = tuple[str, tuple[int, ...], str]
"""Name, shape with the columns first, and name of the type."""


def write_zeros(path: Path, metadata: Mapping[str, str | int | float], tensors: Sequence[ZeroTensor]) -> int:
    """Write a file with ``metadata``, integers as 32 bits, and return its size. Its tensors take no room on the disk.

    Raises:
        OSError: it cannot be written.
        ValueError: the columns of a tensor are not whole blocks of its type.
    """
    header = bytearray(_MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        header += _string(key) + _value(value)
    offset = 0
    for name, shape, type_name in tensors:
        header += _string(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}QIQ", *shape, _NUMBERS[type_name], offset)
        offset += _aligned(tensor_bytes(shape, type_name))
    size = _aligned(len(header)) + offset
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return size


def tensor_bytes(shape: Sequence[int], type_name: str) -> int:
    """Return the bytes of a tensor.

    Raises:
        ValueError: its columns are not whole blocks of its type.
    """
    kind = TENSOR_TYPES[_NUMBERS[type_name]]
    blocks, rest = divmod(shape[0], kind.block_elements)
    if rest:
        raise ValueError(f"{shape[0]} columns are not whole blocks of {kind.block_elements} values, as {type_name} has")
    size = blocks * kind.block_bytes
    for rows in shape[1:]:
        size *= rows
    return size


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: str | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    return struct.pack("<If", _F32, value)

"""Reads and checks the header of a safetensors file, which has the name, type and place of each tensor.

Source: the safetensors format, https://github.com/huggingface/safetensors, "Format": eight bytes of length,
little-endian; JSON of that length; the data, at the offsets in ``data_offsets``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeGuard

from modelyard.errors import UnusableModel

_LENGTH_BYTES: Final = 8
# The limit of the reference implementation.
_MAX_HEADER_LENGTH: Final = 100_000_000
_MAX_DIMENSIONS: Final = 8
_METADATA: Final = "__metadata__"

ITEM_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The place of a tensor: size_bytes at offset in the file at path, row-major, little-endian."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def read(self) -> bytes:
        """Read the contents into memory, for small tensors.

        Raises:
            UnusableModel: the file cannot be read, or has become shorter.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except OSError as error:
            raise UnusableModel(f"{self.path}: It cannot be read: {error.strerror}. Check the path.") from error
        if len(data) != self.size_bytes:
            raise UnusableModel(f"{self.path}: It ends inside of the tensor {self.name!r}. Download it again.")
        return data


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name, without their contents.

    The size of every tensor matches its type and shape, all its bytes are in the file, and no tensors overlap.

    Raises:
        UnusableModel: the file cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or length > min(_MAX_HEADER_LENGTH, size - _LENGTH_BYTES):
                _refuse(path, f"its header would take {length} bytes, of {size} in the file")
            text = file.read(length)
    except OSError as error:
        raise UnusableModel(f"{path}: It cannot be read: {error.strerror}. Check the path.") from error
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its header is not JSON ({error})")
    if not isinstance(header, dict):
        _refuse(path, "its header is not a JSON object")
    header.pop(_METADATA, None)
    start = _LENGTH_BYTES + length
    tensors = {name: _tensor(path, name, entry, start, size) for name, entry in header.items()}
    _check_overlaps(path, tensors)
    return tensors


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, value in pairs:
        if name in names:
            raise ValueError(f"{name!r} is there twice")
        names[name] = value
    return names


def _tensor(path: Path, name: str, entry: Any, start: int, file_size: int) -> StoredTensor:
    if not isinstance(entry, dict):
        _refuse(path, f"{name!r} is not described")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        _refuse(path, f"{name!r} is of the unknown type {dtype!r}")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        _refuse(path, f"{name!r} has no shape that a tensor can have")
    if not _are_counts(offsets) or len(offsets) != 2:
        _refuse(path, f"{name!r} has no place in the file")
    begin, end = offsets
    if not begin <= end <= file_size - start:
        _refuse(path, f"{name!r} lies at {begin} to {end}, but there are {file_size - start} bytes of data")
    needed = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != needed:
        _refuse(path, f"{name!r} has {end - begin} bytes, but its type and shape need {needed}")
    return StoredTensor(path, name, dtype, tuple(shape), start + begin, needed)


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    """Whether ``value`` is a list of integers that are valid sizes."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_overlaps(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    end, before = 0, ""
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.size_bytes)):
        if tensor.offset < end and tensor.size_bytes:
            _refuse(path, f"{before!r} and {tensor.name!r} share bytes")
        if tensor.size_bytes:
            end, before = tensor.offset + tensor.size_bytes, tensor.name


def _refuse(path: Path, problem: str) -> NoReturn:
    raise UnusableModel(f"{path}: This safetensors file is damaged: {problem}. Download it again.")

"""Reads safetensors by memory map and writes them tensor by tensor, so that files may be larger than memory.

The format is eight bytes with the header's length, a JSON header, and the data.
Source: README of huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelyard.converter.protocol import Refused

ITEM_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip

FLOATS: Final = ("F16", "BF16", "F32")

# Limit of the safetensors library for the length of a header.
_MAX_HEADER_LENGTH: Final = 100_000_000
_ALIGNMENT: Final = 8
# Maximum size of a header entry beside the tensor's name: type, four dimensions and two offsets of 20 digits.
_MAX_ENTRY_BYTES: Final = 192


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor in a file. ``data`` is a memory map of its bytes, which are read when they are accessed."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def rows(self, begin: int, end: int) -> NDArray[np.float32]:
        """Return rows of a matrix of floating-point numbers, in the shape [end - begin, columns]."""
        width = self.shape[-1] * ITEM_BYTES[self.dtype]
        raw = self.data[begin * width : end * width]
        return as_float32(raw, self.dtype).reshape(end - begin, self.shape[-1])


def as_float32(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """Decode bytes of one of the types FLOATS. Returns a flat array."""
    # Copied, because a view of another type needs aligned bytes, which a file does not guarantee.
    raw = np.array(raw, copy=True)
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view("<f2" if dtype == "F16" else "<f4").astype(np.float32, copy=False)


def to_bytes(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    """Encode numbers in one of the types FLOATS, rounding to the nearest even. Returns a flat array."""
    values = np.ascontiguousarray(values, np.float32).ravel()
    if dtype == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").view(np.uint8)
    return values.astype("<f2" if dtype == "F16" else "<f4").view(np.uint8)


def read_tensors(path: Path) -> list[MappedTensor]:
    """Return all tensors of a file, mapped into memory.

    Raises:
        Refused: the file cannot be read, or is damaged.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
        length = int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        return [_tensor(name, entry, data[8 + length :]) for name, entry in header.items()]
    except OSError as error:
        raise Refused(f"{path}: The weights cannot be read: {error.strerror}. Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path}: This is no safetensors file, or it is damaged: {error}. Download it again.") from error


def _tensor(name: str, entry: Any, data: NDArray[np.uint8]) -> MappedTensor:
    begin, end = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    if not 0 <= begin <= end <= len(data) or end - begin != prod(shape) * ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"the tensor '{name}' has not the bytes that its header says")
    return MappedTensor(name, entry["dtype"], shape, data[begin:end])


class SafetensorsWriter:
    """Writes a file of tensors that are added one after the other, without knowing their sizes before.

    Space for the header is reserved at the beginning and padded with blanks, which the format allows.

    Args:
        path: path of the file.
        names: the names of all tensors, and possibly others; the reserved space depends on them.
        metadata: metadata of the header.
    """

    def __init__(self, path: Path, names: Iterable[str], metadata: Mapping[str, str]) -> None:
        self._header: dict[str, Any] = {"__metadata__": dict(metadata)}
        room = sum(len(json.dumps(name)) + _MAX_ENTRY_BYTES for name in names) + len(json.dumps(self._header))
        self._room = -(-room // _ALIGNMENT) * _ALIGNMENT
        if self._room > _MAX_HEADER_LENGTH:
            raise Refused(f"The model has too many tensors for one safetensors file: {len(list(names))}.")
        self.size_bytes = 0
        self._file = path.open("wb")
        self._file.seek(8 + self._room)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._file.close()

    def add(self, name: str, dtype: str, shape: Sequence[int], data: NDArray[np.uint8]) -> None:
        """Append a tensor with the bytes ``data``."""
        assert data.nbytes == prod(shape) * ITEM_BYTES[dtype], name
        begin = self.size_bytes
        self._file.write(np.ascontiguousarray(data).data)
        self.size_bytes += data.nbytes
        self._header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, self.size_bytes]}

    def _finish(self) -> None:
        text = json.dumps(self._header, separators=(",", ":")).encode()
        assert len(text) <= self._room
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + text.ljust(self._room))

"""Reads importance matrices: the importance of each column of a weight, measured on text by ``llama-imatrix``.

Source: llama.cpp, tools/quantize/quantize.cpp, load_imatrix and load_legacy_imatrix; struct
llama_model_imatrix_data in include/llama.h.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelyard.converter.protocol import Refused
from modelyard.hub.sources.llama_converter import INSTALL
from modelyard.llama_binding import lib

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_ENTRIES: Final = 100_000
_MAX_NAME_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Importance:
    """An importance matrix for llama.cpp: an array that ends with an empty entry, and the buffers it points into."""

    entries: Any
    buffers: tuple[Any, ...]


def read_imatrix(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Importance:
    """Read the importance matrix in a file for llama.cpp's quantiser, and check it against the tensors' ``shapes``.

    Raises:
        Refused: see read_importance; or the matrix was measured on another model.
    """
    weights = read_importance(path)
    if not weights.keys() & shapes.keys():
        raise Refused(f"{path}: This is the importance matrix of another model: it names none of these weights.")
    for name in weights.keys() & shapes.keys():
        columns, *more = shapes[name]
        if weights[name].size != columns * math.prod(more[1:]):
            raise Refused(
                f"{path}: This is the importance matrix of another model: it has {weights[name].size} columns for "
                f"{name}, which has {columns * math.prod(more[1:])}."
            )
    entries = (lib.llama_model_imatrix_data * (len(weights) + 1))()
    buffers: list[Any] = []
    for entry, (name, values) in zip(entries, weights.items(), strict=False):
        text = ctypes.create_string_buffer(name.encode())
        row = np.ascontiguousarray(values, np.float32)
        buffers += [text, row]
        entry.name = ctypes.cast(text, ctypes.c_char_p)
        entry.data = row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = row.size
    return Importance(entries, tuple(buffers))


def read_importance(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read an importance matrix in GGUF or in the older format, as importances of columns by the weight's GGUF name.

    Raises:
        Refused: the file is not an importance matrix, or is damaged.
    """
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        weights = _read_gguf(path) if is_gguf else _read_legacy(path)
    except OSError as error:
        raise Refused(f"{path}: The importance matrix cannot be read: {error.strerror}. Check the path.") from error
    except (ValueError, struct.error, IndexError, KeyError) as error:
        raise Refused(f"{path}: This is no importance matrix, or it is damaged: {error}.") from error
    if not weights:
        raise Refused(f"{path}: The importance matrix is empty. Make it anew with llama-imatrix.")
    for name, values in weights.items():
        # llama.cpp divides by the sum of a block's importances, and aborts if it finds no scale for the block.
        if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
            raise Refused(
                f"{path}: The importance of {name} is not a number, negative, or nothing at all. Make the importance "
                "matrix anew with llama-imatrix, on more text."
            )
    return weights


def _read_gguf(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise Refused(
            f"{path}: To read an importance matrix in GGUF, the converter has to be installed: {INSTALL}."
        ) from error

    tensors = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    weights = {}
    for name, sums in tensors.items():
        if not name.endswith(_SUMS):
            continue
        weight = name.removesuffix(_SUMS)
        counts = np.asarray(tensors[weight + _COUNTS], np.float32).reshape(-1, 1)
        # One row per expert; an expert that no text activated gets the importance 1 for all columns.
        rows = np.asarray(sums, np.float32).reshape(len(counts), -1)
        weights[weight] = np.where(counts > 0, rows / np.maximum(counts, 1), 1.0).astype(np.float32).ravel()
    return weights


def _read_legacy(path: Path) -> dict[str, NDArray[np.float32]]:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<i", data)
    if not 1 <= count <= _MAX_ENTRIES:
        raise ValueError(f"it begins with a number of {count} entries")
    offset, weights = 4, {}
    for _ in range(count):
        (length,) = struct.unpack_from("<i", data, offset)
        if not 1 <= length <= _MAX_NAME_LENGTH:
            raise ValueError(f"a name of {length} bytes at {offset}")
        name = data[offset + 4 : offset + 4 + length].decode()
        calls, size = struct.unpack_from("<ii", data, offset + 4 + length)
        offset += 12 + length
        values = np.frombuffer(data, "<f4", size, offset)
        weights[name] = values / calls if calls > 0 else values
        offset += 4 * size
    return weights

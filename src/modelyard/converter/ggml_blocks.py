"""Encodes rows of weights as GGML blocks, with llama.cpp's quantiser, or in numpy for types that it does not encode.

Source: ggml/include/ggml.h, ggml_quantize_chunk; ggml/src/ggml-common.h, block_q8_1 and block_q8_K.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelyard.formats.gguf.constants import TENSOR_TYPES
from modelyard.llama_binding import ggml

NUMBERS: Final = {kind.name: number for number, kind in TENSOR_TYPES.items()}

# Looked up by index, which yields a new function object, so that its types are not shared with other modules.
_quantize_chunk: Final = ggml["ggml_quantize_chunk"]
_quantize_chunk.restype = ctypes.c_size_t
_quantize_chunk.argtypes = [
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    *[ctypes.c_int64] * 3,
    ctypes.c_void_p,
]

_Q8_1_BLOCK: Final = np.dtype([("d", "<f2"), ("s", "<f2"), ("q", "i1", 32)])
_Q8_K_BLOCK: Final = np.dtype([("d", "<f4"), ("q", "i1", 256), ("sums", "<i2", 16)])


def encode_rows(
    rows: NDArray[np.float32], ggml_type: str, importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Encode rows as blocks of a GGML type.

    Args:
        rows: shape [rows, columns]; the columns are whole blocks.
        ggml_type: name of the type, such as "Q4_K".
        importance: importance of each column, which k-quants use; None if it was not measured.

    Returns:
        The bytes, in the shape [rows, bytes per row].
    """
    rows = np.ascontiguousarray(rows, np.float32)
    if ggml_type == "Q8_1":
        return _q8_1(rows)
    if ggml_type == "Q8_K":
        return _q8_k(rows)
    kind = TENSOR_TYPES[NUMBERS[ggml_type]]
    out = np.empty((len(rows), rows.shape[1] // kind.block_elements * kind.block_bytes), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    written = _quantize_chunk(
        NUMBERS[ggml_type],
        rows.ctypes.data,
        out.ctypes.data,
        0,
        *rows.shape,
        None if weights is None else weights.ctypes.data,
    )
    assert written == out.nbytes
    return out


def _q8_1(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode as Q8_1: per block a scale and the block's sum in half precision, then 32 integers of 8 bits."""
    blocks = rows.reshape(-1, 32)
    scale = np.abs(blocks).max(1) / 127
    out = np.zeros(len(blocks), _Q8_1_BLOCK)
    out["q"] = np.rint(blocks * _inverse(scale)[:, None])
    out["d"] = scale
    out["s"] = scale * out["q"].sum(1, dtype=np.int32)
    return out.view(np.uint8).reshape(len(rows), -1)


def _q8_k(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode as Q8_K: per block a scale, 256 integers of 8 bits, and the sum of each 16 of them.

    The number that is farthest from zero becomes -127, as in llama.cpp.
    """
    blocks = rows.reshape(-1, 256)
    farthest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)[:, 0]
    scale = farthest / np.float32(-127)
    out = np.zeros(len(blocks), _Q8_K_BLOCK)
    out["q"] = np.minimum(np.rint(blocks * _inverse(scale)[:, None]), 127)
    out["d"] = scale
    out["sums"] = out["q"].reshape(-1, 16, 16).sum(2, dtype=np.int16)
    return out.view(np.uint8).reshape(len(rows), -1)


def _inverse(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1/scale, and 0 for a scale of 0."""
    inverse: NDArray[np.float32] = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    return inverse

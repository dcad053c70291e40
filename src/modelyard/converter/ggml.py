"""llama.cpp's own quantisers, on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Final

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize as quantize_simply
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from modelyard.converter.protocol import Refused

_Q: Final = GGMLQuantizationType

# What llama.cpp takes for rows that are no whole blocks of a type. Source: src/llama-quant.cpp, tensor_type_fallback.
_FALLBACKS: Final[Mapping[GGMLQuantizationType, GGMLQuantizationType]] = {
    _Q.Q2_K: _Q.IQ4_NL,
    _Q.Q3_K: _Q.IQ4_NL,
    _Q.Q4_K: _Q.Q5_0,
    _Q.Q5_K: _Q.Q5_1,
    _Q.Q6_K: _Q.Q8_0,
}

_quantize_chunk: Final = libggml.ggml_quantize_chunk
_quantize_chunk.restype = ctypes.c_size_t
_quantize_chunk.argtypes = [
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
]


def fitting(kind: GGMLQuantizationType, row: int) -> GGMLQuantizationType:
    """The type itself, or what llama.cpp takes instead for rows of ``row`` weights that are no whole blocks of it."""
    while row % GGML_QUANT_SIZES[kind][0]:
        kind = _FALLBACKS.get(kind, _Q.F16)
    return kind


def quantize(values: NDArray[np.float32], kind: GGMLQuantizationType) -> NDArray[np.uint8]:
    """Blocks of the type, in the shape [..., bytes of a row], of weights whose rows are whole blocks.

    Raises:
        Refused: a weight is not a finite number.
    """
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        raise Refused("Some weights are not finite numbers: the file is damaged. Download it again.")
    row = values.shape[-1]
    block, size = GGML_QUANT_SIZES[kind]
    blocks = np.empty((*values.shape[:-1], row // block * size), np.uint8)
    if block == 1:
        blocks[...] = quantize_simply(values, kind).view(np.uint8).reshape(blocks.shape)
        return blocks
    written = _quantize_chunk(int(kind), values.ctypes.data, blocks.ctypes.data, 0, values.size // row, row, None)
    assert written == blocks.nbytes
    return blocks

"""Encodes rows of weights in the families of UQFF.

Every family but HQQ is encoded row by row, so that a layer can be encoded in pieces that are joined along the first
axis.

Source: mistral.rs, mistralrs-quant/src/{afq,hqq,fp8,f8q8,mxfp4} for the layouts; MLX, mlx/backend/cpu/quantized.cpp,
for the arithmetic of AFQ; the OCP specifications of FP8 and of microscaling for the numbers of 4 and 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelyard.converter.safetensors_file import as_float32, to_bytes

GROUP: Final = 64  # weights in a group of AFQ and HQQ
F8_MAX: Final = 448.0

# Values of the codes 0 to 7 of 4-bit floats; 8 to 15 are their negatives.
FP4_VALUES: Final = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_FP4_BOUNDS: Final = (FP4_VALUES[1:] + FP4_VALUES[:-1]) / 2

_MIN_SCALE: Final = np.float32(1e-7)


def _e4m3_values() -> NDArray[np.float32]:
    """Return the values of the codes 0 to 126 of E4M3; 127 is NaN, and the highest bit is the sign."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return np.where(exponent == 0, mantissa * 2.0**-9, normal).astype(np.float32)


E4M3_VALUES: Final = _e4m3_values()


def to_e4m3(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round to the nearest E4M3 numbers, ties to the even code; numbers that are too large become the largest."""
    size = np.minimum(np.abs(values), np.float32(F8_MAX))
    # The distance of numbers is constant below the smallest normal number.
    exponent = np.maximum(np.frexp(np.maximum(size, E4M3_VALUES[1]))[1] - 1, -6)
    steps = np.rint(np.ldexp(size, 3 - exponent)).astype(np.int32)
    code = (exponent + 6) * 8 + steps
    codes: NDArray[np.uint8] = (code | np.where(np.signbit(values), 0x80, 0)).astype(np.uint8)
    return codes


def fp8(rows: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """Return the rows, divided by ``scale``, in E4M3. The shape is that of ``rows``."""
    return to_e4m3(rows / np.float32(scale))


def f8q8(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode blocks of a scale in E4M3 and 32 integers of 8 bits. Shape [rows, columns / 32 * 33].

    The scale is rounded first, upwards so that the largest number fits, and the integers are fitted to the rounded
    scale, so that its rounding costs no accuracy.
    """
    blocks = rows.reshape(-1, 32)
    exact = np.abs(blocks).max(1) / 127 * np.float32(F8_MAX)
    code = np.searchsorted(E4M3_VALUES, np.minimum(exact, F8_MAX), side="left").astype(np.uint8)
    scale = E4M3_VALUES[code] / np.float32(F8_MAX)
    numbers = np.divide(blocks, scale[:, None], out=np.zeros_like(blocks), where=scale[:, None] != 0)
    out = np.empty((len(blocks), 33), np.uint8)
    out[:, 0] = code
    out[:, 1:] = np.clip(np.rint(numbers), -127, 127).astype(np.int8).view(np.uint8)
    return out.reshape(len(rows), -1)


def mxfp4(rows: NDArray[np.float32]) -> Mapping[str, NDArray[np.uint8]]:
    """Encode blocks of 32 numbers of 4 bits with a power of two: "" [rows, columns / 2], "scales" [rows, columns / 32].

    The power is one of the two between which the largest number would use all codes: the one with the smaller squared
    error.
    """
    blocks = rows.reshape(-1, 32)
    largest = np.abs(blocks).max(1)
    above = np.ceil(np.log2(np.maximum(largest, 2.0**-120) / 6)).astype(np.int32)
    candidates = [_mxfp4_blocks(blocks, exponent) for exponent in (above, above - 1)]
    is_second = candidates[1][1] < candidates[0][1]
    codes = np.where(is_second[:, None], candidates[1][0], candidates[0][0])
    exponent = np.clip(above - is_second + 127, 0, 254)
    packed = codes[:, ::2] | (codes[:, 1::2] << 4)
    return {
        "": packed.reshape(len(rows), -1),
        "scales": exponent.astype(np.uint8).reshape(len(rows), -1),
    }


def _mxfp4_blocks(
    blocks: NDArray[np.float32], exponent: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the codes, and the squared error of each block."""
    scale = np.ldexp(np.float32(1), np.clip(exponent, -127, 127))[:, None]
    scaled = blocks / scale
    codes = np.searchsorted(_FP4_BOUNDS, np.abs(scaled), side="right").astype(np.uint8)
    signs = np.signbit(scaled)
    error = (np.abs(scaled) - FP4_VALUES[codes]) * scale
    return (codes | (signs.astype(np.uint8) << 3)).astype(np.uint8), np.square(error).sum(1, dtype=np.float32)


def afq(rows: NDArray[np.float32], bits: int, dtype: str) -> Mapping[str, NDArray[np.uint32] | NDArray[np.float32]]:
    """Encode affine groups of 64: "" [rows, columns * bits / 32], "scales" and "biases" [rows, columns / 64].

    A weight is bias + code * scale. Zero and the group's extreme that is farther from zero are represented exactly.
    The codes are fitted to scales and biases that are rounded to ``dtype``.
    """
    groups = rows.reshape(-1, GROUP)
    low, high = groups.min(1), groups.max(1)
    max_code = np.float32(2**bits - 1)
    is_low = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / max_code, _MIN_SCALE)
    scale = np.where(is_low, scale, -scale)
    edge = np.where(is_low, low, high)
    steps = np.rint(edge / scale)
    scale = np.divide(edge, steps, out=scale, where=steps != 0)
    scale, bias = _rounded(scale, dtype), _rounded(np.where(steps != 0, edge, 0), dtype)
    codes = np.clip(np.rint((groups - bias[:, None]) / scale[:, None]), 0, max_code).astype(np.uint32)
    shape = (len(rows), -1)
    return {
        "": pack(codes.reshape(len(rows), -1), bits),
        "scales": scale.reshape(shape),
        "biases": bias.reshape(shape),
    }


def pack(codes: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """Pack each row of codes into a little-endian stream of bits, in whole words. Shape [rows, columns * bits / 32]."""
    stream = (codes[..., None] >> np.arange(bits, dtype=np.uint32)) & 1
    as_bytes = np.packbits(stream.astype(np.uint8).reshape(len(codes), -1), axis=1, bitorder="little")
    return as_bytes.view("<u4")


def hqq(columns: NDArray[np.float32], bits: int, dtype: str) -> Mapping[str, NDArray[np.uint8] | NDArray[np.float32]]:
    """Encode by half-quadratic quantisation without its optimiser; each column is a group.

    Args:
        columns: shape [64, groups]: the weights of a layer in this shape, or some of its columns.
        bits: 4 or 8.
        dtype: type that scales and zeros are rounded to before the codes are fitted.

    Returns:
        "" [64, groups], with 4 bits [32, groups]; "scales" and "zeros" [1, groups]. A weight is (code - zero) * scale.
    """
    low, high = columns.min(0, keepdims=True), columns.max(0, keepdims=True)
    max_code = np.float32(2**bits - 1)
    # For a group of equal numbers, the zero represents the number at this scale.
    scale = np.where(high - low > _MIN_SCALE, (high - low) / max_code, np.maximum(np.abs(low), 1))
    scale = _rounded(scale, dtype)
    zero = _rounded(-low / scale, dtype)
    codes = np.clip(np.rint(columns / scale + zero), 0, max_code).astype(np.uint8)
    if bits == 4:
        half = len(codes) // 2
        codes = (codes[:half] << 4) | codes[half:]
    return {"": codes, "scales": scale, "zeros": zero}


def _rounded(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    return as_float32(to_bytes(values, dtype), dtype).reshape(values.shape)

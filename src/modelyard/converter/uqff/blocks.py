"""Decodes layers of UQFF: to numbers, and to blocks of GGUF with the same codes.

Source: mistral.rs, mistralrs-quant/src/{hqq,fp8,afq,f8q8,mxfp4}; llama.cpp, ggml/src/ggml-common.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize as dequantize_ggml
from numpy.typing import NDArray

from modelyard.converter.protocol import Refused
from modelyard.formats.safetensors import StoredTensor
from modelyard.formats.uqff import constants as form
from modelyard.formats.uqff.constants import Family
from modelyard.formats.uqff.reader import UqffLayer

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Codes = NDArray[np.int8]

_DTYPES: Final = {"U8": "u1", "U32": "<u4", "F8_E4M3": "u1", "F16": "<f2", "BF16": "<u2", "F32": "<f4"}
_Q8_0_BLOCK: Final = 32
_Q8_K_BLOCK: Final = 256


def dequantize(layer: UqffLayer) -> Floats:
    """Return the weights of a layer in its shape, in single precision, exactly as the layer's family defines them.

    Raises:
        Refused: the file became shorter after its header was read.
    """
    return _DEQUANTIZERS[layer.family](layer)


def block_type(layer: UqffLayer) -> Type | None:
    """Return the GGUF type that can hold the codes of the layer; None if it must be quantised again.

    Layers of GGML types keep their type. AFQ of up to four bits becomes Q4_1 and MXFP4 stays MXFP4, with equal codes
    and scales. F8Q8, Q8_1 and Q8_K become Q8_0, with equal codes and scales rounded to half precision, unless rows are
    not whole blocks or scales exceed half precision.
    """
    match layer.stored:
        case "afq2" | "afq3" | "afq4":
            return Type.Q4_1 if all(_fit_half(scales) for scales in _afq_scales(layer)) else None
        case "mxfp4":
            return Type.MXFP4
        case "Q8_1" | "Q8_K" | "f8q8":
            fits = layer.shape[-1] % _Q8_0_BLOCK == 0 and _fit_half(_of_eight_bits(layer)[0])
            return Type.Q8_0 if fits else None
        case _:
            return Type[layer.stored] if layer.family in (Family.GGUF, Family.UNQUANT) else None


def blocks(layer: UqffLayer) -> Bytes:
    """Return the weights as blocks of ``block_type(layer)``, which is not None. Shape [..., out, bytes per row].

    Raises:
        Refused: the file became shorter after its header was read.
    """
    match layer.stored:
        case "afq2" | "afq3" | "afq4":
            return _afq_as_q4_1(layer)
        case "mxfp4":
            return _mxfp4_as_mxfp4(layer)
        case "Q8_1" | "Q8_K" | "f8q8":
            return _as_q8_0(layer, *_of_eight_bits(layer))
        case _:
            return _raw_rows(layer)


def _array(tensor: StoredTensor) -> NDArray[np.generic]:
    """Return a memory map of a stored tensor."""
    try:
        return np.memmap(tensor.path, _DTYPES[tensor.dtype], "r", tensor.offset, tensor.shape)
    except (OSError, ValueError) as error:
        raise Refused(f"{tensor.path}: It has changed while it was read: {error}. Try again.") from error


def floats(tensor: StoredTensor) -> Floats:
    """Return a stored tensor of a floating-point type in single precision."""
    stored = _array(tensor)
    if tensor.dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def _raw_rows(layer: UqffLayer) -> Bytes:
    tensor = layer.parts[""]
    stored = np.memmap(tensor.path, np.uint8, "r", tensor.offset, (tensor.size_bytes,))
    return stored.reshape(*layer.shape[:-1], -1)


def _dequantize_gguf(layer: UqffLayer) -> Floats:
    if layer.stored in _EIGHT_BITS:
        return _dequantize_eight_bits(layer)
    values: Floats = dequantize_ggml(_raw_rows(layer), Type[layer.stored]).astype(np.float32, copy=False)
    return values.reshape(layer.shape)


def _dequantize_eight_bits(layer: UqffLayer) -> Floats:
    scales, codes = _of_eight_bits(layer)
    # The last block of F8Q8 may be longer than the weights.
    return (scales[:, None] * codes).reshape(-1)[: math.prod(layer.shape)].reshape(layer.shape)


def _dequantize_unquant(layer: UqffLayer) -> Floats:
    return floats(layer.parts[""])


def _dequantize_hqq(layer: UqffLayer) -> Floats:
    elements = math.prod(layer.shape)
    rows = layer.group_size if layer.axis == 0 else elements // layer.group_size
    # The rows of the code matrix are split into equal parts; a byte has one code of each, the first part's in its top
    # bits.
    packed = _array(layer.parts[""]).astype(np.uint8).reshape(-1, elements // rows)
    mask = (1 << layer.bits) - 1
    codes = np.concatenate([packed >> shift & mask for shift in range(8 - layer.bits, -1, -layer.bits)])
    across = (1, -1) if layer.axis == 0 else (-1, 1)
    scales, zeros = (floats(layer.parts[suffix]).reshape(across) for suffix in (form.SCALES, form.ZEROS))
    return ((codes.astype(np.float32) - zeros) * scales).reshape(layer.shape)


def _dequantize_fp8(layer: UqffLayer) -> Floats:
    scale = floats(layer.parts[form.DEQUANT_W_SCALE]).reshape(())
    return _E4M3[_array(layer.parts[""]).astype(np.uint8)] * scale


def _dequantize_afq(layer: UqffLayer) -> Floats:
    codes = _afq_codes(layer).reshape(*layer.shape[:-1], -1, layer.group_size)
    scales, biases = _afq_scales(layer)
    return (biases[..., None] + codes * scales[..., None]).reshape(layer.shape)


def _dequantize_mxfp4(layer: UqffLayer) -> Floats:
    codes = _mxfp4_codes(layer).reshape(*layer.shape[:-1], -1, form.MXFP4_BLOCK)
    exponents = _array(layer.parts[form.SCALES]).astype(np.int32) - 127
    return np.ldexp(_FP4[codes], exponents[..., None]).reshape(layer.shape)


def _mxfp4_codes(layer: UqffLayer) -> Bytes:
    packed = _array(layer.parts[""]).astype(np.uint8)
    return np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(layer.shape)


def _afq_codes(layer: UqffLayer) -> Bytes:
    """Return the codes of AFQ, one per weight: each row is a stream of bits in words, lowest bits first."""
    words = _array(layer.parts[""]).astype(np.uint32)
    first = np.arange(layer.shape[-1]) * layer.bits
    word, shift = first // 32, (first % 32).astype(np.uint32)
    codes = words[..., word] >> shift
    straddles = np.flatnonzero(shift + layer.bits > 32)
    codes[..., straddles] |= words[..., word[straddles] + 1] << (np.uint32(32) - shift[straddles])
    return (codes & np.uint32((1 << layer.bits) - 1)).astype(np.uint8)


def _afq_scales(layer: UqffLayer) -> tuple[Floats, Floats]:
    return floats(layer.parts[form.SCALES]), floats(layer.parts[form.BIASES])


def _fit_half(values: Floats) -> bool:
    return bool((np.abs(values) <= np.finfo(np.float16).max).all())


def _afq_as_q4_1(layer: UqffLayer) -> Bytes:
    half = [np.repeat(values.astype("<f2"), layer.group_size // 32, axis=-1) for values in _afq_scales(layer)]
    return _rows(layer, np.stack(half, axis=-1).view(np.uint8), _nibbles(_afq_codes(layer)))


def _mxfp4_as_mxfp4(layer: UqffLayer) -> Bytes:
    exponents = _array(layer.parts[form.SCALES]).astype(np.uint8)[..., None]
    return _rows(layer, exponents, _nibbles(_mxfp4_codes(layer)))


def _nibbles(codes: Bytes) -> Bytes:
    """Pack codes of four bits in blocks of 32: the low bits of a byte are of the first half, the high of the second."""
    halves = codes.reshape(*codes.shape[:-1], -1, 2, 16)
    packed: Bytes = halves[..., 0, :] | np.left_shift(halves[..., 1, :], np.uint8(4))
    return packed


def _as_q8_0(layer: UqffLayer, scales: Floats, codes: Codes) -> Bytes:
    repeated = np.repeat(scales.astype("<f2"), codes.shape[-1] // _Q8_0_BLOCK)
    return _rows(layer, repeated[:, None].view(np.uint8), codes.reshape(-1, _Q8_0_BLOCK).view(np.uint8))


def _rows(layer: UqffLayer, *fields: Bytes) -> Bytes:
    """Return rows of blocks that consist of those fields in that order."""
    return np.concatenate(fields, axis=-1).reshape(*layer.shape[:-1], -1)


def _of_eight_bits(layer: UqffLayer) -> tuple[Floats, Codes]:
    """Return the scales of the blocks, and the codes of each block."""
    return _EIGHT_BITS[layer.stored](np.ascontiguousarray(_array(layer.parts[""])).view(np.uint8))


def _f8q8(stored: Bytes) -> tuple[Floats, Codes]:
    blocks = stored.reshape(-1, form.F8Q8_BLOCK_BYTES)
    return _E4M3[blocks[:, 0]] / _E4M3_LARGEST, _signed(blocks[:, 1:])


def _q8_1(stored: Bytes) -> tuple[Floats, Codes]:
    # A block holds the scale, the sum of its codes times the scale, and the codes.
    blocks = stored.reshape(-1, 4 + _Q8_0_BLOCK)
    return np.ascontiguousarray(blocks[:, :2]).view("<f2")[:, 0].astype(np.float32), _signed(blocks[:, 4:])


def _q8_k(stored: Bytes) -> tuple[Floats, Codes]:
    # A block holds the scale in single precision, the codes, and the sum of each 16 codes.
    blocks = stored.reshape(-1, 4 + _Q8_K_BLOCK + 32)
    return np.ascontiguousarray(blocks[:, :4]).view("<f4")[:, 0], _signed(blocks[:, 4 : 4 + _Q8_K_BLOCK])


def _signed(codes: Bytes) -> Codes:
    return np.ascontiguousarray(codes).view(np.int8)


def _e4m3() -> Floats:
    """Return the values of E4M3 by byte: one sign bit, four bits of exponent, three of mantissa; 0x7F is NaN."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    magnitude = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(8 + mantissa, exponent - 10))
    magnitude[(code & 0x7F) == 0x7F] = np.nan
    values: Floats = np.where(code < 128, magnitude, -magnitude).astype(np.float32)
    return values


_E4M3: Final = _e4m3()
_E4M3_LARGEST: Final = np.float32(448)
_FP4: Final = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)

_DEQUANTIZERS: Final[Mapping[Family, Callable[[UqffLayer], Floats]]] = {
    Family.GGUF: _dequantize_gguf,
    Family.UNQUANT: _dequantize_unquant,
    Family.HQQ: _dequantize_hqq,
    Family.FP8: _dequantize_fp8,
    Family.AFQ: _dequantize_afq,
    Family.F8Q8: _dequantize_eight_bits,
    Family.MXFP4: _dequantize_mxfp4,
}

_EIGHT_BITS: Final[Mapping[str, Callable[[Bytes], tuple[Floats, Codes]]]] = {
    "f8q8": _f8q8,
    "Q8_1": _q8_1,
    "Q8_K": _q8_k,
}

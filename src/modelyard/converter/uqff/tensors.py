"""Encodes a layer as the tensors of a UQFF file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from modelyard.converter import ggml_blocks
from modelyard.converter.protocol import Refused
from modelyard.converter.safetensors_file import FLOATS, ITEM_BYTES, MappedTensor, as_float32, to_bytes
from modelyard.converter.uqff import encode as uqff_encode
from modelyard.converter.uqff.layers import UNQUANTIZED, Layer, ggml_type
from modelyard.formats.uqff import constants as names
from modelyard.formats.uqff.constants import Family

# Weights that each thread encodes at once; numpy's intermediate arrays take about ten times as much memory.
_PIECE_ELEMENTS: Final = 2**21

T = TypeVar("T")
P = TypeVar("P")

Rows = NDArray[np.float32]
Encoded = Mapping[str, NDArray[np.generic]]
"""The output of an encoder for some rows: arrays by the suffix of their names after ".weight"; "" for the codes."""


@dataclass(frozen=True, slots=True)
class UqffTensor:
    """A tensor to be written, with its bytes in ``data``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def layer_tensors(
    layer: Layer, stored: str, dtype: str | None, importance: Sequence[NDArray[np.float32] | None]
) -> list[UqffTensor]:
    """Encode a layer.

    Args:
        layer: the layer, whose weights are read piece by piece.
        stored: the type, which fits the layer's shape; see ``layers.choose_stored``.
        dtype: type of scales, offsets, biases and unquantised weights; None: the type of the layer's weights.
        importance: importance of the columns, for each part of the layer; used by k-quants.

    Raises:
        Refused: some weights are not finite.
    """
    dtype = dtype or layer.parts[0].dtype
    tensors = _Tensors(layer.prefix)
    label = ggml_type(stored)
    if label is not None:
        _ggml(tensors, layer, label, importance)
    elif stored == UNQUANTIZED:
        _unquantized(tensors, layer, dtype)
    elif stored.startswith("afq"):
        _afq(tensors, layer, int(stored[3:]), dtype)
    elif stored.startswith("hqq"):
        _hqq(tensors, layer, int(stored[3:]), dtype)
    elif stored == "fp8":
        _fp8(tensors, layer)
    elif stored == "f8q8":
        _f8q8(tensors, layer)
    else:
        assert stored == "mxfp4", stored
        _mxfp4(tensors, layer)
    if layer.bias is not None:
        bias_dtype = dtype if layer.bias.dtype in FLOATS else layer.bias.dtype
        tensors.raw(names.BIAS, bias_dtype, layer.bias.shape, as_dtype(layer.bias, dtype))
    return tensors.made


def version_tensors() -> list[UqffTensor]:
    """Return the tensors that contain the version of the format."""
    return [
        UqffTensor(key, "U32", (), np.array([number], "<u4").view(np.uint8))
        for key, number in zip(names.VERSION_KEYS, names.VERSION, strict=True)
    ]


def as_dtype(tensor: MappedTensor, dtype: str | None) -> NDArray[np.uint8]:
    """Return the bytes of a tensor, converted to ``dtype`` if both types are floating-point numbers and differ."""
    if dtype in (None, tensor.dtype) or tensor.dtype not in FLOATS:
        return tensor.data
    return to_bytes(as_float32(tensor.data, tensor.dtype), dtype)


class _Tensors:
    """Collects the tensors of one layer."""

    def __init__(self, prefix: str) -> None:
        self.made: list[UqffTensor] = []
        self._prefix = prefix

    def add(self, suffix: str, dtype: str, shape: tuple[int, ...], values: NDArray[np.generic]) -> None:
        """Add a tensor named ``suffix`` after ".weight".

        ``shape`` may contain -1, which is inferred. Values are rounded to ``dtype`` if it is one of FLOATS.
        """
        sized = values.reshape(shape).shape
        is_float = dtype in FLOATS and values.dtype == np.float32
        raw = to_bytes(values.astype(np.float32, copy=False), dtype) if is_float else _bytes_of(values)
        self.raw(names.WEIGHT + suffix, dtype, sized, raw)

    def raw(self, suffix: str, dtype: str, shape: tuple[int, ...], data: NDArray[np.uint8]) -> None:
        self.made.append(UqffTensor(self._prefix + suffix, dtype, shape, data))

    def scalar(self, suffix: str, dtype: str, value: float) -> None:
        kinds = {"U8": "u1", "U32": "<u4", "F32": "<f4"}
        self.add(suffix, dtype, (), np.array(value, kinds[dtype]))

    def shape(self, shape: tuple[int, ...]) -> None:
        self.add(names.SHAPE, "U32", (len(shape),), np.array(shape, "<u4"))


def _ggml(tensors: _Tensors, layer: Layer, label: str, importance: Sequence[NDArray[np.float32] | None]) -> None:
    uses_importance = label.endswith("_K") and label != "Q8_K"

    def encode(rows: Rows, part: int) -> Encoded:
        return {"": ggml_blocks.encode_rows(rows, label, importance[part] if uses_importance else None)}

    blocks = _by_rows(layer, encode)[""]
    tensors.scalar(names.FORMAT, "U8", Family.GGUF)
    tensors.add("", "U8", (blocks.size,), blocks)
    tensors.scalar(names.DTYPE, "U32", ggml_blocks.NUMBERS[label])
    tensors.shape(layer.shape)


def _unquantized(tensors: _Tensors, layer: Layer, dtype: str) -> None:
    tensors.scalar(names.FORMAT, "U8", Family.UNQUANT)
    raw = [as_dtype(part, dtype) for part in layer.parts]
    tensors.raw(names.WEIGHT, dtype, layer.shape, np.concatenate(raw))


def _afq(tensors: _Tensors, layer: Layer, bits: int, dtype: str) -> None:
    encoded = _by_rows(layer, lambda rows, _: uqff_encode.afq(rows, bits, dtype))
    tensors.scalar(names.FORMAT, "U8", Family.AFQ)
    tensors.add("", "U32", (*layer.shape[:-1], -1), encoded[""])
    tensors.add(names.SCALES, dtype, (*layer.shape[:-1], -1), encoded["scales"])
    tensors.add(names.BIASES, dtype, (*layer.shape[:-1], -1), encoded["biases"])
    tensors.scalar(names.BITS, "U8", bits)
    tensors.scalar(names.GROUP_SIZE, "U8", uqff_encode.GROUP)


def _f8q8(tensors: _Tensors, layer: Layer) -> None:
    blocks = _by_rows(layer, lambda rows, _: {"": uqff_encode.f8q8(rows)})[""]
    tensors.scalar(names.FORMAT, "U8", Family.F8Q8)
    tensors.add("", "U8", (blocks.size,), blocks)
    tensors.scalar(names.NUM_BLOCKS, "U32", blocks.size // names.F8Q8_BLOCK_BYTES)
    tensors.shape(layer.shape)


def _mxfp4(tensors: _Tensors, layer: Layer) -> None:
    encoded = _by_rows(layer, lambda rows, _: uqff_encode.mxfp4(rows))
    tensors.scalar(names.FORMAT, "U8", Family.MXFP4)
    tensors.add("", "U8", (*layer.shape[:-1], -1), encoded[""])
    tensors.add(names.SCALES, "U8", (*layer.shape[:-1], -1), encoded["scales"])


def _fp8(tensors: _Tensors, layer: Layer) -> None:
    """Encode with one scale for all weights, which maps the largest weight to the largest number of 8 bits."""
    largest = max(piece.max() for piece in _each_piece(layer, lambda rows, _: np.abs(rows).max(initial=0)))
    scale = float(largest) / uqff_encode.F8_MAX or 1.0
    codes = _by_rows(layer, lambda rows, _: {"": uqff_encode.fp8(rows, scale)})[""]
    tensors.scalar(names.FORMAT, "U8", Family.FP8)
    tensors.add("", "F8_E4M3", layer.shape, codes)
    tensors.scalar(names.DEQUANT_W_SCALE, "F32", scale)
    tensors.scalar(names.DEQUANT_X_SCALE, "F32", scale)
    tensors.scalar(names.QUANT_SCALE, "F32", 1 / scale)
    e4m3 = next(code for code, name in names.ACTIVATION_DTYPES.items() if name == "F8_E4M3")
    tensors.scalar(names.DTYPE, "U32", e4m3)


def _hqq(tensors: _Tensors, layer: Layer, bits: int, dtype: str) -> None:
    """Encode the weights, reshaped to 64 rows, with one group per column."""
    (part,) = layer.parts
    raw = part.data.reshape(uqff_encode.GROUP, -1)
    item = ITEM_BYTES[part.dtype]
    at_once = item * max(1, _PIECE_ELEMENTS // uqff_encode.GROUP)

    def encode(begin: int) -> Encoded:
        piece = np.ascontiguousarray(raw[:, begin : begin + at_once])
        columns = as_float32(piece.ravel(), part.dtype).reshape(uqff_encode.GROUP, -1)
        return uqff_encode.hqq(_checked(columns, part.name), bits, dtype)

    pieces = range(0, raw.shape[1], at_once)
    encoded = _joined(_on_threads(encode, pieces), axis=1)
    tensors.scalar(names.FORMAT, "U8", Family.HQQ)
    tensors.add("", "U8", encoded[""].shape, encoded[""])
    tensors.add(names.SCALES, dtype, encoded["scales"].shape, encoded["scales"])
    tensors.add(names.ZEROS, dtype, encoded["zeros"].shape, encoded["zeros"])
    tensors.shape(layer.shape)
    tensors.scalar(names.BITS, "U8", bits)
    tensors.scalar(names.GROUP_SIZE, "U32", uqff_encode.GROUP)
    tensors.scalar(names.AXIS, "U8", 0)
    tensors.scalar(names.OPTIMIZATION_STEPS, "U32", 0)
    tensors.scalar(names.ROUND_ZEROS, "U8", 0)
    tensors.scalar(names.CHANNEL_WISE, "U8", 1)


def _by_rows(layer: Layer, encode: Callable[[Rows, int], Encoded]) -> Encoded:
    return _joined(_each_piece(layer, encode), axis=0)


def _each_piece(layer: Layer, encode: Callable[[Rows, int], T]) -> list[T]:
    """Call ``encode`` with pieces of a layer's rows and the number of their part; return the results in order."""
    at_once = max(1, _PIECE_ELEMENTS // layer.shape[-1])
    pieces = [
        (number, begin, min(begin + at_once, part.shape[0]))
        for number, part in enumerate(layer.parts)
        for begin in range(0, part.shape[0], at_once)
    ]

    def work(piece: tuple[int, int, int]) -> T:
        number, begin, end = piece
        part = layer.parts[number]
        return encode(_checked(part.rows(begin, end), part.name), number)

    return _on_threads(work, pieces)


def _on_threads(work: Callable[[P], T], pieces: Iterable[P]) -> list[T]:
    """Map ``work`` over the pieces on threads; numpy and llama.cpp release the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, pieces))


def _joined(made: Sequence[Encoded], axis: int) -> Encoded:
    return {suffix: np.concatenate([piece[suffix] for piece in made], axis) for suffix in made[0]}


def _checked(values: Rows, name: str) -> Rows:
    # llama.cpp aborts the process on values that are not finite.
    if not np.isfinite(values).all():
        raise Refused(f"The weights '{name}' are not all finite numbers: the checkpoint is damaged. Download it again.")
    return values


def _bytes_of(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)

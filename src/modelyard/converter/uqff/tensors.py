"""A layer as the tensors that a UQFF file has of it."""

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
from modelyard.converter.safetensors_file import FLOATS, ITEM_BYTES, StoredTensor, as_float32, to_bytes
from modelyard.converter.uqff import encode as uqff_encode
from modelyard.converter.uqff.layers import UNQUANTIZED, Layer, ggml_type
from modelyard.formats.uqff import constants as names
from modelyard.formats.uqff.constants import Family

# Of a layer in full precision that is worked on at once, by each thread; what numpy makes on the way is about ten times
# as much.
_PIECE_ELEMENTS: Final = 2**21

T = TypeVar("T")
P = TypeVar("P")

Rows = NDArray[np.float32]
Encoded = Mapping[str, NDArray[np.generic]]
"""What an encoder makes of some rows: arrays by what follows ".weight", "" for the weights themselves."""


@dataclass(frozen=True, slots=True)
class UqffTensor:
    """A tensor to be written. data is its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def layer_tensors(
    layer: Layer, stored: str, dtype: str | None, importance: Sequence[NDArray[np.float32] | None]
) -> list[UqffTensor]:
    """Encode a layer.

    Args:
        layer: whose weights are read piece by piece.
        stored: the type, one that its shape admits; see ``uqff_layers.choose``.
        dtype: of scales, offsets, biases, and of weights that are not quantised; None: as the layer has its weights.
        importance: of the columns, for each part of the layer; heeded by k-quants.

    Raises:
        Refused: some weights are not finite.
    """
    dtype = dtype or layer.parts[0].dtype
    tensors = _Tensors(layer.prefix)
    label = ggml_type(stored)
    if label is not None:
        _ggml(tensors, layer, label, importance)
    elif stored == UNQUANTIZED:
        tensors.scalar(names.FORMAT, "U8", Family.UNQUANT)
        raw = [as_dtype(part, dtype) for part in layer.parts]
        tensors.raw(names.WEIGHT, dtype, layer.shape, np.concatenate(raw))
    elif stored.startswith("afq"):
        bits = int(stored[3:])
        tensors.scalar(names.FORMAT, "U8", Family.AFQ)
        made = _by_rows(layer, lambda rows, _: uqff_encode.afq(rows, bits, dtype))
        tensors.add("", "U32", (*layer.shape[:-1], -1), made[""])
        tensors.add(names.SCALES, dtype, (*layer.shape[:-1], -1), made["scales"])
        tensors.add(names.BIASES, dtype, (*layer.shape[:-1], -1), made["biases"])
        tensors.scalar(names.BITS, "U8", bits)
        tensors.scalar(names.GROUP_SIZE, "U8", uqff_encode.GROUP)
    elif stored.startswith("hqq"):
        _hqq(tensors, layer, int(stored[3:]), dtype)
    elif stored == "fp8":
        _fp8(tensors, layer)
    elif stored == "f8q8":
        tensors.scalar(names.FORMAT, "U8", Family.F8Q8)
        blocks = _by_rows(layer, lambda rows, _: {"": uqff_encode.f8q8(rows)})[""]
        tensors.add("", "U8", (blocks.size,), blocks)
        tensors.scalar(names.NUM_BLOCKS, "U32", blocks.size // names.F8Q8_BLOCK_BYTES)
        tensors.shape(layer.shape)
    else:
        assert stored == "mxfp4", stored
        tensors.scalar(names.FORMAT, "U8", Family.MXFP4)
        made = _by_rows(layer, lambda rows, _: uqff_encode.mxfp4(rows))
        tensors.add("", "U8", (*layer.shape[:-1], -1), made[""])
        tensors.add(names.SCALES, "U8", (*layer.shape[:-1], -1), made["scales"])
    if layer.bias is not None:
        bias_dtype = dtype if layer.bias.dtype in FLOATS else layer.bias.dtype
        tensors.raw(names.BIAS, bias_dtype, layer.bias.shape, as_dtype(layer.bias, dtype))
    return tensors.made


def version_tensors() -> list[UqffTensor]:
    """What says which version of the format a file is of."""
    return [
        UqffTensor(key, "U32", (), np.array([number], "<u4").view(np.uint8))
        for key, number in zip(names.VERSION_KEYS, names.VERSION, strict=True)
    ]


def as_dtype(tensor: StoredTensor, dtype: str | None) -> NDArray[np.uint8]:
    """The bytes of a tensor, in another type of floating-point numbers where it has one and ``dtype`` is another."""
    if dtype in (None, tensor.dtype) or tensor.dtype not in FLOATS:
        return tensor.data
    return to_bytes(as_float32(tensor.data, tensor.dtype), dtype)


class _Tensors:
    """Collects the tensors of one layer."""

    def __init__(self, prefix: str) -> None:
        self.made: list[UqffTensor] = []
        self._prefix = prefix

    def add(self, suffix: str, dtype: str, shape: tuple[int, ...], values: NDArray[np.generic]) -> None:
        """One after ".weight". A size of -1 is what the values make it; of FLOATS the values are rounded to dtype."""
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
    heeds = label.endswith("_K") and label != "Q8_K"

    def encode(rows: Rows, part: int) -> Encoded:
        return {"": ggml_blocks.encode_rows(rows, label, importance[part] if heeds else None)}

    blocks = _by_rows(layer, encode)[""]
    tensors.scalar(names.FORMAT, "U8", Family.GGUF)
    tensors.add("", "U8", (blocks.size,), blocks)
    tensors.scalar(names.DTYPE, "U32", ggml_blocks.NUMBERS[label])
    tensors.shape(layer.shape)


def _fp8(tensors: _Tensors, layer: Layer) -> None:
    """One scale for all weights: the largest becomes the largest number of 8 bits."""
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
    """The weights, in their order, become 64 rows, each column of which is a group."""
    (part,) = layer.parts
    raw = part.data.reshape(uqff_encode.GROUP, -1)
    item = ITEM_BYTES[part.dtype]
    at_once = item * max(1, _PIECE_ELEMENTS // uqff_encode.GROUP)

    def encode(begin: int) -> Encoded:
        piece = np.ascontiguousarray(raw[:, begin : begin + at_once])
        columns = as_float32(piece.ravel(), part.dtype).reshape(uqff_encode.GROUP, -1)
        return uqff_encode.hqq(_checked(columns, part.name), bits, dtype)

    pieces = range(0, raw.shape[1], at_once)
    made = _joined(_on_threads(encode, pieces), axis=1)
    tensors.scalar(names.FORMAT, "U8", Family.HQQ)
    tensors.add("", "U8", made[""].shape, made[""])
    tensors.add(names.SCALES, dtype, made["scales"].shape, made["scales"])
    tensors.add(names.ZEROS, dtype, made["zeros"].shape, made["zeros"])
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
    """Call ``encode`` with some rows and the number of their part, for all rows of a layer in order."""
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
    """Like map. numpy and llama.cpp work without the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, pieces))


def _joined(made: Sequence[Encoded], axis: int) -> Encoded:
    return {suffix: np.concatenate([piece[suffix] for piece in made], axis) for suffix in made[0]}


def _checked(values: Rows, name: str) -> Rows:
    # llama.cpp ends the process on them.
    if not np.isfinite(values).all():
        raise Refused(f"The weights '{name}' are not all finite numbers: the checkpoint is damaged. Download it again.")
    return values


def _bytes_of(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)

"""Reads the layers of UQFF shards, their types and the places of their parts, and checks them. Reads no weights.

Source: mistral.rs, mistralrs-quant/src/uqff, version 1.2.0 of the format.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.constants import TENSOR_TYPES
from modelyard.formats.safetensors import StoredTensor, read_safetensors
from modelyard.formats.uqff import constants as form
from modelyard.formats.uqff.constants import Family

_FLOATS: Final = ("F32", "F16", "BF16")
_MAX_DIMENSIONS: Final = 4
_WHOLE_BYTE_BITS: Final = (8, 4, 2, 1)
_AGAIN: Final = "Make it anew with 'mistralrs quantize', or look for another file of the model."
_OURS: Final = ".".join(map(str, form.VERSION))


@dataclass(frozen=True, slots=True)
class UqffLayer:
    """One layer.

    Attributes:
        prefix: its name, without ".weight".
        family: how its weights are stored.
        stored: the type of its weights: "Q4_K" (family GGUF), "BF16" (UNQUANT), else "afq4", "hqq8", "fp8", "f8q8",
            "mxfp4".
        shape: logical shape of its weights: [out, in], or [experts, out, in].
        parts: suffix of ".weight" -> stored tensor; "" is the weights themselves.
        bits: bits of a code in HQQ and AFQ; else 0.
        group_size: weights that share a scale in HQQ and AFQ; else 0.
        axis: in HQQ, 0 if a group of weights is a column, 1 if it is a row.
        bias: added to the outputs; None if there is none.
    """

    prefix: str
    family: Family
    stored: str
    shape: tuple[int, ...]
    parts: Mapping[str, StoredTensor]
    bits: int = 0
    group_size: int = 0
    axis: int = 0
    bias: StoredTensor | None = None


def read_uqff(paths: Iterable[Path]) -> list[UqffLayer]:
    """Return the layers in all shards, sorted by name. Their parts are present and have the right sizes.

    Raises:
        UnusableModel: a shard cannot be read, is damaged or of another version, or two shards have the same tensor.
    """
    tensors: dict[str, StoredTensor] = {}
    first: Path | None = None
    for path in paths:
        first = first or path
        for name, tensor in read_safetensors(path).items():
            _add(tensors, name, tensor)
    if first is None or not tensors:
        raise UnusableModel(f"{first or 'UQFF'}: There are no tensors in it. Download it again.")
    _check_version(first, tensors)
    prefixes = sorted(
        name.removesuffix(form.WEIGHT + form.FORMAT) for name in tensors if name.endswith(form.WEIGHT + form.FORMAT)
    )
    if not prefixes:
        raise UnusableModel(f"{first}: There are no quantised layers in it. {_AGAIN}")
    layers = [_layer(prefix, tensors) for prefix in prefixes]
    named = {prefix + form.WEIGHT for prefix in prefixes}
    for name in sorted(tensors):
        if name.endswith(form.WEIGHT) and name not in named:
            _refuse(tensors[name], f"it has {name!r}, but not how that is stored ({name}{form.FORMAT})")
    return layers


def _add(tensors: dict[str, StoredTensor], name: str, tensor: StoredTensor) -> None:
    other = tensors.get(name)
    if other is None:
        tensors[name] = tensor
    elif name not in form.VERSION_KEYS:
        raise UnusableModel(
            f"Duplicate tensor key {name!r} found in {other.path} and {tensor.path}. Name the shards of one model."
        )
    elif (number := _u32(tensor)) != (before := _u32(other)):
        raise UnusableModel(
            f"Conflicting UQFF version tensor '{name}' found in {other.path} ({before}) and {tensor.path} ({number}). "
            "Download all shards of the same model again."
        )


def _check_version(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    if all(name.isdecimal() for name in tensors):
        raise UnusableModel(f"{path}: Pre-1.0 UQFF artifacts are no longer supported. {_AGAIN}")
    if form.VERSION_MAJOR not in tensors:
        raise UnusableModel(f"{path}: This UQFF artifact has no version tag (pre-1.0 file). {_AGAIN}")
    if missing := [key for key in form.VERSION_KEYS if key not in tensors]:
        raise UnusableModel(f"{path}: Its version is not complete: {missing[0]} is missing. {_AGAIN}")
    version = tuple(_u32(tensors[key]) for key in form.VERSION_KEYS)
    text = ".".join(map(str, version))
    if version[0] != form.VERSION[0]:
        raise UnusableModel(f"{path}: UQFF version {text} is incompatible with {_OURS}, which is read here. {_AGAIN}")
    if version[1] > form.VERSION[1]:
        raise UnusableModel(
            f"{path}: UQFF version {text} is newer than {_OURS}, which is read here. Update modelyard, or use an "
            "older file of the model."
        )


def _layer(prefix: str, tensors: Mapping[str, StoredTensor]) -> UqffLayer:
    weight = _Weight(prefix, tensors)
    number = weight.u8(form.FORMAT)
    if number not in set(Family):
        _refuse(weight.part(form.FORMAT), f"{prefix!r} is stored in the unknown format {number}")
    layer = _READERS[Family(number)](weight)
    bias = tensors.get(prefix + form.BIAS)
    if bias is None:
        return layer
    if bias.dtype not in _FLOATS or bias.shape not in ((layer.shape[-2:-1]), layer.shape[:-1]):
        _refuse(bias, f"the bias of {prefix!r} does not fit weights of the shape {list(layer.shape)}")
    return replace(layer, bias=bias)


class _Weight:
    """The tensors of one layer, by their suffixes of ".weight"."""

    def __init__(self, prefix: str, tensors: Mapping[str, StoredTensor]) -> None:
        self.prefix = prefix
        self._tensors = tensors

    def part(self, suffix: str) -> StoredTensor:
        name = self.prefix + form.WEIGHT + suffix
        tensor = self._tensors.get(name)
        if tensor is None:
            _refuse(self._tensors[self.prefix + form.WEIGHT + form.FORMAT], f"{name!r} is missing")
        return tensor

    def parts(self, *suffixes: str) -> dict[str, StoredTensor]:
        return {suffix: self.part(suffix) for suffix in suffixes}

    def typed(self, suffix: str, *dtypes: str) -> StoredTensor:
        tensor = self.part(suffix)
        if tensor.dtype not in dtypes:
            _refuse(tensor, f"{tensor.name!r} must be of the type {' or '.join(dtypes)}, not {tensor.dtype}")
        return tensor

    def u8(self, suffix: str) -> int:
        tensor = self.typed(suffix, "U8")
        if tensor.elements != 1:
            _refuse(tensor, f"{tensor.name!r} must be a single number")
        return tensor.read()[0]

    def u32(self, suffix: str) -> int:
        return _u32(self.typed(suffix, "U32"))

    def shape(self) -> tuple[int, ...]:
        tensor = self.typed(form.SHAPE, "U32")
        if not 1 <= tensor.elements <= _MAX_DIMENSIONS:
            _refuse(tensor, f"{self.prefix!r} has {tensor.elements} dimensions")
        return self.checked(struct.unpack(f"<{tensor.elements}I", tensor.read()))

    def checked(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not 1 <= len(shape) <= _MAX_DIMENSIONS or 0 in shape:
            self.refuse(f"has the shape {list(shape)}, which weights cannot have")
        return shape

    def refuse(self, problem: str) -> NoReturn:
        _refuse(self.part(""), f"{self.prefix!r} {problem}")

    def check_matrix(self, shape: tuple[int, ...], kind: str) -> None:
        if len(shape) != 2:
            self.refuse(f"is stored as {kind}, and has the shape {list(shape)}: {kind} is for matrices alone")

    def check_size(self, size_bytes: int) -> None:
        if (found := self.part("").size_bytes) != size_bytes:
            self.refuse(f"has {found} bytes of weights, but its type and shape need {size_bytes}")


def _gguf(weight: _Weight) -> UqffLayer:
    weight.typed("", "U8")
    code, shape = weight.u32(form.DTYPE), weight.shape()
    if code not in form.GGML_TYPES:
        weight.refuse(f"is of the GGML type {code}, which UQFF does not have")
    kind = TENSOR_TYPES[code]
    if shape[-1] % kind.block_elements:
        weight.refuse(f"has rows of {shape[-1]}, which are no whole blocks of {kind.name}")
    weight.check_size(math.prod(shape) // kind.block_elements * kind.block_bytes)
    return UqffLayer(weight.prefix, Family.GGUF, kind.name, shape, weight.parts(""))


def _unquant(weight: _Weight) -> UqffLayer:
    tensor = weight.typed("", *_FLOATS)
    return UqffLayer(weight.prefix, Family.UNQUANT, tensor.dtype, weight.checked(tensor.shape), weight.parts(""))


def _hqq(weight: _Weight) -> UqffLayer:
    weight.typed("", "U8")
    shape, bits, axis = weight.shape(), weight.u8(form.BITS), weight.u8(form.AXIS)
    group_size = weight.u32(form.GROUP_SIZE)
    weight.check_matrix(shape, "HQQ")
    if bits not in _WHOLE_BYTE_BITS or axis not in (0, 1):
        weight.refuse(f"is stored as HQQ of {bits} bits along the axis {axis}, which cannot be read")
    elements, codes = math.prod(shape), 8 // bits
    if not group_size or elements % group_size:
        weight.refuse(f"cannot be divided into groups of {group_size}")
    rows = group_size if axis == 0 else elements // group_size
    if rows % codes:
        weight.refuse(f"has {rows} rows of codes, which are no whole bytes at {bits} bits")
    weight.check_size(elements // codes)
    parts = weight.parts("", form.SCALES, form.ZEROS)
    for suffix in (form.SCALES, form.ZEROS):
        if weight.typed(suffix, *_FLOATS).elements != elements // group_size:
            _refuse(parts[suffix], f"{parts[suffix].name!r} must have {elements // group_size} numbers")
    return UqffLayer(weight.prefix, Family.HQQ, f"hqq{bits}", shape, parts, bits, group_size, axis)


def _fp8(weight: _Weight) -> UqffLayer:
    shape = weight.checked(weight.typed("", "F8_E4M3").shape)
    weight.check_matrix(shape, "FP8")
    scale = weight.typed(form.DEQUANT_W_SCALE, "F32")
    if scale.elements != 1:
        _refuse(scale, f"{scale.name!r} must be a single number")
    return UqffLayer(weight.prefix, Family.FP8, "fp8", shape, weight.parts("", form.DEQUANT_W_SCALE))


def _afq(weight: _Weight) -> UqffLayer:
    codes, bits, group_size = weight.typed("", "U32"), weight.u8(form.BITS), weight.u8(form.GROUP_SIZE)
    scales, biases = weight.typed(form.SCALES, *_FLOATS), weight.typed(form.BIASES, *_FLOATS)
    if bits not in form.AFQ_BITS or group_size not in form.AFQ_GROUP_SIZES:
        weight.refuse(f"is stored as AFQ of {bits} bits in groups of {group_size}, which cannot be read")
    if not scales.shape or scales.shape != biases.shape:
        weight.refuse(f"has scales of the shape {list(scales.shape)} and biases of {list(biases.shape)}")
    shape = weight.checked((*scales.shape[:-1], scales.shape[-1] * group_size))
    if codes.shape != (*shape[:-1], shape[-1] * bits // 32):
        weight.refuse(f"has codes of the shape {list(codes.shape)}, which does not fit weights of {list(shape)}")
    parts = weight.parts("", form.SCALES, form.BIASES)
    return UqffLayer(weight.prefix, Family.AFQ, f"afq{bits}", shape, parts, bits, group_size)


def _f8q8(weight: _Weight) -> UqffLayer:
    weight.typed("", "U8")
    shape, blocks = weight.shape(), weight.u32(form.NUM_BLOCKS)
    weight.check_matrix(shape, "F8Q8")
    if blocks != -(-math.prod(shape) // form.F8Q8_BLOCK):
        weight.refuse(f"has {blocks} blocks, which does not fit weights of {list(shape)}")
    weight.check_size(blocks * form.F8Q8_BLOCK_BYTES)
    return UqffLayer(weight.prefix, Family.F8Q8, "f8q8", shape, weight.parts(""))


def _mxfp4(weight: _Weight) -> UqffLayer:
    codes, scales = weight.typed("", "U8"), weight.typed(form.SCALES, "U8")
    if not codes.shape:
        weight.refuse("has no rows")
    shape = weight.checked((*codes.shape[:-1], 2 * codes.shape[-1]))
    if shape[-1] % form.MXFP4_BLOCK or scales.shape != (*shape[:-1], shape[-1] // form.MXFP4_BLOCK):
        weight.refuse(f"has scales of the shape {list(scales.shape)}, which does not fit weights of {list(shape)}")
    return UqffLayer(weight.prefix, Family.MXFP4, "mxfp4", shape, weight.parts("", form.SCALES))


_READERS: Final = {
    Family.GGUF: _gguf,
    Family.UNQUANT: _unquant,
    Family.HQQ: _hqq,
    Family.FP8: _fp8,
    Family.AFQ: _afq,
    Family.F8Q8: _f8q8,
    Family.MXFP4: _mxfp4,
}


def _u32(tensor: StoredTensor) -> int:
    if tensor.dtype != "U32" or tensor.elements != 1:
        _refuse(tensor, f"{tensor.name!r} must be a single U32")
    return int.from_bytes(tensor.read(), "little")


def _refuse(tensor: StoredTensor, problem: str) -> NoReturn:
    raise UnusableModel(f"{tensor.path}: This UQFF file cannot be read: {problem}. Download it again, or make it anew.")

"""Parses the two tables of a GGUF header: metadata and tensors.

Source: llama.cpp as of b11739, ggml/docs/gguf.md and gguf_init_from_reader in ggml/src/gguf.cpp. Headers that this
reader refuses are refused here, with the reason. The limits below are narrower than its own (2**30), because the tables
are held in memory.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from math import prod
from typing import Final, NoReturn, Protocol

from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.reader import BoundedReader
from modelyard.formats.gguf.values import GgufArray, GgufTensor, Value

MAX_PAIRS: Final = 1 << 16
MAX_TENSORS: Final = 1 << 17
MAX_STRINGS: Final = 1 << 22
MAX_NUMBERS: Final = 1 << 30
MAX_KEY_LENGTH: Final = (1 << 16) - 1
MAX_STRING_LENGTH: Final = 1 << 24
# LLAMA_MAX_LAYERS, which also limits arrays with an entry for each layer.
MAX_LAYERS: Final = 512

TOKENS_KEY: Final = "tokenizer.ggml.tokens"
TOKEN_TYPES_KEY: Final = "tokenizer.ggml.token_type"
PER_LAYER_SUFFIXES: Final = (
    ".attention.head_count",
    ".attention.head_count_kv",
    ".expert_used_count",
    ".rope.dimension_sections",
)

# gguf_get_val_* aborts the process on another type, and llama.cpp reads these keys without checking the type.
_FIXED_TYPES: Final = {
    "general.alignment": gguf.UINT32,
    "general.architecture": gguf.STRING,
    "split.no": gguf.UINT16,
    "split.count": gguf.UINT16,
    "split.tensors.count": gguf.INT32,
}

_U32: Final = gguf.SCALARS[gguf.UINT32]
_U64: Final = gguf.SCALARS[10]
_MIN_PAIR: Final = 8 + 1 + 4 + 1
_MIN_TENSOR: Final = 8 + 1 + 4 + 4 + 8
_MAX_DIMENSION: Final = (1 << 63) - 1


class Fail(Protocol):
    """Raises UnusableModel about the file."""

    def __call__(self, problem: str, advice: str = ...) -> NoReturn:
        """Raise it."""


@dataclass(slots=True)
class Pairs:
    """The metadata as read, with further facts for the checks.

    Attributes:
        values: key -> scalar, string or the description of an array.
        types: key -> the type on disk; ARRAY for arrays.
        per_layer: contents of the short arrays with a number for each layer (or section).
        tokens: the vocabulary.
        has_byte_tokens: whether a token is marked as a byte (LLAMA_TOKEN_TYPE_BYTE, 6).
    """

    values: dict[str, Value] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    per_layer: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tokens: Set[bytes] = frozenset()
    has_byte_tokens: bool = False

    @property
    def alignment(self) -> int:
        """Alignment of tensors in bytes."""
        value = self.values.get("general.alignment", gguf.DEFAULT_ALIGNMENT)
        assert isinstance(value, int)
        return value


def parse_pairs(reader: BoundedReader, count: int) -> Pairs:
    """Read ``count`` metadata pairs.

    Raises:
        UnusableModel: a length, a type or a text is invalid, or a key is empty or occurs twice.
    """
    if count > MAX_PAIRS:
        reader.fail(f"The header claims {count} metadata keys, more than the {MAX_PAIRS} that any file needs")
    _expect_room(reader, count * _MIN_PAIR, f"{count} metadata keys")
    pairs = Pairs()
    for index in range(count):
        key = reader.text(MAX_KEY_LENGTH, f"metadata key {index}")
        if not key:
            reader.fail(f"Metadata key {index} is empty")
        if key in pairs.values:
            reader.fail(f"The metadata key '{key}' is there twice")
        value_type = reader.integer(_U32, f"the type of '{key}'")
        if (fixed := _FIXED_TYPES.get(key)) is not None and value_type != fixed:
            reader.fail(
                f"'{key}' has the type {gguf.value_type_name(value_type)}, but must be {gguf.value_type_name(fixed)}"
            )
        pairs.types[key] = value_type
        if value_type == gguf.ARRAY:
            pairs.values[key] = _parse_array(reader, key, pairs)
        elif value_type == gguf.STRING:
            pairs.values[key] = reader.text(MAX_STRING_LENGTH, f"'{key}'")
        elif (layout := gguf.SCALARS.get(value_type)) is not None:
            pairs.values[key] = reader.unpack(layout, f"'{key}'")
        else:
            reader.fail(f"'{key}' has the unknown type {value_type}")
    alignment = pairs.alignment
    if alignment < 8 or alignment & (alignment - 1):
        reader.fail(f"'general.alignment' is {alignment}, but must be a power of two of at least 8")
    return pairs


def _parse_array(reader: BoundedReader, key: str, pairs: Pairs) -> GgufArray:
    element = reader.integer(_U32, f"the element type of '{key}'")
    length = reader.integer(_U64, f"the length of '{key}'")
    if element == gguf.ARRAY:
        reader.fail(f"'{key}' is an array of arrays, which llama.cpp cannot read")
    if element == gguf.STRING:
        if length > MAX_STRINGS:
            reader.fail(f"'{key}' claims {length} strings, more than the {MAX_STRINGS} that any model needs")
        _expect_room(reader, length * _U64.size, f"the {length} strings of '{key}'")
        if key == TOKENS_KEY:
            pairs.tokens = reader.distinct_strings(length, f"'{key}'")
        else:
            reader.skip_strings(length, f"'{key}'")
        return GgufArray("str", length)
    layout = gguf.SCALARS.get(element)
    if layout is None:
        reader.fail(f"'{key}' is an array of the unknown type {element}")
    if length > MAX_NUMBERS:
        reader.fail(f"'{key}' claims {length} elements, more than the {MAX_NUMBERS} that llama.cpp reads")
    if element in (gguf.UINT32, gguf.INT32) and length <= MAX_LAYERS and key.endswith(PER_LAYER_SUFFIXES):
        pairs.per_layer[key] = tuple(reader.integer(layout, f"'{key}'") for _ in range(length))
    elif key == TOKEN_TYPES_KEY and element == gguf.INT32 and length <= MAX_STRINGS:
        # The types are small numbers, so their lowest bytes suffice.
        pairs.has_byte_tokens = 6 in reader.take(length * layout.size, f"'{key}'")[::4]
    else:
        reader.skip(length * layout.size, f"the {length} elements of '{key}'")
    return GgufArray(gguf.value_type_name(element), length)


def parse_tensors(reader: BoundedReader, count: int, alignment: int) -> tuple[GgufTensor, ...]:
    """Read ``count`` tensor descriptions, and check that the file holds their data.

    Raises:
        UnusableModel: a name, shape, type or offset is invalid, or the data exceeds the file.
    """
    if count > MAX_TENSORS:
        reader.fail(f"The header claims {count} tensors, more than the {MAX_TENSORS} that any model needs")
    _expect_room(reader, count * _MIN_TENSOR, f"{count} tensors")
    tensors: list[GgufTensor] = []
    names: set[str] = set()
    expected_offset = 0
    for index in range(count):
        tensor = _parse_tensor(reader, index)
        if tensor.name in names:
            reader.fail(f"The tensor '{tensor.name}' is there twice")
        if tensor.offset % alignment:
            reader.fail(
                f"The tensor '{tensor.name}' lies at offset {tensor.offset}, not on a multiple of {alignment} bytes"
            )
        if tensor.offset != expected_offset:
            reader.fail(f"The tensor '{tensor.name}' lies at offset {tensor.offset}, but {expected_offset} is next")
        names.add(tensor.name)
        tensors.append(tensor)
        expected_offset = padded(tensor.offset + tensor.size_bytes, alignment)
    if tensors:
        # The padding after the last tensor may be missing, because nothing reads it.
        end = padded(reader.position, alignment) + tensors[-1].offset + tensors[-1].size_bytes
        if end > reader.size:
            reader.cut_off(end)
    return tuple(tensors)


def _parse_tensor(reader: BoundedReader, index: int) -> GgufTensor:
    name = reader.text(gguf.MAX_TENSOR_NAME_LENGTH, f"the name of tensor {index}")
    if not name or "\0" in name:
        reader.fail(f"The name of tensor {index} is {name!r}, which is no name")
    dimensions = reader.integer(_U32, f"the number of dimensions of '{name}'")
    if dimensions > gguf.MAX_DIMENSIONS:
        reader.fail(f"The tensor '{name}' has {dimensions} dimensions, more than {gguf.MAX_DIMENSIONS}")
    shape = tuple(reader.integer(_U64, f"the shape of '{name}'") for _ in range(dimensions))
    elements = prod(shape)
    if elements == 0 or elements > _MAX_DIMENSION:
        reader.fail(f"The tensor '{name}' has the impossible shape {list(shape)}")
    number = reader.integer(_U32, f"the type of '{name}'")
    tensor_type = gguf.TENSOR_TYPES.get(number)
    if tensor_type is None:
        reader.fail(
            f"The tensor '{name}' has the unknown type {number}",
            "Download another file of the model, or a newer Modelyard.",
        )
    row = shape[0] if shape else 1
    if row % tensor_type.block_elements:
        reader.fail(
            f"The tensor '{name}' has rows of {row} elements, "
            f"but {tensor_type.name} stores blocks of {tensor_type.block_elements}"
        )
    offset = reader.integer(_U64, f"the offset of '{name}'")
    size = elements // tensor_type.block_elements * tensor_type.block_bytes
    return GgufTensor(name, shape, tensor_type.name, offset, size)


def _expect_room(reader: BoundedReader, at_least: int, what: str) -> None:
    """Fail early if ``at_least`` bytes, the minimum for ``what``, exceed the file."""
    if at_least > reader.remaining:
        reader.cut_off(reader.position + at_least, f" at least, for {what}")


def padded(offset: int, alignment: int) -> int:
    """Return the first multiple of ``alignment`` from ``offset`` on."""
    return (offset + alignment - 1) // alignment * alignment

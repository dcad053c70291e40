"""Groups the tensors of a checkpoint to layers of UQFF, and chooses each layer's type. Pure.

A loader takes a layer from UQFF if it is there, and from the residual tensors otherwise, so that a tensor that may not
be a linear layer can stay unquantised.

Source: mistral.rs, mistralrs-quant/src/uqff and mistralrs-core/src/pipeline/isq.rs, as of version 1.2.0 of the format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.converter.safetensors_file import FLOATS, MappedTensor
from modelyard.converter.uqff.encode import GROUP
from modelyard.formats.gguf.constants import TENSOR_TYPES
from modelyard.formats.uqff import constants

_EMBEDDINGS: Final = ("embed_tokens",)
_HEADS: Final = ("lm_head",)
_LINEAR: Final = (
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj",
    "dense", "fc1", "fc2", "c_fc", "c_proj",
)  # fmt: skip
# Towers for images and sound, and their projections, whose layers not every reader can quantise.
_TOWER: Final = re.compile(r"(^|\.|_)(vision|visual|audio|image|video|multi_modal|multimodal|mm)(_|\.)")
_EXPERT: Final = re.compile(r"(?P<block>.+\.experts)\.(?P<number>\d+)\.(?P<part>gate_proj|up_proj|down_proj|w1|w2|w3)$")
_EXPERT_PARTS: Final = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}

# Replacements for types with blocks of 256, where rows are not whole blocks. Source: mistral.rs.
_SMALLER_BLOCKS: Final = {
    "q2k": "q4_0", "q3k": "q4_0", "q4k": "q4_1", "q5k": "q5_0", "q6k": "q5_1", "q8k": "q8_1",
}  # fmt: skip

# Types of embeddings and output heads, which lose the most accuracy, by the requested type.
_SENSITIVE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("afq2", "afq3", "afq4"), "afq6"),
    **dict.fromkeys(("afq6", "afq8"), "afq8"),
    **dict.fromkeys(("q2k", "q3k", "q4k", "q4_0", "q4_1"), "q6k"),
    **dict.fromkeys(("q5k", "q6k", "q8k", "q5_0", "q5_1", "q8_0", "q8_1"), "q8_0"),
}
_NO_EXPERTS: Final = ("hqq4", "hqq8", "fp8", "f8q8")
UNQUANTIZED: Final = "unquant"


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer or an embedding.

    Attributes:
        prefix: name of the module, such as "model.layers.0.self_attn.q_proj".
        parts: the weights [out, in]: one tensor, or one for each expert of a block.
        bias: the bias [out]; None for a layer without one.
        is_stacked: whether it is a block of experts, with the logical shape [experts, out, in].
        is_sensitive: whether it is an embedding or an output head.
    """

    prefix: str
    parts: tuple[MappedTensor, ...]
    bias: MappedTensor | None
    is_stacked: bool
    is_sensitive: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape, which is written to the file."""
        one = self.parts[0].shape
        return (len(self.parts), *one) if self.is_stacked else one

    @property
    def size_bytes(self) -> int:
        """Size of the weights in the checkpoint."""
        return sum(part.data.nbytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class StoredAs:
    """The type that a layer is stored in.

    Attributes:
        wanted: the requested type, with more bits for embeddings and heads.
        stored: ``wanted`` or a type that fits the shape; UNQUANTIZED if none does.
        reason: why no type fits; "" if one does.
    """

    wanted: str
    stored: str
    reason: str = ""


def ggml_type(name: str) -> str | None:
    """Return the GGML type of a UQFF type, such as "Q4_K" for "q4k"; None for the other families."""
    word = name.upper()
    label = f"{word[:-1]}_K" if re.fullmatch(r"Q\dK", word) else word
    return label if label in constants.GGML_TYPES.values() else None


def choose_stored(type_: str, layer: Layer) -> StoredAs:
    """Return the type that ``layer`` is stored in if ``type_`` is requested."""
    wanted = _SENSITIVE.get(type_, type_) if layer.is_sensitive else type_
    columns = layer.shape[-1]
    if layer.is_stacked and wanted in _NO_EXPERTS:
        return StoredAs(wanted, UNQUANTIZED, f"{wanted} has no layout for stacked experts")
    for candidate in (wanted, _SMALLER_BLOCKS.get(wanted)):
        if candidate is not None and columns % _row_multiple(candidate) == 0:
            return StoredAs(wanted, candidate)
    return StoredAs(wanted, UNQUANTIZED, f"rows of {columns} are no multiple of {_row_multiple(wanted)}")


def _row_multiple(type_: str) -> int:
    label = ggml_type(type_)
    if label is not None:
        return next(kind.block_elements for kind in TENSOR_TYPES.values() if kind.name == label)
    if type_.startswith(("afq", "hqq")):
        return GROUP
    return {"f8q8": constants.F8Q8_BLOCK, "mxfp4": constants.MXFP4_BLOCK}.get(type_, 1)


def sort_tensors(tensors: Iterable[MappedTensor]) -> tuple[list[Layer], list[MappedTensor]]:
    """Return the layers, sorted by prefix, and the tensors that belong to no layer, sorted by name."""
    rest = {tensor.name: tensor for tensor in tensors}
    single: list[str] = []
    experts: dict[str, dict[int, str]] = {}
    for name, tensor in rest.items():
        prefix = name.removesuffix(constants.WEIGHT)
        if prefix == name or len(tensor.shape) != 2 or tensor.dtype not in FLOATS or _TOWER.search(name):
            continue
        if (expert := _EXPERT.match(prefix)) is not None:
            part = _EXPERT_PARTS.get(expert["part"], expert["part"])
            experts.setdefault(f"{expert['block']}.{part}", {})[int(expert["number"])] = name
        elif prefix.rpartition(".")[2] in (*_EMBEDDINGS, *_HEADS, *_LINEAR):
            single.append(prefix)
    layers = []
    for prefix in single:
        weight = rest.pop(prefix + constants.WEIGHT)
        bias = rest.pop(prefix + constants.BIAS, None)
        is_sensitive = prefix.rpartition(".")[2] in (*_EMBEDDINGS, *_HEADS)
        layers.append(Layer(prefix, (weight,), bias, is_stacked=False, is_sensitive=is_sensitive))
    for prefix, numbered in experts.items():
        parts = tuple(rest[numbered[number]] for number in sorted(numbered))
        is_whole = sorted(numbered) == list(range(len(numbered)))
        if is_whole and len({(part.shape, part.dtype) for part in parts}) == 1 and not _has_bias(parts, rest):
            for expert_name in numbered.values():
                del rest[expert_name]
            layers.append(Layer(prefix, parts, None, is_stacked=True, is_sensitive=False))
    return sorted(layers, key=lambda layer: layer.prefix), sorted(rest.values(), key=lambda tensor: tensor.name)


def _has_bias(parts: Iterable[MappedTensor], rest: Mapping[str, MappedTensor]) -> bool:
    return any(part.name.removesuffix(constants.WEIGHT) + constants.BIAS in rest for part in parts)

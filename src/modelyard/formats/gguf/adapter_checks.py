"""Checks of adapters: refuses LoRA files that do not fit their base model, or on which llama.cpp would abort.

Source: llama.cpp as of b11739: llama_adapter_lora_init_impl in src/llama-adapter.cpp, and build_lora_mm,
build_lora_mm_id and build_inp_embd in src/llama-graph.cpp, which multiply without checking shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from modelyard.errors import UnusableModel
from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.parse import Fail, Pairs
from modelyard.formats.gguf.values import GgufTensor

if TYPE_CHECKING:
    from modelyard.formats.gguf.header import GgufHeader

ALPHA: Final = "adapter.lora.alpha"
ADAPTER_TYPE: Final = "adapter.type"
INVOCATION_TOKENS: Final = "adapter.alora.invocation_tokens"

_MATRIX_TYPES: Final = frozenset({"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"})
_EMBEDDING: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"

_Refusal: TypeAlias = Callable[[str], UnusableModel]

# llama.cpp does not read these.
_IGNORED: Final = "_norm.weight"


def check_adapter_header(header: GgufHeader, pairs: Pairs, fail: Fail) -> None:
    """Refuse the header of an adapter on which llama.cpp would abort the process, whatever its base model is.

    Raises:
        UnusableModel: through ``fail``.
    """
    if (kind := pairs.types.get(ADAPTER_TYPE, gguf.STRING)) != gguf.STRING:
        fail(f"'{ADAPTER_TYPE}' has the type {gguf.value_type_name(kind)}, but must be a text")
    if ALPHA in pairs.types:
        alpha = header.metadata[ALPHA]
        if pairs.types[ALPHA] != gguf.FLOAT32 or not isinstance(alpha, float):
            fail(f"'{ALPHA}' has the type {gguf.value_type_name(pairs.types[ALPHA])}, but must be f32")
        if not math.isfinite(alpha):
            fail(f"'{ALPHA}' is {alpha}, but must be a number")
    if INVOCATION_TOKENS in pairs.types:
        fail(
            "It is an activated LoRA (aLoRA), which takes effect from certain tokens of the prompt on. Such adapters "
            "cannot be served",
            "Use an ordinary LoRA adapter.",
        )


def check_adapter(path: Path, header: GgufHeader, base: Iterable[GgufHeader]) -> None:
    """Refuse an adapter that does not fit its base model.

    Args:
        path: of the adapter, for messages.
        header: its header.
        base: headers of all files of the base model.

    Raises:
        UnusableModel: it is for another architecture or for other shapes, or a part of it is missing.
    """

    def fail(what: str) -> UnusableModel:
        return UnusableModel(f"{path}: {what}.")

    if header.role != "adapter":
        raise fail(f"This file is no adapter: 'general.type' is '{header.role}'")
    if (kind := header.metadata.get(ADAPTER_TYPE)) != "lora":
        raise fail(f"'{ADAPTER_TYPE}' is {kind!r}, but only LoRA adapters ('lora') can be served")
    weights: dict[str, GgufTensor] = {}
    architecture = ""
    for part in base:
        architecture = architecture or part.architecture
        weights |= {tensor.name: tensor for tensor in part.tensors}
    if header.architecture != architecture:
        raise fail(
            f"The adapter is for a model of the architecture '{header.architecture}', but its base model has "
            f"'{architecture}'. Name the model that the adapter was trained on"
        )
    pairs = _pairs(header, fail)
    if not pairs:
        raise fail("The adapter has no matrices")
    for name, (a, b) in pairs.items():
        if a is None or b is None:
            raise fail(f"The adapter has only one of the two matrices for '{name}'. Export it again")
        weight = weights.get(name)
        if weight is None:
            raise fail(
                f"The adapter changes '{name}', which its base model does not have. Name the model that the adapter "
                "was trained on"
            )
        for tensor in (a, b):
            if tensor.type not in _MATRIX_TYPES:
                raise fail(f"'{tensor.name}' has the type {tensor.type}; convert the adapter to F32, F16 or Q8_0")
        if name.endswith(_EMBEDDING) and (name != _EMBEDDING or _OUTPUT not in weights):
            raise fail(
                f"The adapter changes '{name}', which its base model also uses in another place. llama.cpp cannot "
                "apply that; merge the adapter into the model"
            )
        if not _fits(_shape(weight), _shape(a), _shape(b), is_embedding=name == _EMBEDDING):
            raise fail(
                f"The matrices for '{name}' have the shapes {list(a.shape)} and {list(b.shape)}, which do not fit "
                f"{list(weight.shape)} of its base model. Name the model that the adapter was trained on"
            )


def _pairs(header: GgufHeader, fail: _Refusal) -> Mapping[str, list[GgufTensor | None]]:
    """Return the matrices A and B by the name of the tensor that they change."""
    pairs: dict[str, list[GgufTensor | None]] = {}
    for tensor in header.tensors:
        name, dot, which = tensor.name.rpartition(".lora_")
        if dot and which in ("a", "b") and ".lora_" not in name:
            pairs.setdefault(name, [None, None])[which == "b"] = tensor
        elif not tensor.name.endswith(_IGNORED):
            raise fail(f"'{tensor.name}' is no tensor of a LoRA adapter")
    return pairs


def _shape(tensor: GgufTensor) -> tuple[int, ...]:
    return (*tensor.shape, 1, 1, 1, 1)[:4]


def _fits(weight: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], *, is_embedding: bool) -> bool:
    """Whether A and B, whose product is added to ``weight``, have shapes in ggml's order that fit it and each other.

    Experts have a matrix each, in the third dimension.
    """
    if is_embedding:
        # A is read by rows, so that it is transposed; see build_inp_embd.
        return weight[:2] == (b[1], a[1]) and a[0] == b[0] and a[2:] == b[2:] == weight[2:] == (1, 1)
    return weight[1] > 1 and weight[:2] == (a[0], b[1]) and a[1] == b[0] and a[2:] == b[2:] == weight[2:]

"""Damaged and unusual GGUF files: SmolLM2, cut to two layers, with one thing changed in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType, GGUFWriter

U32, F32, STR, BOOL, I32 = (
    GGUFValueType.UINT32,
    GGUFValueType.FLOAT32,
    GGUFValueType.STRING,
    GGUFValueType.BOOL,
    GGUFValueType.INT32,
)
LAYERS: Final = 2

Tensor = tuple[str, np.ndarray, Type]
Value = tuple[Any, GGUFValueType] | tuple[list[Any], GGUFValueType, GGUFValueType]
Change = Callable[[Tensor], list[Tensor]]


def _unchanged(tensor: Tensor) -> list[Tensor]:
    return [tensor]


@dataclass(frozen=True)
class Damage:
    """One way in which a file is changed.

    Attributes:
        values: of its header, in place of what was there; None: left out. A key that begins with "." is of the
            architecture.
        architecture: that it claims to be of.
        tensors: what each tensor becomes.
        layers: how many there are.
        is_served: whether the model is of use in spite of it; None: that depends on the model.
    """

    values: Mapping[str, Value | None] = field(default_factory=dict)
    architecture: str = "llama"
    tensors: Change = _unchanged
    layers: int = LAYERS
    is_served: bool | None = False


@cache
def _read(source: Path) -> tuple[dict[str, Value], list[Tensor]]:
    reader = GGUFReader(source)
    values: dict[str, Value] = {}
    for key, kept in reader.fields.items():
        if not key.startswith("GGUF."):
            kinds = kept.types
            is_list = kinds[0] == GGUFValueType.ARRAY
            values[key] = (kept.contents(), kinds[0], kinds[-1]) if is_list else (kept.contents(), kinds[0])
    return values, [(tensor.name, np.array(tensor.data), tensor.tensor_type) for tensor in reader.tensors]


def make(source: Path, out: Path, damage: Damage) -> Path:
    """Write the file ``source``, SmolLM2, as ``out``, damaged."""
    values, tensors = _read(source)
    prefix = f"{damage.architecture}."
    changed = {
        key.replace("llama.", prefix, 1) if key.startswith("llama.") else key: value for key, value in values.items()
    }
    changed[f"{prefix}block_count"] = (damage.layers, U32)
    for key, value in damage.values.items():
        full = prefix + key[1:] if key.startswith(".") else key
        if value is None:
            changed.pop(full, None)
        else:
            changed[full] = value
    changed.pop("general.architecture")
    writer = GGUFWriter(out, damage.architecture)
    for key, (content, kind, *element) in changed.items():
        writer.add_key_value(key, content, kind, *element)
    for name, data, kind in _kept(tensors, damage):
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _kept(tensors: list[Tensor], damage: Damage) -> Iterator[Tensor]:
    for name, data, kind in tensors:
        if not name.startswith("blk.") or int(name.split(".")[1]) < damage.layers:
            yield from damage.tensors((name, data, kind))


def _replaced(name: str, change: Callable[[np.ndarray], np.ndarray], kind: Type) -> Change:
    return lambda tensor: [(name, change(tensor[1]), kind)] if tensor[0] == name else [tensor]


def _with(*more: Tensor) -> Change:
    return lambda tensor: [tensor, *more] if tensor[0] == "output_norm.weight" else [tensor]


def _experts(gate: type, kind: Type) -> Change:
    """Each layer's feed-forward becomes two equal experts."""

    def change(tensor: Tensor) -> list[Tensor]:
        name, data, stored = tensor
        if ".ffn_norm" in name or ".ffn_" not in name:
            return [tensor]
        made = [(name.replace(".weight", "_exps.weight"), np.stack([data, data]), stored)]
        if ".ffn_gate" in name:
            made.append((name.replace("ffn_gate", "ffn_gate_inp"), np.ones((2, 576), gate), kind))
        return made

    return change


def _with_number_at(value: float, index: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(data: np.ndarray) -> np.ndarray:
        data = data.copy()
        data[index] = value
        return data

    return change


def _template(source: str) -> dict[str, Value]:
    return {"tokenizer.chat_template": (source, STR)}


def _pre_tokenizer(name: str) -> Damage:
    return Damage({"tokenizer.ggml.pre": (name, STR)}, is_served=True)


TWO_EXPERTS: Final[dict[str, Value | None]] = {".expert_count": (2, U32), ".expert_used_count": (1, U32)}
NORM: Final = "output_norm.weight"
TOKENS: Final = 49_152

DAMAGES: Final[Mapping[str, Damage]] = {
    "whole": Damage(is_served=True),
    # Types and shapes that llama.cpp loads, and cannot compute with.
    "norm of 16 bits": Damage(tensors=_replaced(NORM, lambda d: np.ones((1, len(d)), np.float16), Type.F16)),
    "norm in blocks": Damage(
        tensors=_replaced(NORM, lambda d: gguf.quants.quantize(np.ones((1, len(d)), np.float32), Type.Q8_0), Type.Q8_0)
    ),
    "bias of 16 bits": Damage(
        architecture="qwen2", tensors=_with(("blk.0.attn_q.bias", np.zeros((1, 576), np.float16), Type.F16))
    ),
    "rope factors of 16 bits": Damage(tensors=_with(("rope_freqs.weight", np.ones((1, 32), np.float16), Type.F16))),
    "experts": Damage(TWO_EXPERTS, tensors=_experts(np.float32, Type.F32), is_served=True),
    "router of integers": Damage(TWO_EXPERTS, tensors=_experts(np.int32, Type.I32)),
    "no output norm": Damage(tensors=lambda tensor: [] if tensor[0] == NORM else [tensor]),
    # Numbers that do not fit one another.
    "no heads": Damage({".attention.head_count": (0, U32)}),
    "heads of one number": Damage(
        {".attention.head_count": (576, U32), ".attention.head_count_kv": (192, U32), ".rope.dimension_count": None},
        architecture="qwen2",
    ),
    "more rotated than there is": Damage({".rope.dimension_count": (128, U32)}, architecture="qwen2"),
    "nothing rotated": Damage({".rope.dimension_count": (0, U32)}, architecture="qwen2"),
    "keys of no width": Damage({".attention.key_length": (0, U32), ".attention.value_length": (0, U32)}),
    "another feed-forward": Damage({".feed_forward_length": (1537, U32)}),
    "a million heads": Damage(
        {".attention.head_count": (1 << 20, U32), ".attention.head_count_kv": (1 << 20, U32)}, architecture="qwen2"
    ),
    "more layers than there are": Damage({".block_count": (400, U32)}),
    "a context of one token": Damage({".context_length": (1, U32)}, is_served=True),
    "a context of two billion": Damage({".context_length": (0x7FFFFFFF, U32)}, is_served=True),
    "one layer less": Damage({".block_count": (1, U32)}),
    "no rope base": Damage({".rope.freq_base": (0.0, F32)}, is_served=None),
    "a rope base of no number": Damage({".rope.freq_base": (float("nan"), F32)}, is_served=None),
    "a rope base of text": Damage({".rope.freq_base": ("abc", STR)}),
    "yarn by zero": Damage(
        {
            ".rope.scaling.type": ("yarn", STR),
            ".rope.scaling.factor": (0.0, F32),
            ".rope.scaling.original_context_length": (0, U32),
        },
        is_served=None,
    ),
    "odd sections": Damage(
        {".rope.dimension_sections": ([-1, 0x7FFFFFFF, 5, 0], GGUFValueType.ARRAY, I32)},
        architecture="qwen2vl",
        is_served=None,
    ),
    "scales that are not finite": Damage(
        {".logit_scale": (0.0, F32), ".embedding_scale": (float("inf"), F32), ".residual_scale": (float("nan"), F32)},
        architecture="minicpm",
    ),
    "not causal": Damage({".attention.causal": (False, BOOL)}, is_served=None),
    # Weights that are no numbers.
    "all of a norm no number": Damage(tensors=_replaced(NORM, lambda d: np.full_like(d, np.nan), Type.F32)),
    "one of a norm no number": Damage(tensors=_replaced(NORM, _with_number_at(np.nan, 3), Type.F32)),
    "one of a norm infinite": Damage(tensors=_replaced(NORM, _with_number_at(np.inf, 3), Type.F32)),
    # Vocabularies.
    "unknown pre-tokenizer": Damage({"tokenizer.ggml.pre": ("zzz", STR)}),
    "no merges": Damage({"tokenizer.ggml.merges": None}),
    "odd merges": Damage(
        {"tokenizer.ggml.merges": (["x", " ", "", "a  b", "q\ufffd q"] * 5, GGUFValueType.ARRAY, STR)}, is_served=None
    ),
    "equal tokens": Damage({"tokenizer.ggml.tokens": (["a"] * TOKENS, GGUFValueType.ARRAY, STR)}),
    "all tokens control": Damage(
        {"tokenizer.ggml.token_type": ([3] * TOKENS, GGUFValueType.ARRAY, I32)}, is_served=None
    ),
    "all tokens bytes": Damage({"tokenizer.ggml.token_type": ([6] * TOKENS, GGUFValueType.ARRAY, I32)}),
    "a tokenizer for BERT": Damage({"tokenizer.ggml.model": ("bert", STR)}, is_served=None),
    "a tokenizer for T5": Damage({"tokenizer.ggml.model": ("t5", STR)}, is_served=None),
    "a tokenizer for RWKV": Damage({"tokenizer.ggml.model": ("rwkv", STR)}),
    "ends beyond the vocabulary": Damage(
        {
            "tokenizer.ggml.eos_token_id": (0xFFFFFFFF, U32),
            "tokenizer.ggml.eot_token_id": (0xFFFFFFFE, U32),
            "tokenizer.ggml.padding_token_id": (1 << 20, U32),
        },
        is_served=None,
    ),
    "a vocabulary of seven": Damage({".vocab_size": (7, U32)}, is_served=None),
    # Templates: the model is served, chats get a clear answer.
    "template: loops": Damage(
        _template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x"), is_served=True
    ),
    "template: large": Damage(_template("{% for a in range(99999) %}{{ 'a' * 100000 }}{% endfor %}"), is_served=True),
    "template: power": Damage(_template("{% set x = 9 %}{{ x ** (x ** x) }}"), is_served=True),
    "template: recursion": Damage(_template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), is_served=True),
    "template: width": Damage(_template("{{ '{:>3000000000}'.format('x') }}"), is_served=True),
    "template: internals": Damage(_template("{{ cycler.__init__.__globals__.os.popen('id').read() }}"), is_served=True),
    "template: syntax": Damage(_template("{% if %}"), is_served=True),
    # Pre-tokenizers, for texts.
    **{f"pre-tokenizer: {name}": _pre_tokenizer(name) for name in ("gpt-4o", "llama4", "tekken", "falcon", "bloom")},
    **{
        f"pre-tokenizer: {name}": _pre_tokenizer(name)
        for name in ("deepseek-v3", "deepseek-coder", "exaone-moe", "superbpe")
    },
}
"""By name. ``is_served`` says what is right, where it is not a matter of taste."""

SAMPLE: Final = (
    "norm of 16 bits",
    "one of a norm no number",
    "a context of one token",
    "template: loops",
)
"""What the test suite tries: an abort, weights that are no numbers, limits that do not fit, and a loop."""

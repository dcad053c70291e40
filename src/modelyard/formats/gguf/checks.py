"""Checks of models: refuses headers on which llama.cpp would abort the process.

A process serves many models, and a GGML_ASSERT in one loader would end them all. Faults that llama.cpp reports as
errors (a missing tensor, a shape that does not fit) are left to it.

Source: llama.cpp as of b11739: load_hparams in src/llama-model.cpp, src/models, build_pooling in
src/llama-graph.cpp, and the operators in ggml/src/ggml-cpu/ops.cpp (norms, rotary embedding, sums and rows of tensors).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.adapter_checks import check_adapter_header
from modelyard.formats.gguf.parse import MAX_LAYERS, Fail, Pairs
from modelyard.formats.gguf.projector_checks import check_projector
from modelyard.formats.gguf.values import GgufArray, GgufTensor
from modelyard.formats.gguf.vocabulary_checks import check_vocabulary

if TYPE_CHECKING:
    from modelyard.formats.gguf.header import GgufHeader

MAX_EXPERTS: Final = 1024  # LLAMA_MAX_EXPERTS
ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope")
MAX_POOLING: Final = 4  # LLAMA_POOLING_TYPE_RANK
RECURRENT_ARCHITECTURES: Final = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})

# Types that exist only within a computation, or have no matrix product.
_NO_WEIGHT_TYPES: Final = frozenset({"Q8_1", "Q8_K", "F64"})
_INTEGER_TYPES: Final = frozenset({"I8", "I16", "I32", "I64"})
_FLOAT_WEIGHT: Final = re.compile(
    r"(?:token_embd|output|blk\.\d+\.(?:attn_(?:q|k|v|qkv|output)|ffn_(?:up|down|gate)(?:_exps)?))\.weight"
)

# Keys that llama.cpp divides by, or requires to be positive, if an architecture has them.
_POSITIVE: Final = (
    "full_attention_interval",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "wkv.head_size",
)
_ALWAYS_EXPERTS: Final = frozenset({"bailingmoe2", "glm4moe", "grovemoe", "llada-moe", "smallthinker"})
_DOUBLE_INNER_WIDTH: Final = frozenset({"jamba", "granitehybrid"})
_LATENT_ATTENTION: Final = frozenset({"deepseek2", "deepseek2-ocr", "mistral4", "hy_v4"})
# Architectures with experts whose gating function the file must name; llama.cpp has a default for all others.
_NO_DEFAULT_GATING: Final = frozenset({"dots1", "hy_v4", "minimax-m2", "smallthinker"})
_GATING_FUNCTIONS: Final = range(1, 5)  # enum llama_expert_gating_func_type, without "none"
_LIGHTNING_INDEXERS: Final = frozenset({"deepseek32", "deepseek4", "glm-dsa", "dots3note"})
_INDEXER_STEP: Final = 64  # size of the smallest matrix that llama.cpp transforms the keys of indexers with
_SECTIONED_ROPE: Final = frozenset({"qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "paddleocr"})


def check_loadable(header: GgufHeader, pairs: Pairs, fail: Fail) -> None:
    """Refuse a file on which llama.cpp would abort the process.

    Shards other than the first have no description of a model, and are checked in part only; so are adapters, of which
    ``adapter_checks.check_adapter`` checks the rest beside their base model.

    Raises:
        UnusableModel: through ``fail``.
    """
    number, count = header.split
    if number >= count:
        fail(f"'split.no' is {number}, but there are only {count} shards ('split.count')")
    if header.is_projector:
        check_projector(header, pairs, fail)
    if header.role == "adapter":
        check_adapter_header(header, pairs, fail)
    if header.role != "model":
        return
    for tensor in header.tensors:
        _check_tensor(tensor, fail)
    if number:
        return
    if not header.architecture:
        fail("The header does not say which architecture it is for ('general.architecture')")
    if not header.tensors and count == 1:
        fail("The file has no tensors: it is a vocabulary or a template, not a model", "Name a file with weights.")
    numbers = _Numbers(header.architecture, pairs, fail)
    _check_layers(numbers, fail)
    _check_experts(numbers, fail)
    _check_attention(numbers, fail)
    _check_positions(numbers, fail)
    _check_architecture(numbers, fail)
    check_vocabulary(pairs, fail)


class _Numbers:
    """The metadata of one architecture, as numbers."""

    def __init__(self, architecture: str, pairs: Pairs, fail: Fail) -> None:
        self.architecture = architecture
        self.values = pairs.values
        self._pairs = pairs
        self._fail = fail

    def key(self, suffix: str) -> str:
        return f"{self.architecture}.{suffix}"

    def integer(self, suffix: str, default: int | None = None) -> int:
        """Return the u32 of a key; if it is missing the default, or fail without one."""
        key = self.key(suffix)
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self._fail(f"The header lacks '{key}'")
        if self._pairs.types[key] != gguf.UINT32 or not isinstance(value, int):
            self._fail(f"'{key}' has the type {gguf.value_type_name(self._pairs.types[key])}, but must be u32")
        return value

    def per_layer(self, suffix: str, layers: int) -> tuple[int, ...]:
        """Return a number for each layer, from an array or from one number for all; () if the key is missing."""
        key = self.key(suffix)
        value = self.values.get(key)
        if value is None:
            return ()
        if isinstance(value, GgufArray):
            numbers = self._pairs.per_layer.get(key, ())
            if len(numbers) != layers:
                self._fail(f"'{key}' has {value.length} elements of {value.type}, but must have {layers} of u32")
            return tuple(number & 0xFFFFFFFF for number in numbers)
        return (self.integer(suffix),) * layers


def _check_tensor(tensor: GgufTensor, fail: Fail) -> None:
    if tensor.type in _NO_WEIGHT_TYPES or (tensor.type in _INTEGER_TYPES and _FLOAT_WEIGHT.fullmatch(tensor.name)):
        fail(f"The tensor '{tensor.name}' has the type {tensor.type}, which weights cannot have")
    if tensor.type != "F32" and len(tensor.shape) < 2:
        fail(f"The tensor '{tensor.name}' has the type {tensor.type}, but what has one dimension must be F32")


def _check_layers(numbers: _Numbers, fail: Fail) -> None:
    layers = numbers.integer("block_count")
    if not 1 <= layers <= MAX_LAYERS:
        fail(f"'{numbers.key('block_count')}' is {layers}, but must be 1 to {MAX_LAYERS}")
    predicted = numbers.integer("nextn_predict_layers", 0)
    if predicted > layers:
        fail(f"'{numbers.key('nextn_predict_layers')}' is {predicted}, but the model has {layers} layers")
    for suffix in ("context_length", "embedding_length"):
        if numbers.integer(suffix) == 0:
            fail(f"'{numbers.key(suffix)}' is 0")


def _check_experts(numbers: _Numbers, fail: Fail) -> None:
    experts = numbers.integer("expert_count", 0)
    used = max(numbers.per_layer("expert_used_count", numbers.integer("block_count")), default=0)
    groups = numbers.integer("expert_group_count", 0)
    used_groups = numbers.integer("expert_group_used_count", 0)
    if numbers.architecture in ("hunyuan_vl", "hunyuan-dense") and experts <= 1:
        experts = used = 0
    if experts > MAX_EXPERTS:
        fail(f"'{numbers.key('expert_count')}' is {experts}, more than the {MAX_EXPERTS} that llama.cpp has room for")
    if used > experts or (experts > 0 and used == 0):
        fail(f"'{numbers.key('expert_used_count')}' is {used} of {experts} experts")
    if groups and (groups >= experts or (groups > 1 and (experts % groups or not 0 < used_groups < groups))):
        fail(f"{experts} experts cannot be routed in {groups} groups, {used_groups} of them used")


def _check_attention(numbers: _Numbers, fail: Fail) -> None:
    layers = numbers.integer("block_count")
    heads = numbers.per_layer("attention.head_count", layers)
    heads_kv = numbers.per_layer("attention.head_count_kv", layers) or heads
    if numbers.architecture not in RECURRENT_ARCHITECTURES and not any(heads):
        fail(f"'{numbers.key('attention.head_count')}' is missing or 0")
    if any(heads) and not any(heads_kv):
        fail(f"'{numbers.key('attention.head_count_kv')}' is 0")
    for layer, (query, shared) in enumerate(zip(heads, heads_kv, strict=True)):
        # In the layers of hybrid models without attention, one or both of the numbers are 0.
        if shared and query % shared:
            fail(f"Layer {layer} has {query} attention heads, which do not divide among {shared} key-value heads")


def _check_positions(numbers: _Numbers, fail: Fail) -> None:
    if numbers.integer("rope.dimension_count", 0) % 2:
        fail(f"'{numbers.key('rope.dimension_count')}' is odd: rotary embedding works on pairs")
    scaling = numbers.values.get(numbers.key("rope.scaling.type"), "linear")
    if scaling not in ROPE_SCALINGS:
        fail(f"'{numbers.key('rope.scaling.type')}' is {scaling!r}, but must be one of {', '.join(ROPE_SCALINGS)}")
    pooling = numbers.integer("pooling_type", 0)
    if pooling > MAX_POOLING:
        fail(f"'{numbers.key('pooling_type')}' is {pooling}, but must be 0 to {MAX_POOLING}")
    for suffix in ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon"):
        epsilon = numbers.values.get(numbers.key(f"attention.{suffix}"), 0.0)
        if not isinstance(epsilon, float) or not math.isfinite(epsilon) or epsilon < 0:
            fail(f"'{numbers.key(f'attention.{suffix}')}' is {epsilon}, but must be a small positive number")


def _check_architecture(numbers: _Numbers, fail: Fail) -> None:
    """Check the assertions of single architectures (load_arch_hparams and load_arch_tensors in src/models)."""
    for suffix in _POSITIVE:
        if numbers.integer(suffix, 1) == 0:
            fail(f"'{numbers.key(suffix)}' is 0")
    architecture = numbers.architecture
    if architecture in _ALWAYS_EXPERTS and numbers.integer("expert_count", 0) == 0:
        fail(f"'{numbers.key('expert_count')}' is missing or 0, but {architecture} has experts")
    gating = numbers.integer("expert_gating_func", 0 if architecture in _NO_DEFAULT_GATING else _GATING_FUNCTIONS[0])
    if numbers.integer("expert_count", 0) and gating not in _GATING_FUNCTIONS:
        fail(
            f"'{numbers.key('expert_gating_func')}' is {gating or 'missing or 0'}, but must be 1 to "
            f"{_GATING_FUNCTIONS[-1]}: it says how experts are chosen"
        )
    indexed = numbers.integer("attention.indexer.key_length", 0)
    if architecture in _LIGHTNING_INDEXERS and indexed % _INDEXER_STEP:
        fail(f"'{numbers.key('attention.indexer.key_length')}' is {indexed}, but must be a multiple of {_INDEXER_STEP}")
    width = numbers.integer("embedding_length")
    if architecture in _DOUBLE_INNER_WIDTH and numbers.integer("ssm.inner_size", 0) != 2 * width:
        fail(f"'{numbers.key('ssm.inner_size')}' must be twice 'embedding_length' ({width})")
    rotated = numbers.integer("rope.dimension_count", 0)
    latent = numbers.integer("attention.key_length_mla", rotated + 1)
    if architecture in _LATENT_ATTENTION and latent <= rotated:
        fail(f"'{numbers.key('attention.key_length_mla')}' is {latent}, not more than the {rotated} rotated dimensions")
    sections = numbers.per_layer("rope.dimension_sections", 4)
    if architecture in _SECTIONED_ROPE and not any(sections[:3]):
        fail(f"'{numbers.key('rope.dimension_sections')}' is missing or 0")

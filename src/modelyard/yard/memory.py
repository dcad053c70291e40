"""What a model takes of the machine's memory, predicted from the header of its file. Pure.

Physical memory is meant, with everything touched that a busy server touches: what counts is what the machine has to
have. Formulas follow llama.cpp as of b11739; the constants without a source are fitted to measurements, which
``tests/integration/test_footprint.py`` repeats.

Nothing here raises: where a header does not say enough, as one of an architecture that is not known here, or as the
first of several shards, the estimate is the larger one.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from modelyard.engine.settings import DEFAULT_CONTEXT, KEPT_EMBEDDINGS_BYTES, PARKED_PART
from modelyard.hub import ModelFiles
from modelyard.hub.gguf_header import GgufArray, GgufHeader, GgufTensor

# llama.cpp rounds a context up to it. Source: src/llama-context.cpp, GGML_PAD(n_ctx, 256).
CONTEXT_STEP: Final = 256

# Heap for one token of the vocabulary, and for one merge: text, maps from text to id.
TOKEN_BYTES: Final = 165
MERGE_BYTES: Final = 175

# What an engine takes beside its tensors and buffers: structures of graphs, its thread, Python's objects.
ENGINE_BYTES: Final = 4_000_000

# Compute buffers, as so many floats for each token of a step: of the width of the model, of its feed-forward layers.
WIDTHS: Final = 6
FEED_FORWARDS: Final = 3

# Types that llama.cpp keeps a second, interleaved copy of, where the rows are a multiple of 8: on x86-64 with AVX2, and
# on ARM (untested). Source: ggml/src/ggml-cpu/repack.cpp, ggml_repack_get_optimal_repack_type.
REPACKED: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
REPACKED_ON_ARM: Final = REPACKED | {"Q5_K", "Q6_K", "Q8_0"}

# Source: llama.cpp, src/llama-context.cpp, llama_init_from_model: "flash_attn is not compatible with Grok".
WITHOUT_FLASH_ATTENTION: Final = frozenset({"grok"})

# A projector with its buffers, in sizes of its file.
PROJECTOR_PARTS: Final = 2

_F16, _F32 = 2, 4

KvType: TypeAlias = Literal["f16", "q8_0"]

# q8_0 keeps 32 values in 34 bytes. Source: ggml/src/ggml-common.h, block_q8_0.
_VALUE_BYTES: Final[Mapping[KvType, float]] = {"f16": _F16, "q8_0": 34 / 32}

_LAYER_TENSOR: Final = re.compile(r"blk\.(\d+)\.(.+)")
_RECURRENT: Final = ("ssm_", "time_mix_", "shortconv.")

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Of the tensors of one layer, by the part of their names that follows "blk.N."."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that a model takes while it is loaded, in bytes.

    Attributes:
        weights_key: equal for models that share one copy of their weights.
        weights_bytes: of weights and vocabulary, shared by all engines on the same files.
        context_bytes: of KV cells, compute and output buffers: what each engine has for itself.
        draft_key, draft_bytes: of the weights of a draft model, if one drafts for it.
    """

    weights_key: str
    weights_bytes: int
    context_bytes: int
    draft_key: str = ""
    draft_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(self.weights.values()) + self.context_bytes

    @property
    def weights(self) -> Mapping[str, int]:
        """Bytes of all weights that it needs, by their keys."""
        weights = {self.weights_key: self.weights_bytes}
        if self.draft_key:
            weights[self.draft_key] = max(self.draft_bytes, weights.get(self.draft_key, 0))
        return weights

    def drafted_by(self, draft: Footprint) -> Footprint:
        """The same with a draft model, whose own footprint is that of a context beside this one's."""
        return replace(
            self,
            context_bytes=self.context_bytes + draft.context_bytes,
            draft_key=draft.weights_key,
            draft_bytes=draft.weights_bytes,
        )

    def with_context(self, bytes_: int) -> Footprint:
        """The same with at least so much beside the weights."""
        return replace(self, context_bytes=max(self.context_bytes, bytes_))

    def corrected(self, weights_bytes: int, context_bytes: int) -> Footprint:
        """The prediction, raised to what was allocated for the weights, and for KV cells and outputs."""
        return replace(
            self,
            weights_bytes=max(self.weights_bytes, weights_bytes),
            context_bytes=max(self.context_bytes, context_bytes),
        )


def predict(
    files: ModelFiles,
    *,
    context_length: int | None,
    running: int,
    sequences: int,
    batch_tokens: int,
    kv_type: KvType = "f16",
    flash_attn: bool | None = None,
    parks: bool = True,
    processor: str = platform.machine(),
) -> Footprint:
    """What the model in ``files`` will take.

    Args:
        files: its first file's header is read; of further shards the size is enough.
        context_length: tokens, None for what engines choose by themselves.
        running: sequences that sample in one step.
        sequences: that its context can tell apart, running or kept.
        batch_tokens: most tokens in a step.
        kv_type: of the numbers in the KV cache.
        flash_attn: False: every head's scores are written down.
        parks: whether idle prefixes are held beside the KV cache.
        processor: as ``platform.machine`` calls it.
    """
    header = files.header
    cells = context_cells(header, context_length)
    return footprint(
        files,
        kv_bytes(header, cells, kv_type)
        + state_bytes(header, sequences)
        + (parked_bytes(header, cells, kv_type) if parks else 0)
        + output_bytes(header, sequences)
        + compute_bytes(header, cells, running, batch_tokens, has_flash_attention=flash_attn is not False)
        + vision_bytes(files),
        processor,
    )


def footprint(files: ModelFiles, context_bytes: int, processor: str = platform.machine()) -> Footprint:
    """That of the model in ``files`` with a context of ``context_bytes``."""
    header = files.header
    # The part of the file before the tensors is unmapped after the load.
    tensors = max(0, files.size_bytes - (header.file_size - header.size_bytes))
    return Footprint(
        weights_key="\n".join(str(path.resolve()) for path in files.paths),
        weights_bytes=tensors + repacked_bytes(header, tensors, processor) + vocabulary_bytes(header),
        context_bytes=context_bytes + ENGINE_BYTES,
    )


def vision_bytes(files: ModelFiles) -> int:
    """Bytes of a projector with its buffers and with the embeddings that are kept; 0 without one.

    The buffers are those of one image at the size that projectors are made for; it is the part that differs most from
    one to the other, and is taken to be as large as the weights.
    """
    return PROJECTOR_PARTS * files.projector_bytes + KEPT_EMBEDDINGS_BYTES if files.projector_bytes else 0


def context_cells(header: GgufHeader, context_length: int | None) -> int:
    """KV cells of a context: what is asked for, else what the model was trained for up to the default, rounded up."""
    wanted = context_length or min(header.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return -(-wanted // CONTEXT_STEP) * CONTEXT_STEP


def kv_bytes(header: GgufHeader, cells: int, kv_type: KvType = "f16") -> int:
    """Bytes of KV cache for ``cells`` tokens.

    Sum over layers of cells * (K width + V width) * bytes of a value; sliding windows save nothing, as we keep all
    their cells. The widths are those of the projections, so layers without attention count nothing, and neither do
    those at the end that share the cells of earlier ones. Layers that cannot be looked at count as much as the widest
    of the others, or as the header's numbers of heads.

    Source: llama.cpp, src/llama-kv-cache.cpp, constructor; has_kv in src/llama-hparams.cpp.
    """
    return int(cells * sum(_kv_widths(header)) * _VALUE_BYTES[kv_type])


def parked_bytes(header: GgufHeader, cells: int, kv_type: KvType = "f16") -> int:
    """Bytes of idle prefixes that an engine may hold beside its KV cache; with a recurrent state it holds none."""
    return 0 if any(_state_rows(header)) else kv_bytes(header, cells, kv_type) // PARKED_PART


def _kv_widths(header: GgufHeader) -> Sequence[int]:
    """Values that each layer keeps for a token."""
    layers = _layers(header)
    widths = [None if shapes is None else _kv_width(header, shapes) for shapes in layers]
    known = [width for width in widths if width is not None]
    if not any(known) and not any(shapes and _is_recurrent(shapes) for shapes in layers):
        widths = [None] * len(layers)
    unseen = max([_declared_kv_width(header), *known])
    with_cells = max(0, len(layers) - _number(header, "attention.shared_kv_layers"))
    return [unseen if width is None else width for width in widths[:with_cells]]


def _kv_width(header: GgufHeader, shapes: Shapes) -> int:
    # Beside a recurrence most models have no attention. Falcon-H1 does, with an output of its own; the layers of Kimi
    # have that output, but their projections feed the recurrence.
    if _is_recurrent(shapes) and ("attn_output.weight" not in shapes or "ssm_conv1d_q.weight" in shapes):
        return 0
    if key := _dimension(shapes, "attn_k.weight", 1):
        # Where V has no projection of its own it is K's.
        return key + (_dimension(shapes, "attn_v.weight", 1) or key)
    if fused := _dimension(shapes, "attn_qkv.weight", 1):
        query = _dimension(shapes, "attn_output.weight", 0) or _number(header, "embedding_length")
        return max(fused - query, 0)
    if latent := _dimension(shapes, "attn_kv_a_mqa.weight", 1):
        # Older files of latent attention are run with all heads spelt out.
        # An indexer, which chooses what is attended to, keeps a key of its own.
        indexed = _number(header, "attention.indexer.key_length")
        return latent + indexed if _number(header, "attention.key_length_mla") else _declared_kv_width(header)
    return 0


def _declared_kv_width(header: GgufHeader) -> int:
    """Width by the header's numbers of heads; where it has none, twice the model's, as without shared heads."""
    heads, width = _number(header, "attention.head_count"), _number(header, "embedding_length")
    head = width // heads if heads else 0
    key = _number(header, "attention.key_length") or head
    # With latent attention V is a part of K.
    value = 0 if _number(header, "attention.key_length_mla") else _number(header, "attention.value_length") or head
    return (_number(header, "attention.head_count_kv") or heads) * (key + value) or 2 * width


def state_bytes(header: GgufHeader, sequences: int) -> int:
    """Bytes of recurrent state, which layers without attention keep for each sequence; 0 for transformers.

    Source: llama.cpp, src/llama-memory-recurrent.cpp, constructor.
    """
    return sequences * sum(_state_rows(header)) * _F32


def _state_rows(header: GgufHeader) -> Sequence[int]:
    """Values that each recurrent layer keeps for a sequence."""
    layers = _layers(header)
    rows = [_state_row(header, shapes) for shapes in layers if shapes and _is_recurrent(shapes)]
    unseen = max([_state_row(header, {}), *rows])
    return [*rows, *[unseen] * layers.count(None)]


def _state_row(header: GgufHeader, shapes: Shapes) -> int:
    """Source: llama.cpp, src/llama-hparams.cpp, n_embd_r and n_embd_s."""
    width, kernel = _number(header, "embedding_length"), _number(header, "ssm.conv_kernel")
    if head := _number(header, "wkv.head_size"):
        return ((_number(header, "token_shift_count") or 2) + head) * width
    if cached := _number(header, "shortconv.l_cache"):
        return (cached - 1) * width
    if head := _number(header, "kda.head_dim"):
        filters = shapes.get("ssm_conv1d_q.weight", ())
        inner = math.prod(filters[1:]) if filters else head * _number(header, "attention.head_count")
        return (3 * (kernel - 1 if kernel else 3) + head) * inner
    inner, state = _number(header, "ssm.inner_size"), _number(header, "ssm.state_size")
    return max(kernel - 1, 0) * (inner + 2 * _number(header, "ssm.group_count") * state) + inner * state


def output_bytes(header: GgufHeader, sequences: int) -> int:
    """Bytes of the buffer that logits are copied to: a row for each sequence that the context can tell apart.

    Source: llama.cpp, src/llama-context.cpp, output_reserve.
    """
    return sequences * vocabulary_size(header) * _F32


def compute_bytes(
    header: GgufHeader, cells: int, running: int, batch_tokens: int, *, has_flash_attention: bool = True
) -> int:
    """Bytes of the buffer that steps work in.

    The mask of the attention has a value for each cell and token of a step, and a second time where some layers have a
    sliding window; it lives as long as the layers, which are computed one after the other. The logits of the sequences
    that sample come when both are gone, in their place. llama.cpp reserves much more address space, for logits of every
    token of a step, which is never touched.

    Source: llama.cpp, src/llama-graph.cpp, build_attn_inp_kq_mask, build_attn_mha, build_moe_ffn;
    ggml/src/ggml-alloc.c.
    """
    attention = 0
    if any(_kv_widths(header)):
        masks = 2 if _number(header, "attention.sliding_window") else 1
        values = masks * _F16
        if header.architecture in WITHOUT_FLASH_ATTENTION or not has_flash_attention:
            values = (masks + _number(header, "attention.head_count")) * _F32
        # An indexer scores each cell for each token of a step, with each of its heads.
        values += _number(header, "attention.indexer.head_count") * _F32
        attention = values * cells * batch_tokens
    # States are gathered for a step, and written back after it.
    states = 2 * running * max(_state_rows(header), default=0)
    layer = batch_tokens * (WIDTHS * _number(header, "embedding_length") + _feed_forward(header)) + states
    return max(attention + layer * _F32, running * vocabulary_size(header) * _F32)


def _feed_forward(header: GgufHeader) -> int:
    """Floats for each token in the widest feed-forward layer.

    The widths are those of its tensors, since the header may have a list, one for each layer. A token goes through
    several experts at once, of which each yields the width of the model.
    """
    dense = [_number(header, "feed_forward_length"), *_widths(header, ".ffn_up.weight")]
    experts = max([0, *_widths(header, ".ffn_up_exps.weight"), *_widths(header, ".ffn_gate_up_exps.weight")])
    used = max(1, _number(header, "expert_used_count")) if experts else 0
    routed = used * (FEED_FORWARDS * experts + _number(header, "embedding_length"))
    return max(FEED_FORWARDS * max(dense), routed)


def _widths(header: GgufHeader, suffix: str) -> Sequence[int]:
    return [tensor.shape[1] for tensor in header.tensors if tensor.name.endswith(suffix) and len(tensor.shape) > 1]


def repacked_bytes(header: GgufHeader, tensors_bytes: int, processor: str) -> int:
    """Bytes of the copies that llama.cpp makes of weights, in an order that its kernels like better.

    The originals stay mapped. Of a split file only the first shard is known; the rest is taken to be alike.

    Args:
        header: of the first file.
        tensors_bytes: of all files.
        processor: as ``platform.machine`` calls it.
    """
    types = REPACKED_ON_ARM if processor.lower().startswith(("arm", "aarch")) else REPACKED
    if header.split[1] > 1 and not header.size_bytes:
        return tensors_bytes if header.quantization.startswith(tuple(types)) else 0
    names = {tensor.name for tensor in header.tensors}
    is_tied = header.split[1] == 1 and "output.weight" not in names
    repacked = sum(tensor.size_bytes for tensor in header.tensors if _is_repacked(tensor, types, is_tied=is_tied))
    return repacked if header.split[1] == 1 else repacked * tensors_bytes // header.size_bytes


def _is_repacked(tensor: GgufTensor, types: frozenset[str], *, is_tied: bool) -> bool:
    if tensor.type not in types or len(tensor.shape) < 2 or tensor.shape[1] % 8:
        return False
    # Embeddings are looked up by row, which needs no copy; those that are the output too get one for that.
    return is_tied if tensor.name == "token_embd.weight" else not tensor.name.startswith("per_layer_token_embd")


def vocabulary_size(header: GgufHeader) -> int:
    """Tokens that the model knows."""
    return _length(header, "tokenizer.ggml.tokens") or _number(header, "vocab_size")


def vocabulary_bytes(header: GgufHeader) -> int:
    """Heap for the vocabulary."""
    return vocabulary_size(header) * TOKEN_BYTES + _length(header, "tokenizer.ggml.merges") * MERGE_BYTES


def _layers(header: GgufHeader) -> Sequence[Shapes | None]:
    """The tensors of each layer; None for a layer that is in another shard, or may be in part."""
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for tensor in header.tensors:
        if match := _LAYER_TENSOR.fullmatch(tensor.name):
            layers.setdefault(int(match[1]), {})[match[2]] = tensor.shape
    if header.split[1] == 1:
        return [layers.get(number, {}) for number in range(header.block_count)]
    layers.pop(max(layers, default=0), None)
    return [layers.get(number) for number in range(header.block_count)]


def _is_recurrent(shapes: Shapes) -> bool:
    return any(name.startswith(_RECURRENT) for name in shapes)


def _dimension(shapes: Shapes, name: str, axis: int) -> int:
    """0 where there is no such tensor, or it has no such axis."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else 0


def _number(header: GgufHeader, key: str) -> int:
    """0 where the header does not say, or has a list."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    return max(0, value) if isinstance(value, int) else 0


def _length(header: GgufHeader, key: str) -> int:
    value = header.metadata.get(key)
    return value.length if isinstance(value, GgufArray) else 0

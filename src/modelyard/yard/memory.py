"""What a model takes of the machine's memory, predicted from the header of its file. Pure.

Physical memory is meant, with everything touched that a busy server touches: what counts is what the machine has to
have. Formulas follow llama.cpp as of b11739; the constants without a source are fitted to measurements, which
``tests/integration/test_footprint.py`` repeats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelyard.engine.settings import DEFAULT_CONTEXT
from modelyard.hub import ModelFiles
from modelyard.hub.gguf_header import GgufHeader, GgufTensor

# llama.cpp rounds a context up to it. Source: src/llama-context.cpp, GGML_PAD(n_ctx, 256).
CONTEXT_STEP = 256

# Heap for one token of the vocabulary, and for one merge: text, maps from text to id.
TOKEN_BYTES = 130
MERGE_BYTES = 140

# What an engine takes beside its tensors and buffers: structures of graphs, its thread, Python's objects.
ENGINE_BYTES = 4_000_000

# Compute buffers, as so many floats for each token of a step: of the width of the model, of its feed-forward layers.
WIDTHS, FEED_FORWARDS = 6, 3

# Types that llama.cpp keeps a second, interleaved copy of on x86-64 with AVX2, where the rows are a multiple of 8.
# Source: ggml/src/ggml-cpu/repack.cpp, ggml_repack_get_optimal_repack_type.
REPACKED = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})

_F16, _F32 = 2, 4

_RECURRENT = re.compile(r"^blk\.\d+\.(ssm|time_mix)_")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that a model takes while it is loaded, in bytes.

    Attributes:
        weights_key: equal for models that share one copy of their weights.
        weights_bytes: of weights and vocabulary, shared by all engines on the same files.
        context_bytes: of KV cells, compute and output buffers: what each engine has for itself.
    """

    weights_key: str
    weights_bytes: int
    context_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.context_bytes

    def corrected(self, weights_bytes: int, context_bytes: int) -> Footprint:
        """The prediction, raised to what was allocated for the weights, and for KV cells and outputs."""
        return replace(
            self,
            weights_bytes=max(self.weights_bytes, weights_bytes),
            context_bytes=max(self.context_bytes, context_bytes),
        )


def predict(
    files: ModelFiles, *, context_length: int | None, running: int, sequences: int, batch_tokens: int
) -> Footprint:
    """What the model in ``files`` will take.

    Args:
        files: its first file's header is read; of further shards the size is enough.
        context_length: tokens, None for what engines choose by themselves.
        running: sequences that sample in one step.
        sequences: that its context can tell apart, running or kept.
        batch_tokens: most tokens in a step.
    """
    header = files.header
    cells = context_cells(header, context_length)
    return Footprint(
        weights_key="\n".join(str(path.resolve()) for path in files.paths),
        weights_bytes=files.size_bytes + repacked_bytes(header) + vocabulary_bytes(header),
        context_bytes=kv_bytes(header, cells)
        + state_bytes(header, sequences)
        + output_bytes(header, sequences)
        + compute_bytes(header, cells, running, batch_tokens)
        + ENGINE_BYTES,
    )


def context_cells(header: GgufHeader, context_length: int | None) -> int:
    """KV cells of a context: what is asked for, else what the model was trained for up to the default, rounded up."""
    wanted = context_length or min(header.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return -(-wanted // CONTEXT_STEP) * CONTEXT_STEP


def kv_bytes(header: GgufHeader, cells: int) -> int:
    """Bytes of KV cache for ``cells`` tokens, at 16 bits a value.

    Sum over layers of cells * (K width + V width) * 2; sliding windows save nothing, as we keep all their cells. The
    widths are those of the projections, so layers without attention count nothing. Where a file has no projections
    that are known here, each layer counts twice the model's width: more than any published model needs.

    Source: llama.cpp, src/llama-kv-cache.cpp, constructor.
    """
    tensors = {tensor.name: tensor for tensor in header.tensors}
    widths = [_kv_width(header, tensors, layer) for layer in range(header.block_count)]
    if not any(widths) and not any(_RECURRENT.search(name) for name in tensors):
        widths = [2 * _number(header, "embedding_length")] * header.block_count
    return cells * sum(widths) * _F16


def _kv_width(header: GgufHeader, tensors: Mapping[str, GgufTensor], layer: int) -> int:
    key, value = (tensors.get(f"blk.{layer}.attn_{part}.weight") for part in ("k", "v"))
    if key is not None:
        # Where V has no projection of its own it is K's.
        return key.shape[1] + (value or key).shape[1]
    fused = tensors.get(f"blk.{layer}.attn_qkv.weight")
    if fused is not None:
        output = tensors.get(f"blk.{layer}.attn_output.weight")
        query = output.shape[0] if output is not None else _number(header, "embedding_length")
        return max(fused.shape[1] - query, 0)
    latent = tensors.get(f"blk.{layer}.attn_kv_a_mqa.weight")
    # Multi-head latent attention keeps the latent, once as K and once, shorter, as V.
    return 2 * latent.shape[1] if latent is not None else 0


def state_bytes(header: GgufHeader, sequences: int) -> int:
    """Bytes of recurrent state, which a model without attention keeps for each sequence; 0 for transformers.

    Source: llama.cpp, src/llama-hparams.cpp, n_embd_r and n_embd_s.
    """
    inner, state = _number(header, "ssm.inner_size"), _number(header, "ssm.state_size")
    groups, kernel = _number(header, "ssm.group_count"), _number(header, "ssm.conv_kernel")
    rows = max(kernel - 1, 0) * (inner + 2 * groups * state) + inner * state
    heads = _number(header, "wkv.head_size")
    rows += (heads + 2) * _number(header, "embedding_length") if heads else 0
    layers = {
        tensor.name.split(".")[1] for tensor in header.tensors if ".ssm_" in tensor.name or "time_mix" in tensor.name
    }
    return sequences * rows * len(layers) * _F32


def output_bytes(header: GgufHeader, sequences: int) -> int:
    """Bytes of the buffer that logits are copied to: a row for each sequence that the context can tell apart.

    Source: llama.cpp, src/llama-context.cpp, output_reserve.
    """
    return sequences * vocabulary_size(header) * _F32


def compute_bytes(header: GgufHeader, cells: int, running: int, batch_tokens: int) -> int:
    """Bytes of the buffer that steps work in.

    The mask of the attention has a value for each cell and token of a step, and a second time where some layers have a
    sliding window; it lives through the step. Beside it are the layers, one after the other, and then, in the same
    place, logits for each sequence that samples. llama.cpp reserves much more address space, for logits of every token
    of a step, which is never touched.

    Source: llama.cpp, src/llama-graph.cpp, build_attn_inp_kv; ggml/src/ggml-alloc.c.
    """
    width, feed_forward = _number(header, "embedding_length"), _feed_forward(header)
    masks = 2 if _number(header, "attention.sliding_window") else 1
    layer = batch_tokens * (WIDTHS * width + FEED_FORWARDS * feed_forward)
    logits = running * vocabulary_size(header)
    return (masks * cells * batch_tokens + max(layer, logits)) * _F32


def repacked_bytes(header: GgufHeader) -> int:
    """Bytes of the copies that llama.cpp makes of weights, in an order that its kernels like better.

    Of a split file only the first shard is known; the rest is taken to be alike.
    """
    repacked = sum(tensor.size_bytes for tensor in header.tensors if _is_repacked(tensor))
    return repacked * header.split[1]


def _is_repacked(tensor: GgufTensor) -> bool:
    if tensor.type not in REPACKED or len(tensor.shape) < 2 or tensor.shape[1] % 8:
        return False
    # Embeddings are looked up by row.
    return not tensor.name.startswith(("token_embd", "per_layer_token_embd"))


def vocabulary_size(header: GgufHeader) -> int:
    """Tokens that the model knows."""
    return _length(header, "tokenizer.ggml.tokens")


def vocabulary_bytes(header: GgufHeader) -> int:
    """Heap for the vocabulary."""
    return vocabulary_size(header) * TOKEN_BYTES + _length(header, "tokenizer.ggml.merges") * MERGE_BYTES


def _feed_forward(header: GgufHeader) -> int:
    """The widest feed-forward layer: of its tensors, since the header may have a list, one for each layer."""
    widths = [t.shape[1] for t in header.tensors if t.name.endswith((".ffn_up.weight", ".ffn_up_exps.weight"))]
    return max([_number(header, "feed_forward_length"), *widths])


def _number(header: GgufHeader, key: str) -> int:
    value = header.metadata.get(f"{header.architecture}.{key}")
    return value if isinstance(value, int) else 0


def _length(header: GgufHeader, key: str) -> int:
    value = header.metadata.get(key)
    return getattr(value, "length", 0)

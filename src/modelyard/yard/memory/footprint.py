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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from modelyard.engine.settings import DEFAULT_CONTEXT, KEPT_EMBEDDINGS_BYTES, PARKED_PART
from modelyard.formats.gguf.header import GgufArray, GgufHeader, GgufTensor
from modelyard.hub import ModelFiles
from modelyard.system.cores import usable_cores
from modelyard.system.file_stamp import FileStamp
from modelyard.yard.memory.layer_shapes import Shapes, dimension, is_computed, is_recurrent, layers_of, number_of
from modelyard.yard.memory.step_buffer import touched_bytes
from modelyard.yard.memory.step_graph import Step, step_graph

# llama.cpp rounds a context up to it. Source: src/llama-context.cpp, GGML_PAD(n_ctx, 256).
CONTEXT_STEP: Final = 256

# Heap for one token of the vocabulary, and for one merge: text, maps from text to id.
TOKEN_BYTES: Final = 165
MERGE_BYTES: Final = 175

# What an engine takes beside its tensors and buffers: structures of graphs, its thread, Python's objects.
ENGINE_BYTES: Final = 8_000_000

# Each sequence that samples keeps all tokens with their logits and probabilities. Source: llama.cpp, include/llama.h,
# llama_token_data; src/llama-sampler.cpp, llama_sampler_chain.
CANDIDATE_BYTES: Final = 12

# Tensors and graphs of a step are described in memory that is written over when it is allocated: for tokens that are
# computed, tokens that are not yet answered, and to reserve room. Source: llama.cpp, src/llama-context.h, gf_res_prev,
# gf_res_reserve; src/llama-graph.cpp, llm_graph_result::reset.
GRAPHS: Final = 3

# Architectures with room for so many tensors of a graph for each token of a step, and for each tensor of the model; and
# what all others have. Source: llama.cpp, src/llama-context.cpp, graph_max_nodes.
NODES: Final[Mapping[str, tuple[int, int]]] = {
    "kimi-k3": (160, 64),
    "glm5-next": (160, 64),
    "hrm_text": (80, 64),
    **dict.fromkeys(
        (
            "bailingmoe3",
            "deepseek4",
            "hy_v4",
            "kimi-linear",
            "minimax-01",
            "minimax-m3",
            "nanbeige",
            "qwen35",
            "qwen35moe",
            "qwen3next",
            "qwen4exp",
        ),
        (40, 32),
    ),
}
MIN_NODES: Final = 1024

# Architectures for which a step of one sequence is reserved. Source: llama.cpp, src/llama-context.cpp, sched_reserve.
ONE_RESERVED: Final = frozenset({"kimi-linear", "minimax-01"})
NODES_OF_OTHERS: Final = (0, 8)

# Layers of Gemma 3n that keep cells.
GEMMA_3N_LAYERS: Final = 20

# Of a cell: position, two offsets, a bit for each of 256 sequences, and two nodes of trees.
CELL_BYTES: Final = 144

# Rows and columns of a tile of attention, and what a thread has for one of a product. Source: llama.cpp,
# ggml/src/ggml-cpu/common.h, GGML_FA_TILE_Q; ggml/src/ggml-cpu/tiled/tiled.cpp, TILED_WS_SLOT.
_TILE: Final = 64
_MATRIX_TILES: Final = 512 << 10

# Most bytes of a value in the types that operands are converted to for quantised weights: 292 for 256. Source:
# ggml/src/ggml-common.h, block_q8_K.
_QUANTISED_VALUE: Final = 292 / 256

# Source: llama.cpp, ggml/include/ggml.h, GGML_TENSOR_SIZE and GGML_OBJECT_SIZE; ggml/src/ggml.c, ggml_graph_nbytes.
TENSOR_OVERHEAD: Final = 368
_POINTER: Final = 8

# Types that llama.cpp keeps a second, interleaved copy of, where the rows are a multiple of 8: on x86-64 with AVX2, and
# on ARM (untested). Source: ggml/src/ggml-cpu/repack.cpp, ggml_repack_get_optimal_repack_type.
REPACKED: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
REPACKED_ON_ARM: Final = REPACKED | {"Q5_K", "Q6_K", "Q8_0"}

# A projector with its buffers, in sizes of its file.
PROJECTOR_PARTS: Final = 2

_F16, _F32 = 2, 4

KvType: TypeAlias = Literal["f16", "q8_0"]

# q8_0 keeps 32 values in 34 bytes. Source: ggml/src/ggml-common.h, block_q8_0.
_VALUE_BYTES: Final[Mapping[KvType, float]] = {"f16": _F16, "q8_0": 34 / 32}


# Of a process for an engine, beside what the engine takes on a thread: measured in docs/performance.md.
PROCESS_BYTES: Final = 20 << 20


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

    def in_process(self) -> Footprint:
        """The same in a process of its own, which shares weights with the models on the same files there and no other.

        A draft model's weights are there a second time, where that model has an engine too.
        """
        return replace(
            self,
            weights_key=f"process {self.weights_key}",
            context_bytes=self.context_bytes + PROCESS_BYTES,
            draft_key=f"process {self.weights_key} {self.draft_key}" if self.draft_key else "",
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


def _identity(stamp: FileStamp) -> str:
    return f"{stamp.device}:{stamp.inode} {stamp.modified_ns}"


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
    threads: int | None = None,
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
        threads: that compute; None for as many as engines have.
    """
    header = files.header
    threads = usable_cores() if threads is None else threads
    cells = context_cells(header, context_length)
    return footprint(
        files,
        kv_bytes(header, cells, kv_type)
        + state_bytes(header, sequences)
        + (parked_bytes(header, cells, sequences, kv_type) if parks else 0)
        + output_bytes(header, sequences)
        + sampler_bytes(header, running)
        + compute_bytes(
            header,
            cells,
            tokens=batch_tokens,
            running=running,
            sequences=sequences,
            # Where answers are guessed from what was said, as many are verified as the context has sequences.
            outputs=running if any(_state_rows(header)) else sequences,
            has_flash_attention=flash_attn is not False,
            has_embeddings=bool(files.projector_bytes),
        )
        + graph_bytes(header, batch_tokens)
        + work_bytes(header, batch_tokens, threads)
        + cell_bytes(header, cells)
        + vision_bytes(files),
        processor,
    )


def footprint(files: ModelFiles, context_bytes: int, processor: str = platform.machine()) -> Footprint:
    """That of the model in ``files`` with a context of ``context_bytes``."""
    header = files.header
    tensors = tensor_bytes(files)
    return Footprint(
        # Of a file that was replaced, what is mapped of the old one is not shared with the new one.
        weights_key="\n".join([*(str(path.resolve()) for path in files.paths), *map(_identity, files.stamps)]),
        weights_bytes=tensors + repacked_bytes(header, tensors, processor) + vocabulary_bytes(header),
        context_bytes=context_bytes + ENGINE_BYTES,
    )


def tensor_bytes(files: ModelFiles) -> int:
    """Bytes of the part of the files that stays mapped: from the first to the last tensor that is loaded.

    Source: llama.cpp, src/llama-model-loader.cpp, get_mapping_range, and load_all_data, which unmaps the rest.
    """
    header = files.header
    whole = max(0, files.size_bytes - (header.file_size - header.size_bytes))
    loaded = [tensor for tensor in header.tensors if is_computed(header, tensor.name)]
    if header.split[1] > 1 or len(loaded) == len(header.tensors):
        return whole
    first = min((tensor.offset for tensor in loaded), default=0)
    return min(whole, max((tensor.offset + tensor.size_bytes for tensor in loaded), default=0) - first)


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


def parked_bytes(header: GgufHeader, cells: int, sequences: int, kv_type: KvType = "f16") -> int:
    """Bytes of idle prefixes that an engine may hold beside its context: a part of what that has for cells and outputs.
    With a recurrent state it holds none."""
    if any(_state_rows(header)):
        return 0
    return (kv_bytes(header, cells, kv_type) + output_bytes(header, sequences)) // PARKED_PART


def _kv_widths(header: GgufHeader) -> Sequence[int]:
    """Values that each layer keeps for a token."""
    layers = layers_of(header)
    widths = [None if shapes is None else _kv_width(header, shapes) for shapes in layers]
    known = [width for width in widths if width is not None]
    if not any(known) and not any(shapes and is_recurrent(shapes) for shapes in layers):
        widths = [None] * len(layers)
    unseen = max([_declared_kv_width(header), *known])
    with_cells = max(0, len(layers) - number_of(header, "attention.shared_kv_layers"))
    if header.architecture == "gemma3n":
        # Whatever the header says. Source: llama.cpp, src/models/gemma3n.cpp, n_layer_kv_from_start.
        with_cells = GEMMA_3N_LAYERS
    return [unseen if width is None else width for width in widths[:with_cells]]


def _kv_width(header: GgufHeader, shapes: Shapes) -> int:
    # Beside a recurrence most models have no attention. Falcon-H1 does, with an output of its own; the layers of Kimi
    # have that output, but their projections feed the recurrence.
    if is_recurrent(shapes) and ("attn_output.weight" not in shapes or "ssm_conv1d_q.weight" in shapes):
        return 0
    if key := dimension(shapes, "attn_k.weight", 1):
        # Where V has no projection of its own it is K's.
        return key + (dimension(shapes, "attn_v.weight", 1) or key)
    if fused := dimension(shapes, "attn_qkv.weight", 1):
        query = dimension(shapes, "attn_output.weight", 0) or number_of(header, "embedding_length")
        return max(fused - query, 0)
    if latent := dimension(shapes, "attn_kv_a_mqa.weight", 1):
        # Older files of latent attention are run with all heads spelt out.
        # An indexer, which chooses what is attended to, keeps a key of its own.
        indexed = number_of(header, "attention.indexer.key_length")
        return latent + indexed if number_of(header, "attention.key_length_mla") else _declared_kv_width(header)
    return 0


def _declared_kv_width(header: GgufHeader) -> int:
    """Width by the header's numbers of heads; where it has none, twice the model's, as without shared heads."""
    heads, width = number_of(header, "attention.head_count"), number_of(header, "embedding_length")
    head = width // heads if heads else 0
    key = number_of(header, "attention.key_length") or head
    # With latent attention V is a part of K.
    value = 0 if number_of(header, "attention.key_length_mla") else number_of(header, "attention.value_length") or head
    return (number_of(header, "attention.head_count_kv") or heads) * (key + value) or 2 * width


def state_bytes(header: GgufHeader, sequences: int) -> int:
    """Bytes of recurrent state, which layers without attention keep for each sequence; 0 for transformers.

    Source: llama.cpp, src/llama-memory-recurrent.cpp, constructor.
    """
    return sequences * sum(_state_rows(header)) * _F32


def _state_rows(header: GgufHeader) -> Sequence[int]:
    """Values that each recurrent layer keeps for a sequence."""
    layers = layers_of(header)
    rows = [_state_row(header, shapes) for shapes in layers if shapes and is_recurrent(shapes)]
    unseen = max([_state_row(header, {}), *rows])
    return [*rows, *[unseen] * layers.count(None)]


def _state_row(header: GgufHeader, shapes: Shapes) -> int:
    """Source: llama.cpp, src/llama-hparams.cpp, n_embd_r and n_embd_s."""
    width, kernel = number_of(header, "embedding_length"), number_of(header, "ssm.conv_kernel")
    if head := number_of(header, "wkv.head_size"):
        return ((number_of(header, "token_shift_count") or 2) + head) * width
    if cached := number_of(header, "shortconv.l_cache"):
        return (cached - 1) * width
    if head := number_of(header, "kda.head_dim"):
        filters = shapes.get("ssm_conv1d_q.weight", ())
        inner = math.prod(filters[1:]) if filters else head * number_of(header, "attention.head_count")
        return (3 * (kernel - 1 if kernel else 3) + head) * inner
    inner, state = number_of(header, "ssm.inner_size"), number_of(header, "ssm.state_size")
    return max(kernel - 1, 0) * (inner + 2 * number_of(header, "ssm.group_count") * state) + inner * state


def output_bytes(header: GgufHeader, sequences: int) -> int:
    """Bytes of the buffer that logits are copied to: a row for each sequence that the context can tell apart.

    Source: llama.cpp, src/llama-context.cpp, output_reserve.
    """
    return sequences * vocabulary_size(header) * _F32


def sampler_bytes(header: GgufHeader, running: int) -> int:
    """Bytes in which the sequences that sample keep their candidates."""
    return running * vocabulary_size(header) * CANDIDATE_BYTES


def compute_bytes(
    header: GgufHeader,
    cells: int,
    *,
    tokens: int,
    running: int,
    sequences: int,
    outputs: int,
    has_flash_attention: bool = True,
    has_embeddings: bool = False,
) -> int:
    """Bytes that steps touch of the buffer that they work in.

    llama.cpp reserves it for a step of all sequences that the context can tell apart, with logits for every token. What
    is touched are steps of one prompt, which have the longest convolutions, and steps in which all that run have a
    part, which have the most states; at the places that the reserved step has.

    Args:
        header: of the model.
        cells: of the KV cache.
        tokens: most in a step.
        running: sequences in one step.
        sequences: that the context can tell apart.
        outputs: most logits of a step.
        has_flash_attention: see ``Step``.
        has_embeddings: see ``Step``.

    Source: llama.cpp, src/llama-context.cpp, sched_reserve, graph_reserve; see also ``step_graph``.
    """
    tokens = min(tokens, cells) if cells else tokens
    vocabulary = vocabulary_size(header)
    told_apart = 1 if header.architecture in ONE_RESERVED else max(1, sequences)
    reserved = Step(cells, -(-tokens // told_apart) * told_apart, told_apart, tokens, has_flash_attention)
    steps = [
        Step(cells, tokens, count, min(outputs, tokens), has_flash_attention, has_embeddings)
        for count in sorted({1, max(1, min(running, tokens))})
    ]
    return touched_bytes(
        step_graph(header, reserved, vocabulary), [step_graph(header, step, vocabulary) for step in steps]
    )


def graph_bytes(header: GgufHeader, tokens: int) -> int:
    """Bytes in which llama.cpp describes the operations of a step of ``tokens``."""
    for_token, for_tensor = NODES.get(header.architecture, NODES_OF_OTHERS)
    tensors = sum(is_computed(header, tensor.name) for tensor in header.tensors) * max(1, header.split[1])
    nodes = max(MIN_NODES, for_token * tokens, for_tensor * tensors)
    graph = nodes * (TENSOR_OVERHEAD + 2 * _POINTER) + _hash_size(2 * nodes) * (_POINTER + _F32 + 1 / 8)
    # The scheduler notes for each what it is computed on, and its copies.
    return int(GRAPHS * graph + _hash_size(nodes) * (_POINTER + _F32))


def _hash_size(least: int) -> int:
    """About the next power of two. Source: llama.cpp, ggml/src/ggml.c, ggml_hash_size."""
    return 1 << max(0, least - 1).bit_length()


def work_bytes(header: GgufHeader, tokens: int, threads: int) -> int:
    """Bytes in which the operands of products are converted to the type of the weights, and attention is tiled.

    Source: llama.cpp, ggml/src/ggml-cpu/ggml-cpu.c, ggml_graph_plan.
    """
    heads, used = number_of(header, "attention.head_count"), max(1, number_of(header, "expert_used_count"))
    converted = [0.0]
    for tensor in header.tensors:
        if len(tensor.shape) < 2 or tensor.type == "F32" or tensor.name.startswith("token_embd"):
            continue
        width = tensor.shape[0]
        if tensor.name.endswith(("attn_k_b.weight", "attn_v_b.weight")):
            width *= heads
        elif "_down_exps." in tensor.name:
            # What goes in is the same for all experts, what comes out of them is not.
            width *= used
        converted.append(width * (_F16 if tensor.type in ("F16", "BF16") else _QUANTISED_VALUE))
    key = number_of(header, "attention.key_length") or (number_of(header, "embedding_length") // heads if heads else 0)
    value = number_of(header, "attention.value_length") or key
    tiled = 2 * _TILE * (key + value + _TILE) * _F32
    return int(tokens * max(converted)) + threads * (tiled + _MATRIX_TILES)


def cell_bytes(header: GgufHeader, cells: int) -> int:
    """Bytes of the books of the KV cache: which cell holds which position of which sequences.

    Source: llama.cpp, src/llama-kv-cells.h: four vectors, and two trees that have a node for each cell in use.
    """
    return (
        cells * CELL_BYTES * (1 + bool(number_of(header, "attention.sliding_window"))) if any(_kv_widths(header)) else 0
    )


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
    repacked = sum(
        tensor.size_bytes
        for tensor in header.tensors
        if is_computed(header, tensor.name) and _is_repacked(tensor, types, is_tied=is_tied)
    )
    return repacked if header.split[1] == 1 else repacked * tensors_bytes // header.size_bytes


def _is_repacked(tensor: GgufTensor, types: frozenset[str], *, is_tied: bool) -> bool:
    if tensor.type not in types or len(tensor.shape) < 2 or tensor.shape[1] % 8:
        return False
    # Embeddings are looked up by row, which needs no copy; those that are the output too get one for that.
    return is_tied if tensor.name == "token_embd.weight" else not tensor.name.startswith("per_layer_token_embd")


def vocabulary_size(header: GgufHeader) -> int:
    """Tokens that the model knows."""
    return _length(header, "tokenizer.ggml.tokens") or number_of(header, "vocab_size")


def vocabulary_bytes(header: GgufHeader) -> int:
    """Heap for the vocabulary."""
    return vocabulary_size(header) * TOKEN_BYTES + _length(header, "tokenizer.ggml.merges") * MERGE_BYTES


def _length(header: GgufHeader, key: str) -> int:
    value = header.metadata.get(key)
    return value.length if isinstance(value, GgufArray) else 0

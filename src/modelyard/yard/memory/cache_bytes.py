"""What the KV cache and recurrent states of a model take of the machine's memory. Pure; see ``footprint``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from modelyard.engine.settings import CHECKPOINTS, DEFAULT_CONTEXT, PARKED_PART
from modelyard.engine.windows import full_layer_period, window_cells
from modelyard.formats.gguf.header import GgufHeader
from modelyard.yard.memory.layer_shapes import Shapes, dimension, is_recurrent, layers_of, number_of
from modelyard.yard.memory.step_bytes import output_bytes

# llama.cpp rounds a context up to it. Source: src/llama-context.cpp, GGML_PAD(n_ctx, 256).
CONTEXT_STEP: Final = 256

# Layers of Gemma 3n that keep cells.
GEMMA_3N_LAYERS: Final = 20

# Bookkeeping of a cell: position, two offsets, a bit for each of 256 sequences, and two nodes of trees.
CELL_BYTES: Final = 144

_F16, _F32 = 2, 4

KvType: TypeAlias = Literal["f16", "q8_0"]

# q8_0 keeps 32 values in 34 bytes. Source: ggml/src/ggml-common.h, block_q8_0.
_VALUE_BYTES: Final[Mapping[KvType, float]] = {"f16": _F16, "q8_0": 34 / 32}


def context_cells(header: GgufHeader, context_length: int | None) -> int:
    """Return the KV cells of a context: the given length, else the trained one up to the default, rounded up."""
    length = context_length or min(header.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return -(-length // CONTEXT_STEP) * CONTEXT_STEP


@dataclass(frozen=True, slots=True)
class Windows:
    """What the cells of layers with a sliding window depend on, where only windows are kept.

    Attributes:
        sequences: of the context, running or kept.
        step_tokens: limit of the tokens in a step.
    """

    sequences: int
    step_tokens: int


def is_windowed(header: GgufHeader) -> bool:
    """Whether layers with a sliding window keep windows alone: see ``engine.windows``."""
    return _period(header) is not None


def _period(header: GgufHeader) -> int | None:
    pattern = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern")
    # A list with the kind of each layer is not read.
    if not number_of(header, "attention.sliding_window") or not (pattern is None or isinstance(pattern, int)):
        return None
    return full_layer_period(header.architecture, pattern)


def kv_bytes(header: GgufHeader, cells: int, kv_type: KvType = "f16", windows: Windows | None = None) -> int:
    """Return the bytes of KV cache for ``cells`` tokens.

    It is the sum over layers of cells * (K width + V width) * bytes of a value; with ``windows``, layers with a sliding
    window have fewer cells. The widths are those of the projections, so layers without attention count nothing, and
    neither do those at the end that share the cells of earlier ones. Layers in other shards count as much as the widest
    of the known ones, or as the header's numbers of heads.

    Source: llama.cpp, src/llama-kv-cache.cpp, constructor; has_kv in src/llama-hparams.cpp.
    """
    return sum(kv_bytes_by_layer(header, cells, kv_type, windows))


def kv_bytes_by_layer(
    header: GgufHeader, cells: int, kv_type: KvType = "f16", windows: Windows | None = None
) -> Sequence[int]:
    """Return the bytes of KV cache of each layer, in their order; layers at the end may have none."""
    within = cells_of_windows(header, cells, windows)
    return [
        int((within if is_window else cells) * width * _VALUE_BYTES[kv_type])
        for width, is_window in zip(_kv_widths(header), _are_windows(header), strict=False)
    ]


def cells_of_windows(header: GgufHeader, cells: int, windows: Windows | None) -> int:
    """Return the cells of layers with a sliding window; ``cells`` where all are kept."""
    if windows is None or not is_windowed(header):
        return cells
    window = number_of(header, "attention.sliding_window")
    return window_cells(window, cells=cells, sequences=windows.sequences, step_tokens=windows.step_tokens)


def _are_windows(header: GgufHeader) -> Sequence[bool]:
    """Return of each layer whether it keeps a window alone."""
    layers, period = len(layers_of(header)), _period(header)
    # Source: llama.cpp, src/llama-hparams.cpp, set_swa_pattern.
    return [False] * layers if period is None else [not period or at % period < period - 1 for at in range(layers)]


def _checkpoint_bytes(header: GgufHeader, cells: int, kv_type: KvType, windows: Windows | None) -> int:
    """Return the bytes of checkpoints of windows, which take no more than the cells would that windows spare."""
    if windows is None or not is_windowed(header):
        return 0
    spared = cells - cells_of_windows(header, cells, windows)
    held = min(CHECKPOINTS * number_of(header, "attention.sliding_window"), spared)
    sizes = zip(kv_bytes_by_layer(header, held, kv_type), _are_windows(header), strict=False)
    return sum(size for size, is_window in sizes if is_window)


def parked_bytes(
    header: GgufHeader, cells: int, sequences: int, kv_type: KvType = "f16", windows: Windows | None = None
) -> int:
    """Return the bytes of idle prefixes, and of checkpoints of recurrent states or of windows, that an engine may hold.

    They are a part of those of cells, states and outputs, and those of some states more.
    """
    cache = kv_bytes(header, cells, kv_type, windows) + state_bytes(header, sequences)
    states = state_bytes(header, CHECKPOINTS) + _checkpoint_bytes(header, cells, kv_type, windows)
    return (cache + output_bytes(header, sequences)) // PARKED_PART + states


def _kv_widths(header: GgufHeader) -> Sequence[int]:
    """Return the values that each layer keeps for a token."""
    layers = layers_of(header)
    widths = [None if shapes is None else _kv_width(header, shapes) for shapes in layers]
    known = [width for width in widths if width is not None]
    if not any(known) and not any(shapes and is_recurrent(shapes) for shapes in layers):
        widths = [None] * len(layers)
    unknown = max([_declared_kv_width(header), *known])
    with_cells = max(0, len(layers) - number_of(header, "attention.shared_kv_layers"))
    if header.architecture == "gemma3n":
        # Independent of the header. Source: llama.cpp, src/models/gemma3n.cpp, n_layer_kv_from_start.
        with_cells = GEMMA_3N_LAYERS
    return [unknown if width is None else width for width in widths[:with_cells]]


def _kv_width(header: GgufHeader, shapes: Shapes) -> int:
    # Beside a recurrence most models have no attention. Falcon-H1 does, with an output of its own; the layers of Kimi
    # have that output, but their projections feed the recurrence.
    if is_recurrent(shapes) and ("attn_output.weight" not in shapes or "ssm_conv1d_q.weight" in shapes):
        return 0
    if key := dimension(shapes, "attn_k.weight", 1):
        # V without a projection of its own is as wide as K.
        return key + (dimension(shapes, "attn_v.weight", 1) or key)
    if fused := dimension(shapes, "attn_qkv.weight", 1):
        query = dimension(shapes, "attn_output.weight", 0) or number_of(header, "embedding_length")
        return max(fused - query, 0)
    if latent := dimension(shapes, "attn_kv_a_mqa.weight", 1):
        # In older files of latent attention all heads are stored in full. An indexer, which chooses what is attended
        # to, keeps a key of its own.
        indexed = number_of(header, "attention.indexer.key_length")
        return latent + indexed if number_of(header, "attention.key_length_mla") else _declared_kv_width(header)
    return 0


def _declared_kv_width(header: GgufHeader) -> int:
    """Return the width by the header's numbers of heads; without them twice the model's, as without shared heads."""
    heads, width = number_of(header, "attention.head_count"), number_of(header, "embedding_length")
    head = width // heads if heads else 0
    key = number_of(header, "attention.key_length") or head
    # With latent attention V is a part of K.
    value = 0 if number_of(header, "attention.key_length_mla") else number_of(header, "attention.value_length") or head
    return (number_of(header, "attention.head_count_kv") or heads) * (key + value) or 2 * width


def state_bytes(header: GgufHeader, sequences: int) -> int:
    """Return the bytes of recurrent state, which layers without attention keep for each sequence; 0 for transformers.

    Source: llama.cpp, src/llama-memory-recurrent.cpp, constructor.
    """
    return sum(state_bytes_by_layer(header, sequences))


def state_bytes_by_layer(header: GgufHeader, sequences: int) -> Sequence[int]:
    """Return the bytes of recurrent state of each layer, in their order."""
    return [sequences * width * _F32 for width in _state_widths(header)]


def has_state(header: GgufHeader) -> bool:
    """Whether any layer keeps a recurrent state."""
    return any(_state_widths(header))


def _state_widths(header: GgufHeader) -> Sequence[int]:
    """Return the values that each layer keeps for a sequence; of one in another shard those of the largest known."""
    layers = layers_of(header)
    rows = [_state_width(header, shapes) if shapes and is_recurrent(shapes) else 0 for shapes in layers]
    unknown = max([_state_width(header, {}), *rows])
    return [unknown if shapes is None else row for shapes, row in zip(layers, rows, strict=True)]


def _state_width(header: GgufHeader, shapes: Shapes) -> int:
    """Return the values of one layer. Source: llama.cpp, src/llama-hparams.cpp, n_embd_r and n_embd_s."""
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


def cell_bytes(header: GgufHeader, cells: int) -> int:
    """Return the bytes that record which cell of the KV cache holds which position of which sequences.

    Source: llama.cpp, src/llama-kv-cells.h: four vectors, and two trees that have a node for each cell in use.
    """
    return (
        cells * CELL_BYTES * (1 + bool(number_of(header, "attention.sliding_window"))) if any(_kv_widths(header)) else 0
    )

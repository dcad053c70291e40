"""Predicts what an embedding or ranking model takes of the machine's memory. Pure; see ``footprint``."""

from __future__ import annotations

import platform

from modelyard.engine.pooling.shape import embedding_shape
from modelyard.engine.settings import DEFAULT_CONTEXT
from modelyard.hub import GgufHeader, ModelFiles
from modelyard.system.cores import usable_cores
from modelyard.yard.memory.cache_bytes import CONTEXT_STEP, KvType, cell_bytes, kv_bytes, state_bytes
from modelyard.yard.memory.footprint import Footprint, footprint
from modelyard.yard.memory.layer_shapes import vocabulary_size
from modelyard.yard.memory.step_bytes import compute_bytes, graph_bytes, work_bytes

_F32 = 4

# Source: llama.cpp, include/llama.h, enum llama_pooling_type.
_NONE, _LAST = 0, 3


def predict_embedder(
    files: ModelFiles,
    *,
    context_length: int | None,
    sequences: int,
    batch_tokens: int,
    kv_type: KvType = "f16",
    flash_attn: bool | None = None,
    processor: str = platform.machine(),
) -> Footprint:
    """Return the memory that the embedding model in ``files`` will take; the parameters are those of ``predict``.

    llama.cpp allocates and touches logits of every token of a step. Decoders also compute them, which takes as much
    again. Encoders have no KV cache.

    Source: llama.cpp, src/llama-context.cpp, output_reserve, encode, and decode ("all tokens are output").
    """
    header = files.header
    trained = header.context_length or DEFAULT_CONTEXT
    shape = embedding_shape(trained, context_length, batch_tokens, is_whole=_is_whole(header))
    step = shape.step_tokens
    width = header.metadata.get(f"{header.architecture}.embedding_length")
    outputs = step * (vocabulary_size(header) + (width if isinstance(width, int) else 0)) * _F32
    has_flash_attention = flash_attn is not False
    if header.is_encoder:
        computing = compute_bytes(
            header, step, tokens=step, running=1, sequences=1, outputs=0, has_flash_attention=has_flash_attention
        )
        return footprint(files, outputs + computing + _graph_and_work_bytes(header, step), processor)
    cells = -(-max(shape.longest, batch_tokens) // CONTEXT_STEP) * CONTEXT_STEP
    return footprint(
        files,
        kv_bytes(header, cells, kv_type)
        + state_bytes(header, sequences)
        + outputs
        + compute_bytes(
            header,
            cells,
            tokens=step,
            running=sequences,
            sequences=sequences,
            outputs=step,
            has_flash_attention=has_flash_attention,
        )
        + _graph_and_work_bytes(header, step)
        + cell_bytes(header, cells),
        processor,
    )


def _graph_and_work_bytes(header: GgufHeader, step: int) -> int:
    return graph_bytes(header, step) + work_bytes(header, step, usable_cores())


def _is_whole(header: GgufHeader) -> bool:
    """Whether all of an input is computed at once; see ``embedding_shape``."""
    is_causal = header.metadata.get(f"{header.architecture}.attention.causal") is not False
    return header.is_encoder or not is_causal or header.pooling not in (_NONE, _LAST)

"""Predicts what an embedding or ranking model takes of the machine's memory. Pure; see ``footprint``."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

from modelyard.engine.pooling.shape import embedding_shape
from modelyard.engine.settings import DEFAULT_CONTEXT
from modelyard.hub import GgufHeader, ModelFiles
from modelyard.system.cores import compute_cores
from modelyard.yard.memory.cache_bytes import CONTEXT_STEP, cell_bytes, kv_bytes, state_bytes
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.memory.layer_shapes import layer_count, vocabulary_size
from modelyard.yard.memory.placed_footprint import PlacedModel, cache_by_layer
from modelyard.yard.memory.prediction import ContextBytes, ContextSettings, footprint
from modelyard.yard.memory.step_bytes import compute_bytes, graph_bytes, work_bytes
from modelyard.yard.memory.step_operations import Step

_F32 = 4

# Source: llama.cpp, include/llama.h, enum llama_pooling_type.
_NONE, _LAST = 0, 3


@dataclass(frozen=True, slots=True)
class PooledStep:
    """How much an embedding model computes at once, and what its context takes on the host.

    Attributes:
        step: that buffers are reserved for.
        cells: of the KV cache; 0 for an encoder, which has none.
        output_bytes: of logits and embeddings.
        context: all that its context takes, the outputs included.
    """

    step: Step
    cells: int
    output_bytes: int
    context: ContextBytes


def predict_embedder(files: ModelFiles, context: ContextSettings, processor: str = platform.machine()) -> Footprint:
    """Return the memory that the embedding model in ``files`` will take."""
    return footprint(files, pooled_step(files.header, context).context.total, processor)


def pooled_model(header: GgufHeader, pooled: PooledStep, context: ContextSettings) -> PlacedModel:
    """Return an embedding model that computes such steps, in any placement."""
    cache = [0] * layer_count(header)
    if pooled.cells:
        cache = [*cache_by_layer(header, pooled.cells, context.sequences, context.kv_type)]
    return PlacedModel(header, pooled.step, cache, pooled.output_bytes)


def pooled_step(header: GgufHeader, context: ContextSettings) -> PooledStep:
    """Return the steps of an embedding model, all of whose sequences run.

    llama.cpp allocates and touches logits of every token of a step. Decoders also compute them, which takes as much
    again. Encoders have no KV cache.

    Source: llama.cpp, src/llama-context.cpp, output_reserve, encode, and decode ("all tokens are output").
    """
    trained, sequences, batch_tokens = header.context_length or DEFAULT_CONTEXT, context.sequences, context.batch_tokens
    shape = embedding_shape(trained, context.context_length, batch_tokens, is_whole=_is_whole(header))
    tokens = shape.step_tokens
    width = header.metadata.get(f"{header.architecture}.embedding_length")
    outputs = tokens * (vocabulary_size(header) + (width if isinstance(width, int) else 0)) * _F32
    has_flash_attention = context.flash_attn is not False
    if header.is_encoder:
        step = Step(tokens, tokens, 1, 0, has_flash_attention)
        compute = compute_bytes(header, replace(step, has_embeddings=False), running=1)
        return PooledStep(
            step, 0, outputs, ContextBytes(0, compute, 0, outputs + _graph_and_work_bytes(header, tokens))
        )
    cells = -(-max(shape.longest, batch_tokens) // CONTEXT_STEP) * CONTEXT_STEP
    largest = Step(cells, tokens, sequences, tokens, has_flash_attention, has_embeddings=False)
    compute = compute_bytes(header, largest, running=sequences)
    cache = kv_bytes(header, cells, context.kv_type) + state_bytes(header, sequences)
    others = outputs + _graph_and_work_bytes(header, tokens) + cell_bytes(header, cells)
    step = Step(cells, -(-tokens // sequences) * sequences, sequences, tokens, has_flash_attention)
    return PooledStep(step, cells, outputs, ContextBytes(cache, compute, 0, others))


def _graph_and_work_bytes(header: GgufHeader, step: int) -> int:
    return graph_bytes(header, step) + work_bytes(header, step, compute_cores())


def _is_whole(header: GgufHeader) -> bool:
    """Whether all of an input is computed at once; see ``embedding_shape``."""
    is_causal = header.metadata.get(f"{header.architecture}.attention.causal") is not False
    return header.is_encoder or not is_causal or header.pooling not in (_NONE, _LAST)

"""What a step of a model takes of the machine's memory: buffers, graphs and work space. Pure; see ``footprint``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from modelyard.formats.gguf.header import GgufHeader
from modelyard.yard.memory.layer_shapes import is_computed, key_width, number_of, vocabulary_size
from modelyard.yard.memory.step_buffer import touched_bytes
from modelyard.yard.memory.step_graph import step_graph
from modelyard.yard.memory.step_operations import Step

_F16, _F32 = 2, 4

# Each sequence that samples keeps all tokens with their logits and probabilities. Source: llama.cpp, include/llama.h,
# llama_token_data; src/llama-sampler.cpp, llama_sampler_chain.
CANDIDATE_BYTES: Final = 12

# Graphs that are described in memory of their own, which is touched when it is allocated: of tokens that are computed,
# of tokens whose answers are not read yet, and of the step that memory is reserved for. Source: llama.cpp,
# src/llama-context.h, gf_res_prev, gf_res_reserve; src/llama-graph.cpp, llm_graph_result::reset.
GRAPHS: Final = 3

# Tensors that a graph has room for, by architecture: for each token of a step, and for each tensor of the model.
# Source: llama.cpp, src/llama-context.cpp, graph_max_nodes.
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


def output_bytes(header: GgufHeader, sequences: int) -> int:
    """Return the bytes of the buffer that logits are copied to: a row for each sequence of the context.

    Source: llama.cpp, src/llama-context.cpp, output_reserve.
    """
    return sequences * vocabulary_size(header) * _F32


def sampler_bytes(header: GgufHeader, running: int) -> int:
    """Return the bytes in which the sequences that sample keep their candidates."""
    return running * vocabulary_size(header) * CANDIDATE_BYTES


def compute_bytes(header: GgufHeader, largest: Step, running: int) -> int:
    """Return the bytes that steps touch of the compute buffer.

    llama.cpp reserves the buffer for a step of all sequences of the context, with logits for every token. Its places
    are touched by steps of one prompt, which have the longest convolutions, and by steps of all running sequences,
    which have the most states.

    Args:
        header: of the model.
        largest: bounds of a step, of all sequences of the context.
        running: sequences in one step.

    Source: llama.cpp, src/llama-context.cpp, sched_reserve, graph_reserve; see also ``step_graph``.
    """
    tokens = min(largest.tokens, largest.cells) if largest.cells else largest.tokens
    vocabulary = vocabulary_size(header)
    sequences = 1 if header.architecture in ONE_RESERVED else max(1, largest.sequences)
    reserved = replace(
        largest, tokens=-(-tokens // sequences) * sequences, sequences=sequences, outputs=tokens, has_embeddings=True
    )
    steps = [
        replace(largest, tokens=tokens, sequences=count, outputs=min(largest.outputs, tokens))
        for count in sorted({1, max(1, min(running, tokens))})
    ]
    return touched_bytes(
        step_graph(header, reserved, vocabulary), [step_graph(header, step, vocabulary) for step in steps]
    )


def graph_bytes(header: GgufHeader, tokens: int) -> int:
    """Return the bytes in which llama.cpp describes the operations of a step of ``tokens``."""
    for_token, for_tensor = NODES.get(header.architecture, NODES_OF_OTHERS)
    tensors = sum(is_computed(header, tensor.name) for tensor in header.tensors) * max(1, header.split[1])
    nodes = max(MIN_NODES, for_token * tokens, for_tensor * tensors)
    graph = nodes * (TENSOR_OVERHEAD + 2 * _POINTER) + _hash_size(2 * nodes) * (_POINTER + _F32 + 1 / 8)
    # The scheduler records for each node its backend, and its copies.
    return int(GRAPHS * graph + _hash_size(nodes) * (_POINTER + _F32))


def _hash_size(min_size: int) -> int:
    """Return about the next power of two. Source: llama.cpp, ggml/src/ggml.c, ggml_hash_size."""
    return 1 << max(0, min_size - 1).bit_length()


def work_bytes(header: GgufHeader, tokens: int, threads: int, scored_cells: int = 0) -> int:
    """Return the bytes in which operands of products are converted to the type of the weights, and attention is tiled.

    Args:
        header: of the model.
        tokens: of a step.
        threads: that compute.
        scored_cells: KV cells whose scores are multiplied with the values in the cache; 0 with flash attention.

    Source: llama.cpp, ggml/src/ggml-cpu/ggml-cpu.c, ggml_graph_plan.
    """
    heads, used = number_of(header, "attention.head_count"), max(1, number_of(header, "expert_used_count"))
    converted: list[float] = [scored_cells * heads * _F16]
    for tensor in header.tensors:
        if len(tensor.shape) < 2 or tensor.type == "F32" or tensor.name.startswith("token_embd"):
            continue
        width = tensor.shape[0]
        if tensor.name.endswith(("attn_k_b.weight", "attn_v_b.weight")):
            width *= heads
        elif "_down_exps." in tensor.name:
            # The inputs of the down projection differ from expert to expert.
            width *= used
        converted.append(width * (_F16 if tensor.type in ("F16", "BF16") else _QUANTISED_VALUE))
    key = key_width(header)
    value = number_of(header, "attention.value_length") or key
    tiled = 2 * _TILE * (key + value + _TILE) * _F32
    return int(tokens * max(converted)) + threads * (tiled + _MATRIX_TILES)

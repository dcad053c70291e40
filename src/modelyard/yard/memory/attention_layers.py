"""The operations of attention in a step. Pure.

Each function follows the one of llama.cpp that it names, as of b11739.
"""

from __future__ import annotations

from typing import Final

from modelyard.yard.memory.layer_shapes import Shapes, dimension
from modelyard.yard.memory.step_operations import StepOperations

# Architectures whose keys and queries are not rotated. Source: src/llama-model.cpp, llama_model_rope_type.
_UNROTATED: Final = frozenset(
    {"jamba", "nemotron_h", "nemotron_h_moe", "granitehybrid", "gpt2", "bloom", "mpt", "kimi-linear"}
)


def attention(ops: StepOperations, shapes: Shapes, normed: int) -> int:
    """Add attention. Source: src/llama-graph.cpp, build_qkv, build_attn, build_attn_mha."""
    is_rotated = ops.header.architecture not in _UNROTATED
    heads = dimension(shapes, "attn_output.weight", 0) or ops.width
    key = dimension(shapes, "attn_k.weight", 1)
    value = dimension(shapes, "attn_v.weight", 1) or key
    gate: int | None = None
    if "attn_qkv.weight" in shapes:
        fused = dimension(shapes, "attn_qkv.weight", 1)
        key = value = max(fused - heads, 0) // 2
        all_of_it = ops.op(fused, normed)
        query = ops.op(heads, all_of_it) if is_rotated else all_of_it
        keys, values = (ops.op(key, all_of_it) if is_rotated else all_of_it), all_of_it
    else:
        projected = dimension(shapes, "attn_q.weight", 1) or heads
        query = ops.op(projected, normed)
        if projected == 2 * heads and "attn_q_norm.weight" in shapes:
            # Half of the projection is a gate of the output.
            gate = query
        query = _normed(ops, shapes, "attn_q_norm.weight", min(projected, heads), query, is_rotated)
        values = ops.op(value, normed) if key else query
        keys = _normed(ops, shapes, "attn_k_norm.weight", key, ops.op(key, normed), is_rotated) if key else query
    with ops.graph.part("attention"):
        ops.graph.use(keys, values)
        attended = _attend(ops, heads, query)
    if gate is not None:
        attended = ops.in_place(heads, ops.op(heads, gate), views=(attended,))
    return attended


def _normed(ops: StepOperations, shapes: Shapes, name: str, values: int, projected: int, is_rotated: bool) -> int:
    if name in shapes or is_rotated:
        return ops.op(values, projected)
    return projected


def _chosen_cells(ops: StepOperations, low: int, normed: int) -> list[int]:
    """Return the mask of the cells that an indexer chooses, where there is one. Source: src/models/deepseek32.cpp."""
    if not (heads := ops.number("attention.indexer.head_count")):
        return []
    width = heads * ops.number("attention.indexer.key_length")
    query = ops.op(width, ops.op(width, ops.op(width, low)))
    scores = ops.op(ops.step.cells, query, ops.op(heads, normed), ops.masks[-1])
    best = ops.op(ops.number("attention.indexer.top_k"), scores)
    all_hidden = ops.graph.operation(ops.mask_bytes, best, ops.masks[0])
    return [ops.graph.operation(ops.mask_bytes, all_hidden, ops.masks[0])]


def _attend(ops: StepOperations, values: int, query: int, *chosen: int) -> int:
    if ops.has_flash_attention:
        return ops.op(values, query, *ops.masks, *chosen)
    scores = ops.step.cells * ops.number("attention.head_count")
    weights = ops.in_place(scores, ops.op(scores, query), views=ops.masks)
    return ops.op(values, ops.op(values, weights))


def latent_attention(ops: StepOperations, shapes: Shapes, normed: int) -> int:
    """Add latent attention. Source: src/models/deepseek2.cpp."""
    heads = ops.number("attention.head_count")
    latent = dimension(shapes, "attn_kv_a_norm.weight", 0)
    with_position = dimension(shapes, "attn_kv_a_mqa.weight", 1)
    position = max(with_position - latent, 0)
    value = dimension(shapes, "attn_output.weight", 0)
    if rank := dimension(shapes, "attn_q_a.weight", 1):
        low = ops.op(rank, normed)
        whole = dimension(shapes, "attn_q_b.weight", 1)
        query = ops.op(whole, low)
    else:
        low = normed
        whole = dimension(shapes, "attn_q.weight", 1)
        query = ops.op(whole, normed)
    if "attn_k_b.weight" in shapes:
        absorbed = ops.op(heads * latent, query)
        rotated = ops.op(heads * position, query)
        joined = ops.op(heads * with_position, absorbed, rotated)
        compressed = ops.op(with_position, normed)
        values = ops.op(latent, compressed)
        keys = ops.op(with_position, values, ops.op(position, compressed))
        chosen = _chosen_cells(ops, low, normed)
        with ops.graph.part("attention"):
            ops.graph.use(keys)
            attended = _attend(ops, heads * latent, joined, *chosen)
        attended = ops.op(value, ops.op(value, attended))
    else:
        rotated = ops.op(heads * position, query)
        compressed = ops.op(with_position, normed)
        rotated_key = ops.op(position, compressed)
        narrow = ops.op(latent, compressed)
        both = ops.op(dimension(shapes, "attn_kv_b.weight", 1), narrow)
        values = ops.op(value, both)
        joined = ops.op(whole, query, rotated)
        keys = ops.op(whole, both, rotated_key)
        with ops.graph.part("attention"):
            ops.graph.use(keys, values)
            attended = _attend(ops, value, joined)
    return attended

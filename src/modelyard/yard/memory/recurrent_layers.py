"""The operations of recurrent layers in a step: Mamba, delta nets, short convolutions, RWKV. Pure.

Each function follows the one of llama.cpp that it names, as of b11739.
"""

from __future__ import annotations

from modelyard.yard.memory.layer_shapes import Shapes, dimension
from modelyard.yard.memory.step_operations import F32, StepOperations


def _convolved(ops: StepOperations, channels: int, kernel: int, fresh: int, kept: int) -> int:
    """Put the kept tokens in front of the new ones. Source: src/models/delta-net-base.cpp, build_conv_state."""
    size = channels * (ops.step.tokens + (kernel - 1) * ops.step.sequences) * F32
    return ops.graph.operation(size, kept, fresh)


def _scan(ops: StepOperations, inner: int, state: int, *inputs: int) -> int:
    """Return outputs and new states in one tensor. Source: ggml/src/ggml.c, ggml_ssm_scan, ggml_gated_delta_net."""
    size = ops.floats(inner) + ops.step.sequences * state * F32
    return ops.graph.operation(size, *inputs, ops.state_indices)


def mamba(ops: StepOperations, shapes: Shapes, normed: int) -> int:
    """Add a Mamba layer. Source: src/models/mamba-base.cpp, build_mamba_layer."""
    inner, state, kernel = (ops.number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
    rank = ops.number("ssm.time_step_rank")
    kept = ops.gathered_states()
    both = ops.op(2 * inner, normed)
    convolved = ops.op(inner, _convolved(ops, inner, kernel, both, kept))
    chosen = ops.op(rank + 2 * state, convolved)
    step_size = ops.op(inner, ops.op(rank, chosen))
    sides = [chosen]
    if "ssm_b_norm.weight" in shapes:
        sides = [ops.op(state, chosen), ops.op(state, chosen)]
    scanned = _scan(ops, inner, inner * state, convolved, step_size, *sides)
    ops.expand(shapes)
    gate = ops.op(inner, both)
    mixed = ops.in_place(inner, convolved, views=(scanned,))
    return ops.op(ops.width, ops.op(inner, gate, mixed))


def mamba2(ops: StepOperations, shapes: Shapes, normed: int, attended: int | None) -> list[int]:
    """Add a Mamba-2 layer, alone or beside attention; return its output, behind that of ``attended``.

    Source: src/models/mamba-base.cpp, build_mamba2_layer.
    """
    inner, state, kernel = (ops.number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
    groups, heads = ops.number("ssm.group_count"), ops.number("ssm.time_step_rank")
    channels = inner + 2 * groups * state
    kept = ops.gathered_states()
    if attended is not None:
        # Falcon-H1 normalises the input once more for the recurrence.
        normed = ops.op(ops.width, normed)
    whole = ops.op(dimension(shapes, "ssm_in.weight", 1) or inner + channels + heads, normed)
    convolved = ops.op(channels, _convolved(ops, channels, kernel, whole, kept))
    step_size = ops.op(heads, whole)
    scanned = _scan(ops, inner, inner * state, convolved, step_size)
    ops.expand(shapes)
    beside = [] if attended is None else [ops.op(ops.width, attended)]
    gate = ops.op(inner, whole)
    skipped = ops.op(inner, convolved)
    mixed = ops.op(inner, gate, ops.in_place(inner, skipped, views=(scanned,)))
    if "ssm_norm.weight" in shapes:
        mixed = ops.op(inner, mixed)
    return [*beside, ops.op(ops.width, mixed)]


def gated_delta(ops: StepOperations, shapes: Shapes, normed: int) -> int:
    """Add a gated delta net. Source: src/models/qwen3next.cpp, build_layer_attn_linear; qwen35.cpp."""
    inner, state, kernel = (ops.number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
    groups, heads = ops.number("ssm.group_count"), ops.number("ssm.time_step_rank")
    keys = groups * state
    channels = dimension(shapes, "attn_qkv.weight", 1) or inner + 2 * keys
    kept = ops.states((kernel - 1) * channels)
    fresh = ops.op(channels, normed)
    joined = _convolved(ops, channels, kernel, fresh, kept)
    states = ops.states(inner * state)
    convolved = ops.op(channels, joined)
    sides = []
    for _ in range(2):
        side = ops.op(keys, convolved)
        # Keys and queries are repeated for each head of the values.
        sides.append(ops.op(inner, side) if "ssm_ba.weight" in shapes and groups != heads else side)
    gates = ops.op(heads, normed), ops.op(heads, normed)
    scanned = _scan(ops, inner, inner * state, *sides, convolved, *gates, states)
    out = ops.op(inner, scanned)
    gated = ops.op(inner, ops.op(inner, normed))
    return ops.op(ops.width, ops.in_place(inner, out, gated))


def kimi_delta(ops: StepOperations, shapes: Shapes, normed: int) -> int:
    """Add Kimi's delta attention. Source: src/models/kimi-linear.cpp."""
    head, kernel = ops.number("kda.head_dim"), ops.number("ssm.conv_kernel") or 4
    filters = shapes["ssm_conv1d_q.weight"]
    inner = 1
    for axis in filters[1:]:
        inner *= axis
    kept = ops.states(3 * (kernel - 1) * inner)
    sides = []
    for _ in range(3):
        fresh = ops.op(inner, normed)
        sides.append(ops.op(inner, _convolved(ops, inner, kernel, fresh, kept)))
    gate = ops.op(inner, ops.op(head, normed))
    beta = ops.op(inner // head if head else 0, normed)
    states = ops.states(head * inner)
    normed_sides = [ops.op(inner, side) for side in sides[:2]]
    scanned = _scan(ops, inner, head * inner, *normed_sides, sides[2], gate, beta, states)
    gated = ops.op(inner, ops.op(head, normed))
    out = ops.op(inner, scanned)
    return ops.op(ops.width, ops.in_place(inner, out, gated))


def short_convolution(ops: StepOperations, normed: int) -> int:
    """Add a short convolution. Source: src/models/lfm2.cpp, build_shortconv_block."""
    width, kernel = ops.width, ops.number("shortconv.l_cache")
    kept = ops.states((kernel - 1) * width)
    whole = ops.op(3 * width, normed)
    gated = ops.op(width, whole)
    convolved = ops.op(width, _convolved(ops, width, kernel, gated, kept))
    return ops.op(width, ops.in_place(width, convolved, views=(whole,)))


def token_shift(ops: StepOperations, normed: int) -> int:
    """Add, roughly, a layer of RWKV: its mixes of two tokens, and the states. Source: src/models/rwkv7-base.cpp."""
    width, head = ops.width, ops.number("wkv.head_size")
    states = ops.states(head * width)
    mixes = [ops.op(width, normed) for _ in range(6)]
    scanned = _scan(ops, width, head * width, *mixes, states)
    return ops.op(width, ops.op(width, scanned))

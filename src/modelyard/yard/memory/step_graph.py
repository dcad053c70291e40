"""The operations of one step of a model, as far as their results need memory, derived from its header. Pure.

Each function follows the one of llama.cpp that it names, as of b11739; results of a few numbers for each token are left
out. For an architecture that is not known here, its tensors decide which of the usual layers it is taken for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from modelyard.formats.gguf.header import GgufHeader
from modelyard.yard.memory.attention_layers import attention, latent_attention
from modelyard.yard.memory.layer_shapes import Shapes, dimension, has_attention, is_recurrent, layer_count, layers_of
from modelyard.yard.memory.recurrent_layers import (
    gated_delta,
    kimi_delta,
    mamba,
    mamba2,
    short_convolution,
    token_shift,
)
from modelyard.yard.memory.step_buffer import StepGraph
from modelyard.yard.memory.step_operations import F32, I64, Step, StepOperations

# Layers repeat in periods of at most 8 (Jamba), and their places in the buffer from the third period on.
_MAX_LAYERS: Final = 24

# Architectures of which llama.cpp ignores a sliding window that their header may have. Source: src/models/*.cpp, which
# set no swa_type.
WINDOWLESS: Final = frozenset(
    {"dots1", "llama", "mistral3", "phi3", "phimoe", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3", "starcoder2"}
)

# Architectures in which the input of a layer is the first operand of the residual addition, and its output the second.
# Source: src/models/jamba.cpp, lfm2.cpp.
_STREAM_FIRST: Final = frozenset({"jamba", "lfm2", "lfm2moe"})

# Parallel streams of a token of Gemma 3n. Source: src/models/gemma3n.cpp, n_altup.
_STREAMS: Final = 4


def step_graph(header: GgufHeader, step: Step, vocabulary: int, *, has_all_layers: bool = False) -> StepGraph:
    """Return the operations of a step, from the tokens to the logits; as many for every step of a model.

    Args:
        header: of the model.
        step: how much is computed at once.
        vocabulary: number of logits.
        has_all_layers: whether layers that repeat earlier ones are listed, too; on one device their tensors have the
            places of those.
    """
    ops = StepOperations(header, step)
    graph = ops.graph
    numbers, layers = zip(*_layers(ops, has_all_layers=has_all_layers), strict=True)
    _inputs(ops, layers)
    stream = graph.operation(ops.floats(ops.width), ops.token_ids)
    ops.next_layer = layers[0] if layers else {}
    ops.gather_ahead()
    # What precedes the layers has weights of the output's device.
    graph.layer = layer_count(header)
    extra = _before_layers(ops, stream)
    graph.layer = numbers[0]
    embedded: list[int] = []
    if "altup_router.weight" in ops.next_layer:
        # The embeddings stay allocated until the end of the first layer, which adds a projection of them.
        embedded = [stream]
        others = ops.op((_STREAMS - 1) * ops.width, stream)
        others = ops.op((_STREAMS - 1) * ops.width, others)
        stream = ops.op(_STREAMS * ops.width, stream, others)
    for number, shapes, following in zip(numbers, layers, [*layers[1:], {}], strict=True):
        graph.layer = number
        ops.next_layer = following
        stream = _layer(ops, shapes, stream, extra)
        if embedded:
            graph.use(embedded.pop())
    graph.layer = layer_count(header)
    normed = graph.in_place(ops.floats(ops.width), graph.operation(ops.floats(ops.width), stream))
    chosen = graph.keep(graph.operation(step.outputs * ops.width * F32, normed, ops.output_ids))
    graph.keep(graph.operation(step.outputs * vocabulary * F32, chosen))
    return graph


def _layers(ops: StepOperations, *, has_all_layers: bool) -> Iterator[tuple[int, Shapes]]:
    numbered = [(number, shapes) for number, shapes in enumerate(layers_of(ops.header)) if shapes]
    known = numbered or [(0, _usual_layer(ops))]
    if has_all_layers and len(known) < layer_count(ops.header):
        # Of layers in other shards the last known one stands for all.
        known = [(number, dict(known).get(number, known[-1][1])) for number in range(layer_count(ops.header))]
    seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
    for at, (number, shapes) in enumerate(known):
        kind = tuple(sorted(shapes.items()))
        if has_all_layers or at < _MAX_LAYERS or kind not in seen:
            yield number, shapes
        seen.add(kind)


def _usual_layer(ops: StepOperations) -> Shapes:
    """Return the tensors assumed for a layer where none are known, as in a file whose first shard has no tensors."""
    width, inner = ops.width, ops.number("feed_forward_length") or 4 * ops.width
    return {
        **{f"attn_{part}.weight": (width, width) for part in ("q", "k", "v", "output")},
        "ffn_gate.weight": (width, inner),
        "ffn_up.weight": (width, inner),
        "ffn_down.weight": (inner, width),
    }


def _inputs(ops: StepOperations, layers: Sequence[Shapes]) -> None:
    graph, step = ops.graph, ops.step
    ops.token_ids = graph.input(step.tokens * F32)
    # Nothing reads embeddings in a graph of tokens, so their place is never given back.
    graph.input(step.tokens * ops.width * F32 * step.has_embeddings)
    graph.input(step.tokens * F32)
    ops.output_ids = graph.input(step.outputs * F32)
    if any(is_recurrent(shapes) for shapes in layers):
        ops.state_indices = graph.input(step.sequences * F32)
    if any(map(has_attention, layers)):
        for number in range(_mask_count(ops)):
            graph.use(graph.input(2 * step.tokens * I64))
            ops.masks.append(graph.input(ops.window_mask_bytes if number else ops.mask_bytes))


def _mask_count(ops: StepOperations) -> int:
    """Return the number of masks: layers with a window, and an indexer, have a mask of their own.

    Source: src/llama-graph.cpp, build_attn_inp_kv_iswa, build_attn_inp_k_dsa.
    """
    architecture = ops.header.architecture
    window = ops.header.metadata.get(f"{architecture}.attention.sliding_window")
    if architecture == "llama4":
        # The header does not say how long its chunks are. Source: src/models/llama4.cpp, load_arch_hparams.
        return 1 if window == 0 else 2
    is_windowed = bool(window) and architecture not in WINDOWLESS
    return 2 if is_windowed or ops.number("attention.indexer.head_count") else 1


def _before_layers(ops: StepOperations, stream: int) -> int | None:
    """Add embeddings that differ from layer to layer; None where the model has none.

    Source: src/models/gemma4.cpp, build_inp_per_layer, project_per_layer_inputs.
    """
    if not (each := ops.number("embedding_length_per_layer_input")):
        return None
    values = each * layer_count(ops.header)
    looked_up = ops.op(values, ops.token_ids)
    scaled = ops.in_place(values, looked_up)
    projected = ops.op(values, stream)
    normed = ops.op(values, projected)
    added = ops.in_place(values, normed, scaled)
    # Permuted so that those of a layer are contiguous.
    return ops.op(values, added)


def _layer(ops: StepOperations, shapes: Shapes, stream: int, extra: int | None) -> int:
    """Add one layer. Source: the constructor of the graph in src/models/*.cpp."""
    width = ops.width
    if "altup_router.weight" in shapes:
        return _streams_layer(ops, shapes, stream, extra)
    if _mixes(shapes):
        mixed = _mix(ops, shapes, stream)
        out = mixed[0] if len(mixed) == 1 else ops.in_place(width, *mixed)
        stream = _added(ops, out, stream)
    # A layer of Nemotron-H has either of both.
    if _feeds_forward(shapes):
        stream = _added(ops, _feed_forward(ops, shapes, ops.op(width, stream)), stream)
    if extra is not None:
        each = ops.number("embedding_length_per_layer_input")
        gated = ops.in_place(each, ops.op(each, stream), views=(extra,))
        stream = ops.in_place(width, ops.op(width, gated), stream)
    return stream


def _added(ops: StepOperations, out: int, stream: int) -> int:
    pair = (stream, out) if ops.header.architecture in _STREAM_FIRST else (out, stream)
    return ops.in_place(ops.width, *pair)


def _streams_layer(ops: StepOperations, shapes: Shapes, streams: int, extra: int | None) -> int:
    """Add a layer of Gemma 3n. Source: src/models/gemma3n.cpp."""
    width, all_streams = ops.width, _STREAMS * ops.width
    turned = ops.op(all_streams, ops.op(all_streams, ops.op(all_streams, streams)))
    predicted = ops.in_place(all_streams, turned, streams)
    normed = ops.op(width, predicted)
    attended = ops.in_place(width, ops.op(width, attention(ops, shapes, normed)), views=(predicted,))
    low = ops.op(dimension(shapes, "laurel_l.weight", 1), normed)
    between = ops.in_place(width, attended, ops.in_place(width, ops.op(width, low), normed))
    inner = dimension(shapes, "ffn_up.weight", 1)
    fed = ops.op(width, between)
    up, gate = ops.op(inner, fed), ops.op(inner, fed)
    # Activations are sparse: values below a share of the others become 0.
    cut = ops.op(inner, gate)
    active = ops.in_place(inner, up, ops.in_place(inner, gate, cut))
    activated = ops.in_place(width, ops.op(width, active), between)
    repeated = ops.op(all_streams, ops.in_place(width, activated, views=(predicted,)))
    corrected = ops.in_place(all_streams, repeated, predicted)
    each = ops.number("embedding_length_per_layer_input")
    gated = ops.op(each, ops.op(width, corrected))
    first = ops.op(width, ops.in_place(each, gated, views=() if extra is None else (extra,)))
    others = ops.op(all_streams - width, corrected, first)
    return ops.op(all_streams, corrected, others)


def _mix(ops: StepOperations, shapes: Shapes, stream: int) -> list[int]:
    """Add what mixes tokens: attention, a recurrence, or both side by side. Return the outputs, which are added."""
    normed = ops.op(ops.width, stream)
    if "ssm_conv1d_q.weight" in shapes:
        return [kimi_delta(ops, shapes, normed)]
    if "shortconv.conv.weight" in shapes:
        return [short_convolution(ops, normed)]
    if "ssm_x.weight" in shapes:
        return [mamba(ops, shapes, normed)]
    if "ssm_conv1d.weight" in shapes and "attn_qkv.weight" in shapes:
        return [gated_delta(ops, shapes, normed)]
    if not has_attention(shapes):
        return mamba2(ops, shapes, normed, None) if "ssm_in.weight" in shapes else [token_shift(ops, normed)]
    is_latent = "attn_kv_a_mqa.weight" in shapes
    attended = latent_attention(ops, shapes, normed) if is_latent else attention(ops, shapes, normed)
    if "ssm_in.weight" in shapes:
        return mamba2(ops, shapes, stream, attended)
    ops.expand(shapes)
    return [ops.op(ops.width, attended)]


def _feed_forward(ops: StepOperations, shapes: Shapes, normed: int) -> int:
    """Add a feed-forward network, dense or of experts. Source: src/llama-graph.cpp, build_ffn, build_moe_ffn."""
    if "ffn_gate_inp.weight" not in shapes:
        return _dense(ops, shapes, "", normed)
    width, used = ops.width, max(1, ops.number("expert_used_count"))
    experts = dimension(shapes, "ffn_gate_inp.weight", 1)
    scores = ops.op(experts, normed)
    order = ops.op(experts, scores)
    weights = ops.op(used, scores, order)
    with ops.graph.part("experts"):
        down = _experts(ops, shapes, normed, order)
    weighted = ops.in_place(used * width, down, views=(weights,))
    out = ops.op(width, weighted) if used > 1 else weighted
    ops.gather_ahead()
    if "ffn_up_shexp.weight" in shapes:
        out = ops.in_place(width, out, _dense(ops, shapes, "_shexp", normed))
    elif "ffn_up.weight" in shapes:
        out = ops.in_place(width, out, _dense(ops, shapes, "", normed))
    return out


def _experts(ops: StepOperations, shapes: Shapes, normed: int, order: int) -> int:
    """Add the products with the experts' weights."""
    used = max(1, ops.number("expert_used_count"))
    if fused := dimension(shapes, "ffn_gate_up_exps.weight", 1):
        inner = fused // 2
        both = ops.op(used * fused, normed, order)
        active = ops.op(used * inner, both)
    else:
        inner = dimension(shapes, "ffn_up_exps.weight", 1)
        if "ffn_gate_exps.weight" in shapes:
            gate = ops.op(used * inner, normed, order)
            up = ops.op(used * inner, normed, order)
            active = ops.op(used * inner, gate, up)
        else:
            active = ops.op(used * inner, normed, order)
    return ops.op(used * ops.width, active, order)


def _dense(ops: StepOperations, shapes: Shapes, suffix: str, normed: int) -> int:
    up_width = dimension(shapes, f"ffn_up{suffix}.weight", 1) or ops.number("feed_forward_length")
    inner = dimension(shapes, f"ffn_down{suffix}.weight", 0) or up_width
    if f"ffn_gate{suffix}.weight" in shapes:
        gate = ops.op(inner, normed)
        active = ops.op(inner, gate, ops.op(inner, normed))
    elif up_width > inner:
        active = ops.op(inner, ops.op(up_width, normed))
    else:
        active = ops.op(inner, normed)
    return ops.op(ops.width, active)


def _mixes(shapes: Shapes) -> bool:
    return is_recurrent(shapes) or has_attention(shapes)


def _feeds_forward(shapes: Shapes) -> bool:
    return any(name.startswith(("ffn_up", "ffn_gate", "ffn_down")) for name in shapes)

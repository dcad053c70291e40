"""The operations of one step of a model, as far as they need places of their own, told from its header. Pure.

Each function follows the one of llama.cpp that it names, as of b11739; what takes less than a token's worth of a few
numbers is left out. An architecture that is not known here is taken for one of the usual layers that has its tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.formats.gguf.header import GgufHeader
from modelyard.yard.memory.layer_shapes import Shapes, dimension, is_recurrent, layer_count, layers_of, number_of
from modelyard.yard.memory.step_buffer import StepGraph

_F16, _F32, _I64 = 2, 4, 8

# Layers repeat in periods of at most 8 (Jamba), and places are the same from the third period on.
_LAYERS_LOOKED_AT: Final = 24

# Source: llama.cpp, src/llama-context.cpp, llama_init_from_model: "flash_attn is not compatible with Grok".
WITHOUT_FLASH_ATTENTION: Final = frozenset({"grok"})

# Architectures of which llama.cpp ignores a sliding window that their header may have. Source: src/models/*.cpp, which
# set no swa_type.
WINDOWLESS: Final = frozenset(
    {"dots1", "llama", "mistral3", "phi3", "phimoe", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3", "starcoder2"}
)

# Architectures whose keys and queries are not rotated. Source: src/llama-model.cpp, llama_model_rope_type.
_UNROTATED: Final = frozenset(
    {"jamba", "nemotron_h", "nemotron_h_moe", "granitehybrid", "gpt2", "bloom", "mpt", "kimi-linear"}
)

# Architectures that add what a layer yields to what it got, and not the other way round. Source: src/models/jamba.cpp,
# lfm2.cpp.
_STREAM_FIRST: Final = frozenset({"jamba", "lfm2", "lfm2moe"})

# Streams that a token of Gemma 3n goes through at a time. Source: src/models/gemma3n.cpp, n_altup.
_STREAMS: Final = 4


@dataclass(frozen=True, slots=True)
class Step:
    """How much is computed at once.

    Attributes:
        cells: of the KV cache.
        tokens: of all sequences together.
        sequences: as many as the tokens belong to.
        outputs: tokens of which logits are wanted.
        has_flash_attention: otherwise every head's scores are written down.
        has_embeddings: whether embeddings may come in the place of tokens, as of an image.
    """

    cells: int
    tokens: int
    sequences: int
    outputs: int
    has_flash_attention: bool = True
    has_embeddings: bool = True


def step_graph(header: GgufHeader, step: Step, vocabulary: int) -> StepGraph:
    """The operations of a step; as many for every step of a model."""
    return _Sketch(header, step).whole(vocabulary)


class _Sketch:
    def __init__(self, header: GgufHeader, step: Step) -> None:
        self._header = header
        self._step = step
        self._graph = StepGraph()
        self._width = self._number("embedding_length")
        self._masks: list[int] = []
        self._copied = -1
        self._next: Shapes = {}
        self._gathered: int | None = None

    def whole(self, vocabulary: int) -> StepGraph:
        """All layers and the logits."""
        graph, step = self._graph, self._step
        layers = list(self._layers())
        self._inputs(layers)
        stream = graph.operation(self._floats(self._width), self._tokens)
        self._next = layers[0] if layers else {}
        self._gather_ahead()
        extra = self._before_layers(stream)
        embedded: list[int] = []
        if "altup_router.weight" in self._next:
            # The first layer ends with what is projected from it.
            embedded = [stream]
            others = self._op((_STREAMS - 1) * self._width, stream)
            others = self._op((_STREAMS - 1) * self._width, others)
            stream = self._op(_STREAMS * self._width, stream, others)
        for shapes, following in zip(layers, [*layers[1:], {}], strict=True):
            self._next = following
            stream = self._layer(shapes, stream, extra)
            if embedded:
                graph.use(embedded.pop())
        normed = graph.in_place(self._floats(self._width), graph.operation(self._floats(self._width), stream))
        chosen = graph.keep(graph.operation(step.outputs * self._width * _F32, normed, self._out))
        graph.keep(graph.operation(step.outputs * vocabulary * _F32, chosen))
        return graph

    def _layers(self) -> Iterator[Shapes]:
        known = [shapes for shapes in layers_of(self._header) if shapes] or [self._usual_layer()]
        seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        for at, shapes in enumerate(known):
            kind = tuple(sorted(shapes.items()))
            if at < _LAYERS_LOOKED_AT or kind not in seen:
                yield shapes
            seen.add(kind)

    def _usual_layer(self) -> Shapes:
        """What a layer is taken for where none is known, as of a file whose first shard has no tensors."""
        width, inner = self._width, self._number("feed_forward_length") or 4 * self._width
        return {
            **{f"attn_{part}.weight": (width, width) for part in ("q", "k", "v", "output")},
            "ffn_gate.weight": (width, inner),
            "ffn_up.weight": (width, inner),
            "ffn_down.weight": (inner, width),
        }

    def _inputs(self, layers: Sequence[Shapes]) -> None:
        graph, step = self._graph, self._step
        self._tokens = graph.input(step.tokens * _F32)
        # Nothing reads embeddings in a graph of tokens, so their place is never given back.
        graph.input(step.tokens * self._width * _F32 * step.has_embeddings)
        graph.input(step.tokens * _F32)
        self._out = graph.input(step.outputs * _F32)
        if any(is_recurrent(shapes) for shapes in layers):
            self._copied = graph.input(step.sequences * _F32)
        if any(map(_has_attention, layers)):
            for _ in range(self._mask_count):
                graph.use(graph.input(2 * step.tokens * _I64))
                self._masks.append(graph.input(self._mask_bytes))

    @property
    def _mask_count(self) -> int:
        """Layers with a window, and an indexer, have a mask of their own. Source: src/llama-graph.cpp,
        build_attn_inp_kv_iswa, build_attn_inp_k_dsa."""
        architecture = self._header.architecture
        window = self._header.metadata.get(f"{architecture}.attention.sliding_window")
        if architecture == "llama4":
            # Its chunks are not in the header. Source: src/models/llama4.cpp, load_arch_hparams.
            return 1 if window == 0 else 2
        is_windowed = bool(window) and architecture not in WINDOWLESS
        return 2 if is_windowed or self._number("attention.indexer.head_count") else 1

    @property
    def _mask_bytes(self) -> int:
        return (_F16 if self._has_flash_attention else _F32) * self._step.cells * self._step.tokens

    @property
    def _has_flash_attention(self) -> bool:
        return self._step.has_flash_attention and self._header.architecture not in WITHOUT_FLASH_ATTENTION

    def _number(self, key: str) -> int:
        return number_of(self._header, key)

    def _floats(self, values: int) -> int:
        """Bytes of so many values for each token."""
        return self._step.tokens * values * _F32

    def _op(self, values: int, *inputs: int) -> int:
        return self._graph.operation(self._floats(values), *inputs)

    def _same(self, values: int, *inputs: int, views: Sequence[int] = ()) -> int:
        return self._graph.in_place(self._floats(values), *inputs, views=views)

    def _states(self, values: int) -> int:
        """The states of the step's sequences, gathered. Source: src/llama-graph.cpp, build_rs."""
        return self._graph.operation(self._step.sequences * values * _F32, self._copied)

    def _gather_ahead(self) -> None:
        """The states of the next layer's convolution, which Mamba gathers before the end of a layer is computed: it is
        computed when something asks for it."""
        if "ssm_in.weight" in self._next and not _has_attention(self._next):
            self._gathered = self._states(self._convolution_states())

    def _convolution_states(self) -> int:
        """Source: src/llama-hparams.cpp, n_embd_r."""
        inner, state, kernel = (self._number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
        return max(kernel - 1, 0) * (inner + 2 * self._number("ssm.group_count") * state)

    def _gathered_states(self) -> int:
        gathered, self._gathered = self._gathered, None
        return self._states(self._convolution_states()) if gathered is None else gathered

    def _before_layers(self, stream: int) -> int | None:
        """Embeddings that every layer has for itself. Source: src/models/gemma4.cpp, build_inp_per_layer,
        project_per_layer_inputs."""
        if not (each := self._number("embedding_length_per_layer_input")):
            return None
        values = each * layer_count(self._header)
        looked_up = self._op(values, self._tokens)
        scaled = self._same(values, looked_up)
        projected = self._op(values, stream)
        normed = self._op(values, projected)
        added = self._same(values, normed, scaled)
        # Turned so that those of a layer are side by side.
        return self._op(values, added)

    def _layer(self, shapes: Shapes, stream: int, extra: int | None) -> int:
        """One layer. Source: the constructor of the graph in src/models/*.cpp."""
        width = self._width
        if "altup_router.weight" in shapes:
            return self._streams_layer(shapes, stream, extra)
        if _mixes(shapes):
            mixed = self._mix(shapes, stream)
            out = mixed[0] if len(mixed) == 1 else self._same(width, *mixed)
            stream = self._added(out, stream)
        # Nemotron-H has one of both in a layer.
        if _feeds_forward(shapes):
            stream = self._added(self._feed_forward(shapes, self._op(width, stream)), stream)
        if extra is not None:
            each = self._number("embedding_length_per_layer_input")
            gated = self._same(each, self._op(each, stream), views=(extra,))
            stream = self._same(width, self._op(width, gated), stream)
        return stream

    def _added(self, out: int, stream: int) -> int:
        pair = (stream, out) if self._header.architecture in _STREAM_FIRST else (out, stream)
        return self._same(self._width, *pair)

    def _computed(self, shapes: Shapes) -> None:
        """A result was asked for: everything before it is computed now. Source: ggml_build_forward_expand."""
        if "ffn_gate_inp.weight" not in shapes:
            self._gather_ahead()

    def _streams_layer(self, shapes: Shapes, streams: int, extra: int | None) -> int:
        """Source: src/models/gemma3n.cpp."""
        width, all_streams = self._width, _STREAMS * self._width
        turned = self._op(all_streams, self._op(all_streams, self._op(all_streams, streams)))
        predicted = self._same(all_streams, turned, streams)
        normed = self._op(width, predicted)
        attended = self._same(width, self._op(width, self._attention(shapes, normed)), views=(predicted,))
        low = self._op(dimension(shapes, "laurel_l.weight", 1), normed)
        between = self._same(width, attended, self._same(width, self._op(width, low), normed))
        inner = dimension(shapes, "ffn_up.weight", 1)
        fed = self._op(width, between)
        up, gate = self._op(inner, fed), self._op(inner, fed)
        # Activations are sparse: what is below a share of the others is cut off.
        cut = self._op(inner, gate)
        active = self._same(inner, up, self._same(inner, gate, cut))
        activated = self._same(width, self._op(width, active), between)
        repeated = self._op(all_streams, self._same(width, activated, views=(predicted,)))
        corrected = self._same(all_streams, repeated, predicted)
        each = self._number("embedding_length_per_layer_input")
        gated = self._op(each, self._op(width, corrected))
        first = self._op(width, self._same(each, gated, views=() if extra is None else (extra,)))
        others = self._op(all_streams - width, corrected, first)
        return self._op(all_streams, corrected, others)

    def _mix(self, shapes: Shapes, stream: int) -> list[int]:
        """What lets tokens see each other: attention, a recurrence, or both side by side, which are added."""
        normed = self._op(self._width, stream)
        if "ssm_conv1d_q.weight" in shapes:
            return [self._kimi_delta(shapes, normed)]
        if "shortconv.conv.weight" in shapes:
            return [self._short_convolution(normed)]
        if "ssm_x.weight" in shapes:
            return [self._mamba(shapes, normed)]
        if "ssm_conv1d.weight" in shapes and "attn_qkv.weight" in shapes:
            return [self._gated_delta(shapes, normed)]
        if not _has_attention(shapes):
            return self._mamba2(shapes, normed, None) if "ssm_in.weight" in shapes else [self._token_shift(normed)]
        is_latent = "attn_kv_a_mqa.weight" in shapes
        attended = self._latent(shapes, normed) if is_latent else self._attention(shapes, normed)
        if "ssm_in.weight" in shapes:
            return self._mamba2(shapes, stream, attended)
        self._computed(shapes)
        return [self._op(self._width, attended)]

    def _attention(self, shapes: Shapes, normed: int) -> int:
        """Source: src/llama-graph.cpp, build_qkv, build_attn, build_attn_mha."""
        is_rotated = self._header.architecture not in _UNROTATED
        heads = dimension(shapes, "attn_output.weight", 0) or self._width
        key = dimension(shapes, "attn_k.weight", 1)
        value = dimension(shapes, "attn_v.weight", 1) or key
        gate: int | None = None
        if "attn_qkv.weight" in shapes:
            fused = dimension(shapes, "attn_qkv.weight", 1)
            key = value = max(fused - heads, 0) // 2
            all_of_it = self._op(fused, normed)
            query = self._op(heads, all_of_it) if is_rotated else all_of_it
            keys, values = (self._op(key, all_of_it) if is_rotated else all_of_it), all_of_it
        else:
            projected = dimension(shapes, "attn_q.weight", 1) or heads
            query = self._op(projected, normed)
            if projected == 2 * heads and "attn_q_norm.weight" in shapes:
                # Half of it is a gate of what comes out.
                gate = query
            query = self._normed(shapes, "attn_q_norm.weight", min(projected, heads), query, is_rotated)
            values = self._op(value, normed) if key else query
            keys = self._normed(shapes, "attn_k_norm.weight", key, self._op(key, normed), is_rotated) if key else query
        self._graph.use(keys, values)
        attended = self._attend(heads, query)
        if gate is not None:
            attended = self._same(heads, self._op(heads, gate), views=(attended,))
        return attended

    def _normed(self, shapes: Shapes, name: str, values: int, projected: int, is_rotated: bool) -> int:
        if name in shapes or is_rotated:
            return self._op(values, projected)
        return projected

    def _chosen_cells(self, low: int, normed: int) -> list[int]:
        """The mask of what an indexer chooses, where there is one. Source: src/models/deepseek32.cpp."""
        if not (heads := self._number("attention.indexer.head_count")):
            return []
        width = heads * self._number("attention.indexer.key_length")
        query = self._op(width, self._op(width, self._op(width, low)))
        scores = self._op(self._step.cells, query, self._op(heads, normed), self._masks[-1])
        best = self._op(self._number("attention.indexer.top_k"), scores)
        all_hidden = self._graph.operation(self._mask_bytes, best, self._masks[0])
        return [self._graph.operation(self._mask_bytes, all_hidden, self._masks[0])]

    def _attend(self, values: int, query: int, *chosen: int) -> int:
        if self._has_flash_attention:
            return self._op(values, query, *self._masks, *chosen)
        scores = self._step.cells * self._number("attention.head_count")
        weights = self._same(scores, self._op(scores, query), views=self._masks)
        return self._op(values, self._op(values, weights))

    def _latent(self, shapes: Shapes, normed: int) -> int:
        """Source: src/models/deepseek2.cpp."""
        heads = self._number("attention.head_count")
        latent = dimension(shapes, "attn_kv_a_norm.weight", 0)
        with_position = dimension(shapes, "attn_kv_a_mqa.weight", 1)
        position = max(with_position - latent, 0)
        value = dimension(shapes, "attn_output.weight", 0)
        if rank := dimension(shapes, "attn_q_a.weight", 1):
            low = self._op(rank, normed)
            whole = dimension(shapes, "attn_q_b.weight", 1)
            query = self._op(whole, low)
        else:
            low = normed
            whole = dimension(shapes, "attn_q.weight", 1)
            query = self._op(whole, normed)
        if "attn_k_b.weight" in shapes:
            absorbed = self._op(heads * latent, query)
            rotated = self._op(heads * position, query)
            joined = self._op(heads * with_position, absorbed, rotated)
            compressed = self._op(with_position, normed)
            values = self._op(latent, compressed)
            keys = self._op(with_position, values, self._op(position, compressed))
            self._graph.use(keys)
            attended = self._attend(heads * latent, joined, *self._chosen_cells(low, normed))
            attended = self._op(value, self._op(value, attended))
        else:
            rotated = self._op(heads * position, query)
            compressed = self._op(with_position, normed)
            rotated_key = self._op(position, compressed)
            narrow = self._op(latent, compressed)
            both = self._op(dimension(shapes, "attn_kv_b.weight", 1), narrow)
            values = self._op(value, both)
            joined = self._op(whole, query, rotated)
            keys = self._op(whole, both, rotated_key)
            self._graph.use(keys, values)
            attended = self._attend(value, joined)
        return attended

    def _feed_forward(self, shapes: Shapes, normed: int) -> int:
        """Source: src/llama-graph.cpp, build_ffn, build_moe_ffn."""
        if "ffn_gate_inp.weight" not in shapes:
            return self._dense(shapes, "", normed)
        width, used = self._width, max(1, self._number("expert_used_count"))
        experts = dimension(shapes, "ffn_gate_inp.weight", 1)
        scores = self._op(experts, normed)
        order = self._op(experts, scores)
        weights = self._op(used, scores, order)
        if fused := dimension(shapes, "ffn_gate_up_exps.weight", 1):
            inner = fused // 2
            both = self._op(used * fused, normed, order)
            active = self._op(used * inner, both)
        else:
            inner = dimension(shapes, "ffn_up_exps.weight", 1)
            if "ffn_gate_exps.weight" in shapes:
                gate = self._op(used * inner, normed, order)
                up = self._op(used * inner, normed, order)
                active = self._op(used * inner, gate, up)
            else:
                active = self._op(used * inner, normed, order)
        down = self._op(used * width, active, order)
        weighted = self._same(used * width, down, views=(weights,))
        out = self._op(width, weighted) if used > 1 else weighted
        self._gather_ahead()
        if "ffn_up_shexp.weight" in shapes:
            out = self._same(width, out, self._dense(shapes, "_shexp", normed))
        elif "ffn_up.weight" in shapes:
            out = self._same(width, out, self._dense(shapes, "", normed))
        return out

    def _dense(self, shapes: Shapes, suffix: str, normed: int) -> int:
        up_width = dimension(shapes, f"ffn_up{suffix}.weight", 1) or self._number("feed_forward_length")
        inner = dimension(shapes, f"ffn_down{suffix}.weight", 0) or up_width
        if f"ffn_gate{suffix}.weight" in shapes:
            gate = self._op(inner, normed)
            active = self._op(inner, gate, self._op(inner, normed))
        elif up_width > inner:
            active = self._op(inner, self._op(up_width, normed))
        else:
            active = self._op(inner, normed)
        return self._op(self._width, active)

    def _convolved(self, channels: int, kernel: int, fresh: int, kept: int) -> int:
        """The kept tokens in front of the new ones. Source: src/models/delta-net-base.cpp, build_conv_state."""
        size = channels * (self._step.tokens + (kernel - 1) * self._step.sequences) * _F32
        return self._graph.operation(size, kept, fresh)

    def _mamba(self, shapes: Shapes, normed: int) -> int:
        """Source: src/models/mamba-base.cpp, build_mamba_layer."""
        inner, state, kernel = (self._number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
        rank = self._number("ssm.time_step_rank")
        kept = self._gathered_states()
        both = self._op(2 * inner, normed)
        convolved = self._op(inner, self._convolved(inner, kernel, both, kept))
        chosen = self._op(rank + 2 * state, convolved)
        step_size = self._op(inner, self._op(rank, chosen))
        sides = [chosen]
        if "ssm_b_norm.weight" in shapes:
            sides = [self._op(state, chosen), self._op(state, chosen)]
        scanned = self._scan(inner, inner * state, convolved, step_size, *sides)
        self._computed(shapes)
        gate = self._op(inner, both)
        mixed = self._same(inner, convolved, views=(scanned,))
        return self._op(self._width, self._op(inner, gate, mixed))

    def _scan(self, inner: int, state: int, *inputs: int) -> int:
        """Outputs and new states in one. Source: ggml/src/ggml.c, ggml_ssm_scan, ggml_gated_delta_net."""
        size = self._floats(inner) + self._step.sequences * state * _F32
        return self._graph.operation(size, *inputs, self._copied)

    def _mamba2(self, shapes: Shapes, normed: int, attended: int | None) -> list[int]:
        """Source: src/models/mamba-base.cpp, build_mamba2_layer."""
        inner, state, kernel = (self._number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
        groups, heads = self._number("ssm.group_count"), self._number("ssm.time_step_rank")
        channels = inner + 2 * groups * state
        kept = self._gathered_states()
        if attended is not None:
            # Normed once more.
            normed = self._op(self._width, normed)
        whole = self._op(dimension(shapes, "ssm_in.weight", 1) or inner + channels + heads, normed)
        convolved = self._op(channels, self._convolved(channels, kernel, whole, kept))
        step_size = self._op(heads, whole)
        scanned = self._scan(inner, inner * state, convolved, step_size)
        self._computed(shapes)
        beside = [] if attended is None else [self._op(self._width, attended)]
        gate = self._op(inner, whole)
        skipped = self._op(inner, convolved)
        mixed = self._op(inner, gate, self._same(inner, skipped, views=(scanned,)))
        if "ssm_norm.weight" in shapes:
            mixed = self._op(inner, mixed)
        return [*beside, self._op(self._width, mixed)]

    def _gated_delta(self, shapes: Shapes, normed: int) -> int:
        """Source: src/models/qwen3next.cpp, build_layer_attn_linear; qwen35.cpp."""
        inner, state, kernel = (self._number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
        groups, heads = self._number("ssm.group_count"), self._number("ssm.time_step_rank")
        keys = groups * state
        channels = dimension(shapes, "attn_qkv.weight", 1) or inner + 2 * keys
        kept = self._states((kernel - 1) * channels)
        fresh = self._op(channels, normed)
        joined = self._convolved(channels, kernel, fresh, kept)
        states = self._states(inner * state)
        convolved = self._op(channels, joined)
        sides = []
        for _ in range(2):
            side = self._op(keys, convolved)
            # Keys and queries are written down once for each head of the values.
            sides.append(self._op(inner, side) if "ssm_ba.weight" in shapes and groups != heads else side)
        gates = self._op(heads, normed), self._op(heads, normed)
        scanned = self._scan(inner, inner * state, *sides, convolved, *gates, states)
        out = self._op(inner, scanned)
        open_ = self._op(inner, self._op(inner, normed))
        return self._op(self._width, self._same(inner, out, open_))

    def _kimi_delta(self, shapes: Shapes, normed: int) -> int:
        """Source: src/models/kimi-linear.cpp."""
        head, kernel = self._number("kda.head_dim"), self._number("ssm.conv_kernel") or 4
        filters = shapes["ssm_conv1d_q.weight"]
        inner = 1
        for axis in filters[1:]:
            inner *= axis
        kept = self._states(3 * (kernel - 1) * inner)
        sides = []
        for _ in range(3):
            fresh = self._op(inner, normed)
            sides.append(self._op(inner, self._convolved(inner, kernel, fresh, kept)))
        gate = self._op(inner, self._op(head, normed))
        beta = self._op(inner // head if head else 0, normed)
        states = self._states(head * inner)
        normed_sides = [self._op(inner, side) for side in sides[:2]]
        scanned = self._scan(inner, head * inner, *normed_sides, sides[2], gate, beta, states)
        open_ = self._op(inner, self._op(head, normed))
        out = self._op(inner, scanned)
        return self._op(self._width, self._same(inner, out, open_))

    def _short_convolution(self, normed: int) -> int:
        """Source: src/models/lfm2.cpp, build_shortconv_block."""
        width, kernel = self._width, self._number("shortconv.l_cache")
        kept = self._states((kernel - 1) * width)
        whole = self._op(3 * width, normed)
        gated = self._op(width, whole)
        convolved = self._op(width, self._convolved(width, kernel, gated, kept))
        return self._op(width, self._same(width, convolved, views=(whole,)))

    def _token_shift(self, normed: int) -> int:
        """RWKV, roughly: its mixes of two tokens, five at a time, and the states. Source: src/models/rwkv7-base.cpp."""
        width, head = self._width, self._number("wkv.head_size")
        states = self._states(head * width)
        mixes = [self._op(width, normed) for _ in range(6)]
        scanned = self._scan(width, head * width, *mixes, states)
        return self._op(width, self._op(width, scanned))


def _has_attention(shapes: Shapes) -> bool:
    """Falcon-H1 has an output of its own beside the recurrence; Kimi's projections feed the recurrence."""
    if "ssm_conv1d_q.weight" in shapes:
        return False
    if is_recurrent(shapes):
        return "attn_output.weight" in shapes
    return any(f"attn_{part}.weight" in shapes for part in ("q", "k", "qkv", "kv_a_mqa"))


def _mixes(shapes: Shapes) -> bool:
    return is_recurrent(shapes) or _has_attention(shapes)


def _feeds_forward(shapes: Shapes) -> bool:
    return any(name.startswith(("ffn_up", "ffn_gate", "ffn_down")) for name in shapes)

"""Predicts what a model that generates text takes of each device, and of the host, where it is put. Pure.

The prediction is the sum of the buffers that llama.cpp allocates. ``footprint`` predicts the memory of the host with
all that is beside them. Where several devices share a model, its placement must say how
(``engine.placing.divided_by_free_memory``). Not counted: a draft model, a projector on a device, and copies of weights
of the host that some devices (CUDA) make for long prompts. The rows of ``split_mode`` "row" count for the device of
their layer. ``engine.hosts.dry_load`` has llama.cpp's own numbers.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from modelyard.formats.gguf.header import GgufHeader
from modelyard.protocol.placement import HOST_NAME, DeviceBytes, PlacedBytes, Placement
from modelyard.yard.memory.cache_bytes import (
    KvType,
    Windows,
    cells_of_windows,
    context_cells,
    kv_bytes_by_layer,
    state_bytes_by_layer,
)
from modelyard.yard.memory.layer_placement import LayerPlacement
from modelyard.yard.memory.layer_shapes import vocabulary_size
from modelyard.yard.memory.placed_step import bytes_by_device
from modelyard.yard.memory.placed_weights import ModelWeights
from modelyard.yard.memory.prediction import ContextSettings
from modelyard.yard.memory.step_buffer import StepGraph
from modelyard.yard.memory.step_bytes import ONE_RESERVED, output_bytes
from modelyard.yard.memory.step_graph import step_graph
from modelyard.yard.memory.step_operations import Step


class PlacedModel:
    """One model in any placement: it keeps what is the same in all of them, which takes most of the time.

    Args:
        header: of the model, in one file.
        step: that llama.cpp reserves buffers for.
        cache_bytes: of the KV cells and states of each layer.
        output_bytes: of the buffer that logits are copied to.
        processor: as ``platform.machine`` calls it.
    """

    def __init__(
        self,
        header: GgufHeader,
        step: Step,
        cache_bytes: Sequence[int],
        output_bytes: int,
        processor: str = platform.machine(),
    ) -> None:
        self.header = header
        self.weights = ModelWeights(header, processor)
        self.cache_bytes = cache_bytes
        self._output_bytes = output_bytes
        self._computes: dict[tuple[tuple[str, ...], bool], Mapping[str, int]] = {}
        self._step = step

    @cached_property
    def _graph(self) -> StepGraph:
        return step_graph(self.header, self._step, vocabulary_size(self.header), has_all_layers=True)

    def bytes_of(self, placement: Placement) -> PlacedBytes:
        """Return the bytes of the buffers that llama.cpp allocates on each device, and on the host as "host".

        Args:
            placement: with names of devices, as ``engine.placing.resolve`` returns it, and with parts for several.
        """
        layers = LayerPlacement(self.header, placement)
        weights = self.weights.by_device(layers)
        cache: Counter[str] = Counter()
        for number, size in enumerate(self.cache_bytes):
            cache[layers.cache(number)] += size
        compute = self._compute_bytes(layers)
        names = dict.fromkeys((*weights, *cache, *compute, HOST_NAME))
        return {
            name: DeviceBytes(
                weights.get(name, 0),
                cache.get(name, 0),
                compute.get(name, 0),
                self._output_bytes if name == HOST_NAME else 0,
            )
            for name in names
        }

    def _compute_bytes(self, layers: LayerPlacement) -> Mapping[str, int]:
        """Return the bytes of the compute buffers, found out once for placements that differ in names of devices."""
        places = [layers.operation(tensor) for tensor in self._graph.tensors]
        names = list(dict.fromkeys((HOST_NAME, *places)))
        number = {name: str(at) for at, name in enumerate(names)}
        key = tuple(number[place] for place in places), layers.is_pipeline
        if (found := self._computes.get(key)) is None:
            found = self._computes[key] = bytes_by_device(
                self._graph, key[0], number[HOST_NAME], is_pipeline=layers.is_pipeline
            )
        return {name: found[number[name]] for name in names if number[name] in found}


def text_model(header: GgufHeader, context: ContextSettings, processor: str = platform.machine()) -> PlacedModel:
    """Return a model that generates text with such a context."""
    cells, sequences = context_cells(header, context.context_length), context.sequences
    windows = Windows(sequences, context.batch_tokens) if context.parks else None
    return PlacedModel(
        header,
        _reserved(header, cells, context, windows),
        cache_by_layer(header, cells, sequences, context.kv_type, windows),
        output_bytes(header, sequences),
        processor,
    )


def placed_bytes(
    header: GgufHeader, placement: Placement, context: ContextSettings, processor: str = platform.machine()
) -> PlacedBytes:
    """Return the bytes of the buffers that llama.cpp allocates for a model that generates text in one placement."""
    return text_model(header, context, processor).bytes_of(placement)


def cache_by_layer(
    header: GgufHeader, cells: int, sequences: int, kv_type: KvType, windows: Windows | None = None
) -> Sequence[int]:
    """Return the bytes of KV cells and recurrent states of each layer, in their order."""
    sizes = list(state_bytes_by_layer(header, sequences))
    for number, size in enumerate(kv_bytes_by_layer(header, cells, kv_type, windows)):
        sizes[number] += size
    return sizes


def _reserved(header: GgufHeader, cells: int, context: ContextSettings, windows: Windows | None) -> Step:
    """Return the step that llama.cpp reserves buffers for. Source: src/llama-context.cpp, sched_reserve."""
    tokens = min(context.batch_tokens, cells) if cells else context.batch_tokens
    count = 1 if header.architecture in ONE_RESERVED else max(1, context.sequences)
    in_windows, is_fused = cells_of_windows(header, cells, windows), context.flash_attn is not False
    return Step(cells, -(-tokens // count) * count, count, tokens, is_fused, window_cells=in_windows)

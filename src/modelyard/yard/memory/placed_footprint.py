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
from collections.abc import Mapping

from modelyard.formats.gguf.header import GgufHeader
from modelyard.protocol.placement import HOST_NAME, DeviceBytes, PlacedBytes, Placement
from modelyard.yard.memory.cache_bytes import KvType, context_cells, kv_bytes_by_layer, state_bytes_by_layer
from modelyard.yard.memory.layer_placement import LayerPlacement
from modelyard.yard.memory.layer_shapes import is_computed, vocabulary_size
from modelyard.yard.memory.placed_step import bytes_by_device
from modelyard.yard.memory.step_bytes import ONE_RESERVED, output_bytes
from modelyard.yard.memory.step_graph import step_graph
from modelyard.yard.memory.step_operations import Step
from modelyard.yard.memory.weight_bytes import is_repacked


def placed_bytes(
    header: GgufHeader,
    placement: Placement,
    *,
    context_length: int | None,
    sequences: int,
    batch_tokens: int,
    kv_type: KvType = "f16",
    flash_attn: bool | None = None,
    processor: str = platform.machine(),
) -> PlacedBytes:
    """Return the bytes of the buffers that llama.cpp allocates on each device, and on the host as "host".

    Args:
        header: of the model, in one file.
        placement: with names of devices, as ``engine.placing.resolve`` returns it, and with parts for several.
        context_length, sequences, batch_tokens, kv_type, flash_attn, processor: as in ``footprint.predict``.
    """
    layers = LayerPlacement(header, placement)
    weights = _weights(header, layers, processor)
    cells = context_cells(header, context_length)
    cache: Counter[str] = Counter()
    for sizes in (kv_bytes_by_layer(header, cells, kv_type), state_bytes_by_layer(header, sequences)):
        for number, size in enumerate(sizes):
            cache[layers.cache(number)] += size
    compute = bytes_by_device(
        step_graph(
            header,
            _reserved(header, cells, sequences, batch_tokens, has_flash_attention=flash_attn is not False),
            vocabulary_size(header),
            has_all_layers=True,
        ),
        layers.operation,
        HOST_NAME,
        is_pipeline=layers.is_pipeline,
    )
    names = dict.fromkeys((*weights, *cache, *compute, HOST_NAME))
    return {
        name: DeviceBytes(
            weights.get(name, 0),
            cache.get(name, 0),
            compute.get(name, 0),
            output_bytes(header, sequences) if name == HOST_NAME else 0,
        )
        for name in names
    }


def _weights(header: GgufHeader, layers: LayerPlacement, processor: str) -> Mapping[str, int]:
    sums: Counter[str] = Counter()
    names = {tensor.name for tensor in header.tensors}
    is_tied = header.split[1] == 1 and "output.weight" not in names
    for tensor in header.tensors:
        if not is_computed(header, tensor.name):
            continue
        place = layers.tensor(tensor.name)
        sums[place] += tensor.size_bytes
        if tensor.name == "token_embd.weight" and is_tied:
            # Embeddings that also serve as the output matrix are kept twice, unless both are in the same buffer.
            output = layers.tensor(tensor.name, is_output=True)
            if output != place or (place == HOST_NAME and is_repacked(tensor, processor, is_tied=True)):
                sums[output] += tensor.size_bytes
    return sums


def _reserved(header: GgufHeader, cells: int, sequences: int, batch_tokens: int, *, has_flash_attention: bool) -> Step:
    """Return the step that llama.cpp reserves buffers for. Source: src/llama-context.cpp, sched_reserve."""
    tokens = min(batch_tokens, cells) if cells else batch_tokens
    count = 1 if header.architecture in ONE_RESERVED else max(1, sequences)
    return Step(cells, -(-tokens // count) * count, count, tokens, has_flash_attention)

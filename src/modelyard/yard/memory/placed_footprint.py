"""Predicts what a model takes of each device, and of the host, where it is put. Pure; see ``footprint`` for the host.

The prediction is the sum of the buffers that llama.cpp allocates. Where several devices share a model, its placement
must say how (``engine.placing.divided_by_free_memory``). Not counted: a draft model, whose footprint is predicted by
itself, a projector on a device, and copies of weights of the host that some devices (CUDA) make for long prompts. The
rows of ``split_mode`` "row" count for the device of their layer. ``runtime.dry_loads`` has llama.cpp's own numbers.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.formats.gguf.header import GgufHeader
from modelyard.hub import ModelFiles
from modelyard.protocol.placement import HOST_NAME, DeviceBytes, PlacedBytes, Placement
from modelyard.yard.memory.cache_bytes import KvType, context_cells, kv_bytes_by_layer, state_bytes_by_layer
from modelyard.yard.memory.footprint import Footprint, predict
from modelyard.yard.memory.layer_placement import LayerPlacement
from modelyard.yard.memory.layer_shapes import is_computed, vocabulary_size
from modelyard.yard.memory.placed_step import bytes_by_device
from modelyard.yard.memory.step_bytes import ONE_RESERVED, output_bytes
from modelyard.yard.memory.step_graph import step_graph
from modelyard.yard.memory.step_operations import Step
from modelyard.yard.memory.weight_bytes import is_repacked


@dataclass(frozen=True, slots=True)
class PlacedFootprint:
    """What a model takes while it is loaded.

    Attributes:
        host: of the machine's memory.
        devices: of each device.
    """

    host: Footprint
    devices: PlacedBytes

    def corrected(self, measured: PlacedBytes) -> PlacedFootprint:
        """Return the footprint with what was planned or measured on devices in place of what was predicted."""
        return PlacedFootprint(self.host, {name: each for name, each in measured.items() if name != HOST_NAME})


def predict_placed(
    files: ModelFiles,
    placement: Placement,
    *,
    context_length: int | None,
    running: int,
    sequences: int,
    batch_tokens: int,
    kv_type: KvType = "f16",
    flash_attn: bool | None = None,
    parks: bool = True,
    processor: str = platform.machine(),
    threads: int | None = None,
) -> PlacedFootprint:
    """Return the memory that a model that generates text will take.

    Args:
        files: as in ``predict``.
        placement: with names of devices, as ``engine.placing.resolve`` returns it, and with parts for several.
        context_length, running, sequences, batch_tokens, kv_type, flash_attn, parks, processor, threads: as in
            ``predict``.
    """
    whole = predict(
        files,
        context_length=context_length,
        running=running,
        sequences=sequences,
        batch_tokens=batch_tokens,
        kv_type=kv_type,
        flash_attn=flash_attn,
        parks=parks,
        processor=processor,
        threads=threads,
    )
    if not placement.devices:
        return PlacedFootprint(whole, {})
    placed = placed_bytes(
        files.header,
        placement,
        context_length=context_length,
        sequences=sequences,
        batch_tokens=batch_tokens,
        kv_type=kv_type,
        flash_attn=flash_attn,
        processor=processor,
    )
    everything = placed_bytes(
        files.header,
        Placement(devices=()),
        context_length=context_length,
        sequences=sequences,
        batch_tokens=batch_tokens,
        kv_type=kv_type,
        flash_attn=flash_attn,
        processor=processor,
    )[HOST_NAME]
    here = placed.get(HOST_NAME, DeviceBytes())
    host = Footprint(
        whole.weights_key,
        # Weights of devices are read through pages of the file that are given back.
        max(0, whole.weights_bytes - _part(whole, files, everything.weights - here.weights)),
        max(0, whole.context_bytes - (everything.kv - here.kv) - max(0, everything.compute - here.compute)),
    )
    return PlacedFootprint(host, {name: each for name, each in placed.items() if name != HOST_NAME})


def _part(whole: Footprint, files: ModelFiles, elsewhere: int) -> int:
    """Return the bytes of the host's weights that are on devices instead, of ``elsewhere`` bytes by the header."""
    known = sum(tensor.size_bytes for tensor in files.header.tensors if is_computed(files.header, tensor.name))
    return whole.weights_bytes * min(elsewhere, known) // known if known else 0


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

    The arguments are those of ``predict_placed``.
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
            if output != place or is_repacked(tensor, processor, is_tied=True):
                sums[output] += tensor.size_bytes
    return sums


def _reserved(header: GgufHeader, cells: int, sequences: int, batch_tokens: int, *, has_flash_attention: bool) -> Step:
    """Return the step that llama.cpp reserves buffers for. Source: src/llama-context.cpp, sched_reserve."""
    tokens = min(batch_tokens, cells) if cells else batch_tokens
    count = 1 if header.architecture in ONE_RESERVED else max(1, sequences)
    return Step(cells, -(-tokens // count) * count, count, tokens, has_flash_attention)

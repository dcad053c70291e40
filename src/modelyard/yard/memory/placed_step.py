"""What a step takes of the compute buffer of each device, where its operations are on several. Pure.

ggml divides the operations of a step into splits: sequences on one device. A tensor that a split reads from another
device is copied to its own, once for each device. Each device has a buffer of its own, in which tensors are placed as
in ``step_buffer``, in the order of the whole graph.

Source: llama.cpp, ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph, as of b11739.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.yard.memory.step_buffer import Space, StepGraph, StepTensor

# Steps that are computed at once where several devices form a pipeline. Source: GGML_SCHED_MAX_COPIES.
COPIES: Final = 4


@dataclass(frozen=True, slots=True)
class _Node:
    """A tensor in the order in which places are given, on a device."""

    size_bytes: int
    device: str
    reads: Sequence[int]
    reusable: Sequence[int]
    is_kept: bool


def bytes_by_device(
    graph: StepGraph, device_of: Callable[[StepTensor], str], host: str, *, is_pipeline: bool
) -> Mapping[str, int]:
    """Return the bytes of the compute buffer of each device.

    Args:
        graph: the operations of the step that buffers are reserved for.
        device_of: the device that computes a tensor.
        host: the device that inputs are filled in on.
        is_pipeline: whether several devices compute different steps at the same time; inputs and whatever crosses
            between devices then has four places, which nothing else takes.
    """
    inputs = graph.inputs
    devices = [host if at in inputs else device_of(tensor) for at, tensor in enumerate(graph.tensors)]
    nodes, permanent = _nodes(graph, devices, is_pipeline=is_pipeline)
    sizes = Counter(permanent)
    for device, size in _place(nodes).items():
        sizes[device] += size
    return sizes


def _nodes(graph: StepGraph, devices: Sequence[str], *, is_pipeline: bool) -> tuple[list[_Node], Counter[str]]:
    """Return all nodes with the copies between devices, and the bytes of those that have a place for themselves."""
    tensors, kept = graph.tensors, graph.kept
    nodes: list[_Node] = []
    permanent: Counter[str] = Counter()
    # Number of a tensor, and the device that reads it -> number of the node.
    at: dict[tuple[int, str], int] = {}

    def add(number: int, node: _Node) -> None:
        at[number, node.device] = len(nodes)
        nodes.append(node)

    inputs, first = graph.inputs, 0
    while first < len(tensors):
        device = devices[first]
        last = next((later for later in range(first, len(tensors)) if devices[later] != device), len(tensors))
        reads = dict.fromkeys(read for tensor in tensors[first:last] for read in tensor.inputs if read < first)
        for read in reads:
            if (read, device) in at:
                continue
            size, source = tensors[read].size_bytes, at[read, devices[read]]
            permanent[device] += COPIES * size if is_pipeline else 0
            add(read, _Node(0 if is_pipeline else size, device, (source,), (), is_kept=False))
        for number in range(first, last):
            tensor = tensors[number]
            if number in inputs:
                permanent[device] += COPIES * tensor.size_bytes if is_pipeline else 0
                add(number, _Node(0 if is_pipeline else tensor.size_bytes, device, (), (), is_kept=False))
                continue
            reusable = [at[old, device] for old in tensor.reusable]
            if is_pipeline:
                # What has a place for itself gives it to no result.
                reusable = [old for old in reusable if nodes[old].size_bytes]
            reading = [at[read, device] for read in tensor.inputs]
            add(number, _Node(tensor.size_bytes, device, reading, reusable, number in kept))
        first = last
    return nodes, permanent


def _place(nodes: Sequence[_Node]) -> Mapping[str, int]:
    """Return the bytes of the buffer of each device. Source: see ``StepGraph.places``."""
    last_reader = {read: reader for reader, node in enumerate(nodes) for read in node.reads}
    spaces: dict[str, Space] = {}
    places: list[int] = []
    held: set[int] = set()
    for number, node in enumerate(nodes):
        space = spaces.setdefault(node.device, Space())
        reused = next((old for old in node.reusable if _may_reuse(nodes, number, old, last_reader, held)), None)
        if reused is None:
            places.append(space.take(node.size_bytes))
        else:
            places.append(places[reused])
            held.remove(reused)
        held.add(number)
        for read in dict.fromkeys(node.reads):
            if last_reader[read] == number and read in held and not nodes[read].is_kept:
                held.remove(read)
                spaces[nodes[read].device].free(places[read], nodes[read].size_bytes)
    return {device: space.size_bytes for device, space in spaces.items()}


def _may_reuse(nodes: Sequence[_Node], reader: int, old: int, last_reader: Mapping[int, int], held: set[int]) -> bool:
    before, after = nodes[old], nodes[reader]
    return (
        last_reader[old] == reader
        and old in held
        and not before.is_kept
        and before.device == after.device
        and before.size_bytes == after.size_bytes
    )

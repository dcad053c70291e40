"""What a step takes of the compute buffer of each device, where its operations are on several. Pure.

ggml divides the operations of a step into splits: sequences on one device. A tensor that a split reads from another
device is copied to its own, once for each device. Each device has a buffer of its own, in which tensors are placed as
in ``step_buffer``, in the order of the whole graph.

Source: llama.cpp, ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph, as of b11739.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from modelyard.yard.memory.step_buffer import Node, StepGraph, place

# Steps that are computed at once where several devices form a pipeline. Source: GGML_SCHED_MAX_COPIES.
COPIES: Final = 4


def bytes_by_device(graph: StepGraph, places: Sequence[str], host: str, *, is_pipeline: bool) -> Mapping[str, int]:
    """Return the bytes of the compute buffer of each device.

    Args:
        graph: the operations of the step that buffers are reserved for.
        places: the devices that compute its tensors, in their order.
        host: the device that inputs are filled in on.
        is_pipeline: whether several devices compute different steps at the same time; inputs and whatever crosses
            between devices then has four places, which nothing else takes.
    """
    inputs = graph.inputs
    devices = [host if at in inputs else device for at, device in enumerate(places)]
    nodes, permanent = _nodes(graph, devices, is_pipeline=is_pipeline)
    sizes = Counter(permanent)
    for device, size in place(nodes)[1].items():
        sizes[device] += size
    return sizes


def _nodes(graph: StepGraph, devices: Sequence[str], *, is_pipeline: bool) -> tuple[list[Node], Counter[str]]:
    """Return all nodes with the copies between devices, and the bytes of those that have a place for themselves."""
    tensors, kept = graph.tensors, graph.kept
    nodes: list[Node] = []
    permanent: Counter[str] = Counter()
    # Number of a tensor, and the device that reads it -> number of the node.
    at: dict[tuple[int, str], int] = {}

    def add(number: int, node: Node) -> None:
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
            add(read, Node(0 if is_pipeline else size, (source,), (), is_kept=False, device=device))
        for number in range(first, last):
            tensor = tensors[number]
            if number in inputs:
                permanent[device] += COPIES * tensor.size_bytes if is_pipeline else 0
                add(number, Node(0 if is_pipeline else tensor.size_bytes, (), (), is_kept=False, device=device))
                continue
            reusable = [at[old, device] for old in tensor.reusable]
            if is_pipeline:
                # What has a place for itself gives it to no result.
                reusable = [old for old in reusable if nodes[old].size_bytes]
            reading = [at[read, device] for read in tensor.inputs]
            add(number, Node(tensor.size_bytes, reading, reusable, number in kept, device))
        first = last
    return nodes, permanent

"""Where ggml places the tensors of a graph, and how large the buffer for them is. Pure.

A tensor lives until the last operation that reads it, and later ones are placed in the gaps that are left. The size of
the buffer therefore depends on the order of the operations, and not only on the sum of the tensors: the gaps are a
third of the buffer or more.

Source: llama.cpp, ggml/src/ggml-alloc.c, ggml_gallocr_alloc_graph_impl and ggml_dyn_tallocr_alloc, as of b11739.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

# Source: ggml/src/ggml-impl.h, TENSOR_ALIGNMENT.
_ALIGNMENT: Final = 32

Part: TypeAlias = Literal["", "attention", "experts"]
"""A part of a layer that may be computed elsewhere than the rest of it."""

INPUT_LAYER: Final = -1
"""The layer of inputs, and of what is looked up in the embeddings."""


@dataclass(frozen=True, slots=True)
class StepTensor:
    """The result of an operation.

    Attributes:
        size_bytes: of its data.
        inputs: tensors that its operation reads.
        reusable: those of them whose place it may take, where its operation is the last to read them.
        layer: number of the layer that it belongs to; ``INPUT_LAYER`` before the first.
        part: of the layer.
    """

    size_bytes: int
    inputs: Sequence[int]
    reusable: Sequence[int]
    layer: int = INPUT_LAYER
    part: Part = ""


class StepGraph:
    """The operations of one step, in their order. Tensors are identified by their numbers.

    Attributes:
        layer: number of the layer that the next operations belong to.
    """

    def __init__(self) -> None:
        self._tensors: list[StepTensor] = []
        self._kept: set[int] = set()
        self._inputs: set[int] = set()
        self.layer = INPUT_LAYER
        self._part: Part = ""

    @contextmanager
    def part(self, part: Part) -> Iterator[None]:
        """Let the operations within the context belong to a part of their layer."""
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before

    def input(self, size_bytes: int) -> int:
        """Add a tensor that is filled in before the step. All inputs must precede the first operation."""
        added = self._add(size_bytes, (), ())
        self._inputs.add(added)
        return added

    def operation(self, size_bytes: int, *inputs: int) -> int:
        """Add the result of an operation that needs a place of its own."""
        return self._add(size_bytes, inputs, ())

    def in_place(self, size_bytes: int, *inputs: int, views: Sequence[int] = ()) -> int:
        """Add the result of an operation that may take the place of one of ``inputs``.

        It also reads ``views``, whose places it cannot take, because they are read with another shape.
        """
        return self._add(size_bytes, (*inputs, *views), inputs)

    def use(self, *inputs: int) -> None:
        """Add an operation that writes elsewhere, such as into the KV cache."""
        self._add(0, inputs, ())

    def keep(self, tensor: int) -> int:
        """Keep a result until after the step."""
        self._kept.add(tensor)
        return tensor

    def _add(self, size_bytes: int, inputs: Sequence[int], reusable: Sequence[int]) -> int:
        size = -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
        self._tensors.append(StepTensor(size, inputs, reusable, self.layer, self._part))
        return len(self._tensors) - 1

    def buffer_bytes(self) -> int:
        """Return the bytes of the buffer that holds all tensors."""
        return sum(place(self._nodes())[1].values())

    def places(self) -> list[int]:
        """Return the offset of each tensor in the buffer."""
        return place(self._nodes())[0]

    def _nodes(self) -> list[Node]:
        return [
            Node(tensor.size_bytes, tensor.inputs, tensor.reusable, is_kept=number in self._kept)
            for number, tensor in enumerate(self._tensors)
        ]

    @property
    def tensors(self) -> Sequence[StepTensor]:
        """All tensors, in their order."""
        return self._tensors

    @property
    def inputs(self) -> frozenset[int]:
        """Tensors that are filled in before the step."""
        return frozenset(self._inputs)

    @property
    def kept(self) -> frozenset[int]:
        """Tensors that stay until after the step."""
        return frozenset(self._kept)

    @property
    def sizes(self) -> Sequence[int]:
        """Bytes of each tensor."""
        return [tensor.size_bytes for tensor in self._tensors]


@dataclass(frozen=True, slots=True)
class Node:
    """A tensor in the order in which places are given.

    Attributes:
        size_bytes: of its data.
        reads, reusable: numbers of nodes, as in ``StepTensor``.
        is_kept: whether it stays until after the step.
        device: which has the buffer that it is in.
    """

    size_bytes: int
    reads: Sequence[int]
    reusable: Sequence[int]
    is_kept: bool
    device: str = ""


def place(nodes: Sequence[Node]) -> tuple[list[int], Mapping[str, int]]:
    """Return the offset of each node in the buffer of its device, and the bytes of these buffers."""
    last_reader = {read: reader for reader, node in enumerate(nodes) for read in node.reads}
    places: list[int] = []
    held: set[int] = set()
    spaces: dict[str, _Space] = {}
    for number, node in enumerate(nodes):
        reused = next((old for old in node.reusable if _may_reuse(nodes, number, old, last_reader, held)), None)
        if (space := spaces.get(node.device)) is None:
            space = spaces[node.device] = _Space()
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
    return places, {device: space.size_bytes for device, space in spaces.items()}


def _may_reuse(nodes: Sequence[Node], reader: int, old: int, last_reader: Mapping[int, int], held: set[int]) -> bool:
    before, after = nodes[old], nodes[reader]
    return (
        last_reader[old] == reader
        and old in held
        and not before.is_kept
        and before.device == after.device
        and before.size_bytes == after.size_bytes
    )


def touched_bytes(reserved: StepGraph, steps: Iterable[StepGraph]) -> int:
    """Return the bytes of the buffer that ``steps`` write to, one after the other.

    Their tensors have the places of those of ``reserved``, the largest step. Where they are smaller, the memory behind
    them is never touched.

    Source: ggml_gallocr_alloc_graph, which keeps the places of a graph with as many operations, none of them larger.
    """
    places = reserved.places()
    spans = sorted(
        (offset, offset + size) for step in steps for offset, size in zip(places, step.sizes, strict=True) if size
    )
    touched = end = 0
    for first, last in spans:
        touched += max(0, last - max(first, end))
        end = max(end, last)
    return touched


class _Space:
    """The free space of a buffer: gaps by their offsets, and the unbounded space behind the last tensor."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._gaps: dict[int, int] = {}
        self._end = 0

    def take(self, size: int) -> int:
        """Allocate a place, and return its offset: in the smallest gap that is large enough, of equal ones the last."""
        if not size:
            return 0
        best = min(
            (gap for gap in self._gaps.items() if gap[1] >= size), key=lambda gap: (gap[1], -gap[0]), default=None
        )
        if best is None:
            offset, self._end = self._end, self._end + size
            self.size_bytes = max(self.size_bytes, self._end)
            return offset
        offset, gap = best
        del self._gaps[offset]
        if gap > size:
            self._gaps[offset + size] = gap - size
        return offset

    def free(self, offset: int, size: int) -> None:
        """Free a place, and merge it with the gaps beside it."""
        if not size:
            return
        if (behind := self._gaps.pop(offset + size, None)) is not None:
            size += behind
        before = next((gap for gap in self._gaps.items() if gap[0] + gap[1] == offset), None)
        if before is not None:
            del self._gaps[before[0]]
            offset, size = before[0], before[1] + size
        if offset + size == self._end:
            self._end = offset
        else:
            self._gaps[offset] = size

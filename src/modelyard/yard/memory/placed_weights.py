"""On which devices the weights of a model are in a placement, and what a token reads of them. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.formats.gguf.header import GgufHeader
from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.layer_placement import LayerPlacement
from modelyard.yard.memory.layer_shapes import is_computed, number_of
from modelyard.yard.memory.weight_bytes import EMBEDDINGS, is_held_twice

# Tensors of experts, as ``engine.placing`` leaves them on the host.
_EXPERTS: Final = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")
_LAYER: Final = re.compile(r"blk\.\d+\.")


@dataclass(frozen=True, slots=True)
class _Tensors:
    """Tensors that are on the same device.

    Attributes:
        name: of one of them.
        size_bytes: of all.
        twice_bytes: of those that the host holds twice, in two orders, where both are there.
        read_bytes: that a token reads of them.
    """

    name: str
    size_bytes: int
    twice_bytes: int
    read_bytes: int


class ModelWeights:
    """The tensors of one model that are loaded.

    Args:
        header: of the model, in one file.
        processor: as ``platform.machine`` calls it.
    """

    def __init__(self, header: GgufHeader, processor: str) -> None:
        names = {tensor.name for tensor in header.tensors}
        # Embeddings may also serve as the output matrix, which encoders do not have.
        self._is_tied = header.split[1] == 1 and "output.weight" not in names and not header.is_encoder
        experts, used = number_of(header, "expert_count"), number_of(header, "expert_used_count")
        used_part = min(1.0, used / experts) if experts and used else 1.0
        self._tensors = []
        for tensor in header.tensors:
            if not is_computed(header, tensor.name):
                continue
            size = tensor.size_bytes
            read = int(size * used_part) if _EXPERTS.search(tensor.name) else size
            if tensor.name == EMBEDDINGS and not self._is_tied:
                # Of embeddings that are only looked up a token reads one row.
                read = 0
            twice = size if is_held_twice(tensor, processor, is_tied=self._is_tied) else 0
            self._tensors.append(_Tensors(tensor.name, size, twice, read))
        self._groups = _grouped(self._tensors)

    def by_device(self, layers: LayerPlacement) -> Mapping[str, int]:
        """Return the bytes of the tensors on each device, and on the host as "host"."""
        sums: Counter[str] = Counter()
        for tensors in self._in(layers):
            place = layers.tensor(tensors.name)
            sums[place] += tensors.size_bytes
            if self._is_output_too(tensors):
                # They are kept twice, unless both are in the same buffer.
                output = layers.tensor(tensors.name, is_output=True)
                if output != place or (place == HOST_NAME and tensors.twice_bytes):
                    sums[output] += tensors.size_bytes
        return sums

    def moved_bytes(self, layers: LayerPlacement) -> int:
        """Return the bytes that the host does not hold because they are on devices: tensors, and second copies."""
        moved = 0
        for tensors in self._in(layers):
            place = layers.tensor(tensors.name)
            moved += tensors.size_bytes if place != HOST_NAME else 0
            if tensors.twice_bytes:
                moved += tensors.twice_bytes if self._computed_on(tensors, layers) != HOST_NAME else 0
        return moved

    def read_bytes(self, layers: LayerPlacement) -> Mapping[str, int]:
        """Return about the bytes that one token reads of the tensors on each device: of experts those that it uses."""
        sums: Counter[str] = Counter()
        for tensors in self._in(layers):
            sums[self._computed_on(tensors, layers)] += tensors.read_bytes
        return sums

    def _in(self, layers: LayerPlacement) -> Sequence[_Tensors]:
        return self._tensors if layers.has_patterns else self._groups

    def _computed_on(self, tensors: _Tensors, layers: LayerPlacement) -> str:
        return layers.tensor(tensors.name, is_output=self._is_output_too(tensors))

    def _is_output_too(self, tensors: _Tensors) -> bool:
        return self._is_tied and tensors.name == EMBEDDINGS


def _grouped(tensors: Iterable[_Tensors]) -> Sequence[_Tensors]:
    """Return the tensors in groups that no placement takes apart which has no patterns of names: experts of a layer."""
    groups: dict[tuple[str, bool], _Tensors] = {}
    for each in tensors:
        layer = _LAYER.match(each.name)
        key = (layer[0] if layer else each.name, bool(_EXPERTS.search(each.name)))
        known = groups.get(key, _Tensors(each.name, 0, 0, 0))
        groups[key] = _Tensors(
            known.name,
            known.size_bytes + each.size_bytes,
            known.twice_bytes + each.twice_bytes,
            known.read_bytes + each.read_bytes,
        )
    return list(groups.values())

"""Control vectors beside the weights of a model."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama.library import lib
from modelyard.engine.llama.model import Model
from modelyard.errors import UnusableModel
from modelyard.formats.gguf.control_vector import read_directions
from modelyard.formats.gguf.read import read_header


class ControlVector:
    """A direction for each layer but the first, which is added to what the layer has computed.

    Args:
        model: the weights whose layers it is for.
        path: its GGUF file, which was checked: see ``formats.gguf.control_vector``.
        layers: the first and the last layer that it is applied to; None: all.

    Attributes:
        directions: one for each layer from 1 on: [layers - 1, width], zeros where it has none.
        allocated_bytes: memory of the directions.

    Raises:
        UnusableModel: its file cannot be read, or does not fit the model.
    """

    def __init__(self, model: Model, path: Path, layers: tuple[int, int] | None = None) -> None:
        shape = model.layer_count - 1, model.width
        self.directions = np.zeros(shape, np.float32)
        first, last = layers or (1, shape[0])
        for layer, direction in read_directions(path, read_header(path)).items():
            if layer > shape[0] or len(direction) != shape[1]:
                raise UnusableModel(f"The control vector {path.name} is for another model. Name that in its place.")
            if first <= layer <= last:
                self.directions[layer - 1] = direction
        self.allocated_bytes = self.directions.nbytes

    def free(self) -> None:
        """Do nothing: contexts have copies of what they compute with."""


def added(vectors: Sequence[tuple[ControlVector, float]]) -> npt.NDArray[np.float32] | None:
    """Return the sum of control vectors, each times its scale; None for none."""
    if not vectors:
        return None
    total = np.zeros_like(vectors[0][0].directions)
    for vector, scale in vectors:
        total += np.float32(scale) * vector.directions
    return total


def apply_directions(context: int, directions: npt.NDArray[np.float32] | None) -> None:
    """Have a context of llama.cpp add directions from the next step on; None: none."""
    if directions is None:
        lib.llama_set_adapter_cvec(context, None, 0, 0, 0, 0)
        return
    layers, width = directions.shape
    data = directions.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if lib.llama_set_adapter_cvec(context, data, directions.size, width, 1, layers):
        raise RuntimeError("llama.cpp cannot apply a control vector.")

"""Assigns the entries of an importance matrix, which have GGUF's names, to the layers of a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelyard.converter.imatrix import read_importance
from modelyard.converter.protocol import Refused
from modelyard.converter.uqff.layers import Layer
from modelyard.system.reporting_process import report

_BLOCK: Final = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class LayerImportance:
    """The importance of the columns of layers, in the shape [parts, columns], by the layer's prefix."""

    known: Mapping[str, NDArray[np.float32]]

    @classmethod
    def read(cls, path: Path, layers: Sequence[Layer], folder: Path) -> LayerImportance:
        """Read the importance matrix in a file for the layers of the checkpoint in ``folder``.

        Raises:
            Refused: the matrix cannot be read, or was measured on another model.
        """
        measured = read_importance(path)
        names = _gguf_names(layers, folder)
        known = {}
        for layer in layers:
            values = measured.get(f"{names.get(layer.prefix)}.weight")
            if values is None:
                continue
            if values.size != len(layer.parts) * layer.shape[-1]:
                raise Refused(
                    f"{path}: It has {values.size} columns for '{layer.prefix}', which has "
                    f"{len(layer.parts) * layer.shape[-1]}: it was measured on another model."
                )
            known[layer.prefix] = values.reshape(len(layer.parts), -1)
        if not known:
            raise Refused(f"{path}: It has none of the layers of this model: it was measured on another one.")
        unknown = sum(layer.prefix not in known and not layer.is_sensitive for layer in layers)
        if unknown:
            report(
                notice=f"{unknown} of {len(layers)} layers are not in the importance matrix, and quantised without it."
            )
        return cls(known)

    def of(self, layer: Layer) -> Sequence[NDArray[np.float32] | None]:
        """Return the importance of the columns of each part of a layer; None for a part that was not measured."""
        values = self.known.get(layer.prefix)
        return [None] * len(layer.parts) if values is None else list(values)


def _gguf_names(layers: Sequence[Layer], folder: Path) -> dict[str, str]:
    """Return the GGUF names of the layers, by prefix."""
    import gguf

    kind = str(json.loads((folder / "config.json").read_text("utf-8")).get("model_type", ""))
    plain = kind.removesuffix("_text").replace("_", "").replace("-", "")
    architectures = {name.replace("-", ""): number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    blocks = 1 + max((int(match[1]) for layer in layers if (match := _BLOCK.search(layer.prefix))), default=0)
    mapping = gguf.get_tensor_name_map(architectures.get(plain, gguf.MODEL_ARCH.LLAMA), blocks)
    found = {layer.prefix: mapping.get_name(layer.prefix) for layer in layers}
    return {prefix: name for prefix, name in found.items() if name is not None}

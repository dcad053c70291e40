"""Reads control vectors: a direction for each layer, which is added to what the layer has computed.

Source: llama.cpp as of b11739: common_control_vector_load_one in common/common.cpp, which reads the files, and
llama_adapter_cvec in src/llama-adapter.cpp, which drops what the model has no layer for.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelyard.errors import UnusableModel

if TYPE_CHECKING:
    from modelyard.formats.gguf.header import GgufHeader

_DIRECTION: Final = re.compile(r"direction\.(\d{1,6})")

# Models that generate text, in whose graphs llama.cpp adds no control vector.
_WITHOUT: Final = frozenset({"hy_v4", "nemotron_h_moe", "plamo2"})


def check_control_vector(
    path: Path, header: GgufHeader, base: GgufHeader | None, layers: tuple[int, int] | None = None
) -> None:
    """Refuse a control vector that is damaged, or does not fit its model.

    Args:
        path: its file.
        header: the header of that.
        base: header of the first file of its model; None: not known yet.
        layers: the first and the last layer that it is applied to; None: all.

    Raises:
        UnusableModel: it has no directions, or some for other widths or layers than the model has.
    """
    directions = read_directions(path, header)
    if base is None:
        return
    if base.architecture in _WITHOUT:
        raise _refusal(path, f"llama.cpp applies none to models of the architecture '{base.architecture}'")
    width, count = base.metadata.get(f"{base.architecture}.embedding_length"), base.block_count
    for layer, direction in directions.items():
        if len(direction) != width:
            raise _refusal(
                path,
                f"The direction for layer {layer} has {len(direction)} numbers, but its model computes with {width}. "
                "Name the model that the control vector was made of",
            )
        if layer >= count:
            raise _refusal(
                path,
                f"It has a direction for layer {layer}, but its model has {count} layers, of which the first has none. "
                "Name the model that the control vector was made of",
            )
    if layers is not None and not any(layers[0] <= layer <= layers[1] for layer in directions):
        raise _refusal(
            path,
            f"It has directions for the layers {min(directions)} to {max(directions)}, and none for layers = "
            f"{list(layers)}",
        )


def read_directions(path: Path, header: GgufHeader) -> Mapping[int, array[float]]:
    """Return the directions of a control vector by layer.

    Raises:
        UnusableModel: the file cannot be read, or is no control vector that llama.cpp would read.
    """
    found: dict[int, array[float]] = {}
    for tensor in header.tensors:
        match = _DIRECTION.fullmatch(tensor.name)
        if match is None or int(match[1]) == 0:
            raise _refusal(path, f"'{tensor.name}' is no direction for a layer: these are 'direction.1' and so on")
        if tensor.type != "F32" or len(tensor.shape) != 1:
            found_as = f"the type {tensor.type} and the shape {list(tensor.shape)}"
            raise _refusal(path, f"'{tensor.name}' has {found_as}, but must be a row of F32")
        try:
            with path.open("rb") as file:
                file.seek(header.data_start + tensor.offset)
                data = file.read(tensor.size_bytes)
        except OSError as error:
            raise _refusal(path, f"It cannot be read: {error.strerror}") from error
        if len(data) != tensor.size_bytes:
            raise _refusal(path, f"'{tensor.name}' is cut off")
        numbers = array("f", data)
        if not all(map(math.isfinite, numbers)):
            raise _refusal(path, f"'{tensor.name}' has numbers that are infinite or no numbers")
        found[int(match[1])] = numbers
    if not found:
        raise _refusal(path, "It has no directions")
    return found


def _refusal(path: Path, what: str) -> UnusableModel:
    return UnusableModel(f"{path}: {what}.")

"""Converts and writes weights a part at a time, which needs less memory.

llama.cpp's converter describes each tensor as a tree of operations, and computes it when it is written. It then holds
the published weights, the weights as 32-bit floats, and the written weights, all at once: for bfloat16 four times the
tensor, and more for the experts of a layer, which it stacks. This module computes the same in parts, and holds only the
tensor as 32-bit floats: twice its size.

It recognises the trees of the converter of the engine's version; other trees are computed at once, as in llama.cpp.
Source: gguf/lazy.py, LazyBase; conversion/base.py, prepare_tensors and LazyTorchTensor.from_local_tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import gguf
import numpy as np
import torch
from conversion.base import LazyTorchTensor
from gguf.lazy import LazyNumpyTensor
from gguf.utility import LocalTensor

_PART_WEIGHTS: Final = 4 * 2**20


def widen_while_reading(model: Any) -> None:
    """Change ``model`` to read bfloat16 weights directly as 32-bit floats, without a copy in between.

    numpy has no bfloat16, so that the converter widens them anyway.
    """
    for name, load in model.model_tensors.items():
        local = _published(load())
        if local is not None and local.dtype == "BF16":
            model.model_tensors[name] = _widened(local)


def write_by_parts(writer: Any) -> None:
    """Change ``writer`` to compute its tensors in parts when it writes them."""
    for shard in writer.tensors:
        for info in shard.values():
            if isinstance(info.tensor, LazyNumpyTensor):
                info.tensor = _TensorParts(info.tensor, info.dtype)


class _TensorParts:
    """Replaces a tensor that the writer would compute as a whole."""

    def __init__(self, tensor: Any, kind: gguf.GGMLQuantizationType) -> None:
        self._tensor = tensor
        self._kind = kind
        self.nbytes = tensor.nbytes

    def tofile(self, file: IO[bytes]) -> None:
        """Compute and write the tensor."""
        floats = _operand(self._tensor, LazyNumpyTensor)
        if floats is None or floats.shape[:-1] != self._tensor.shape[:-1] or floats.dtype != np.float32:
            self._tensor.tofile(file)
            return
        del self._tensor
        for values in _joined(floats):
            rows = values.reshape(-1, values.shape[-1])
            step = max(1, _PART_WEIGHTS // rows.shape[-1])
            for first in range(0, len(rows), step):
                gguf.quants.quantize(rows[first : first + step], self._kind).tofile(file)


def _joined(floats: Any) -> Iterator[Any]:
    """Yield the values of a tensor: of each expert separately if the tensor is a stack of experts, else all at once."""
    source = _operand(floats, LazyTorchTensor)
    if source is None or source._func is not torch.stack or source._kwargs.get("dim", 0) != 0 or len(source._args) != 1:
        yield LazyNumpyTensor.to_eager(floats)
        return
    (experts,) = source._args
    floats._args, source._args = (), ()
    rest = list(reversed(experts))
    del experts
    while rest:
        yield LazyTorchTensor.to_eager(rest.pop()).numpy()


def _operand(tensor: Any, kind: type[Any]) -> Any:
    """Return the first operand of a tensor, if it is a lazy tensor of that kind that is not computed yet; else None."""
    operand = tensor._args[0] if tensor._data is None and tensor._args else None
    return operand if isinstance(operand, kind) and operand._data is None else None


def _published(tensor: Any) -> LocalTensor | None:
    """Return where the weights of a tensor are in a file; None for a tensor that is computed from others."""
    origin = tensor._args[0] if isinstance(tensor, LazyTorchTensor) and tensor._args else None
    return origin if isinstance(origin, LocalTensor) and tuple(origin.shape) == tuple(tensor.shape) else None


def _widened(local: LocalTensor) -> Callable[[], Any]:
    meta = LazyTorchTensor.meta_with_dtype_and_shape(torch.float32, local.shape)
    return lambda: LazyTorchTensor(meta=meta, args=(local,), func=_read_widened)


def _read_widened(local: LocalTensor) -> torch.Tensor:
    values = np.empty(local.data_range.size // 2, np.uint32)
    with local.data_range.filename.open("rb") as file:
        file.seek(local.data_range.offset)
        for first in range(0, len(values), _PART_WEIGHTS):
            part = np.fromfile(file, "<u2", min(_PART_WEIGHTS, len(values) - first))
            # The upper 16 bits of a 32-bit float are the bfloat16 of the same value.
            np.left_shift(part, 16, out=values[first : first + len(part)], dtype=np.uint32)
    return torch.from_numpy(values.view(np.float32)).reshape(local.shape)

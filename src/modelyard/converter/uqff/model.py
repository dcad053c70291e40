"""llama.cpp's converter, with the layers of a UQFF in place of the weights of a checkpoint.

Source: llama.cpp, ModelBase in conversion/base.py: index_tensors, modify_tensors and prepare_tensors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import gguf
import numpy as np
import torch
from conversion.base import LazyTorchTensor

from modelyard.converter.protocol import Refused
from modelyard.converter.rows import row_sources
from modelyard.converter.settings import text_settings
from modelyard.converter.uqff.blocks import dequantize, floats
from modelyard.converter.uqff.placement import TensorPlacement
from modelyard.formats.safetensors import StoredTensor
from modelyard.formats.uqff.reader import UqffLayer

# Names in UQFF of the stacked weights of all experts of a block, which have the shape of GGUF, and their GGUF tensors.
_EXPERTS: Final = {
    ".experts.gate_proj": gguf.MODEL_TENSOR.FFN_GATE_EXP,
    ".experts.up_proj": gguf.MODEL_TENSOR.FFN_UP_EXP,
    ".experts.down_proj": gguf.MODEL_TENSOR.FFN_DOWN_EXP,
}


# Base of the mixin below. The converter's classes are untyped; with_layers() puts one of them behind the mixin.
_ConverterBase: Any = object


def with_layers(model_class: Any, layers: Sequence[UqffLayer]) -> Any:
    """Return the converter's class ``model_class``, with those layers in place of the checkpoint's tensors."""
    attributes = {"model_arch": model_class.model_arch, "plain_class": model_class, "uqff_layers": tuple(layers)}
    return type(model_class.__name__, (_UqffConverter, model_class), attributes)


class _UqffConverter(_ConverterBase):  # type: ignore[misc]
    """A converter whose tensors come from the layers of a UQFF. A mixin for the converter's class of a model.

    Attributes:
        plain_class: the converter's class without the mixin.
        uqff_layers: the layers.
        placement: the tensors that are made of layers.
    """

    plain_class: Any
    uqff_layers: tuple[UqffLayer, ...]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._layers: dict[str, UqffLayer] = {}
        self._experts_layers: list[UqffLayer] = []
        super().__init__(*arguments, **copy.deepcopy(options))
        self.placement = TensorPlacement()
        self._precision: Any = self.ftype
        # Two converters that get only numbers of rows and columns, because a converter may keep tensors that it gets.
        self._by_rows, self._by_columns = (self.plain_class(*arguments, **copy.deepcopy(options)) for _ in range(2))
        self._add = self.gguf_writer.add_tensor
        self.gguf_writer.add_tensor = self._add_tensor

    def index_tensors(self, remote_hf_model_id: str | None = None) -> Any:
        tensors = super().index_tensors(remote_hf_model_id=remote_hf_model_id)
        for layer in self.uqff_layers:
            kept = self.filter_tensors((f"{layer.prefix}.weight", lambda layer=layer: _lazy(layer)))
            if kept is None or _is_tied_head(layer, self.uqff_layers, self.hparams):
                continue
            name, load = kept
            prefix = name.removesuffix("weight")
            are_experts = _experts_of(layer) is not None
            replaced = prefix[: prefix.rindex(".experts.") + len(".experts.")] if are_experts else name
            for other in [other for other in tensors if other.startswith(replaced)]:
                if other != f"{prefix}bias":
                    del tensors[other]
            if are_experts:
                self._experts_layers.append(layer)
                continue
            tensors[name] = load
            self._layers[name] = layer
            if layer.bias is not None:
                tensors[f"{prefix}bias"] = lambda bias=layer.bias: _lazy_bias(bias)
        return tensors

    def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterable[tuple[str, Any]]:
        converted = list(super().modify_tensors(data_torch, name, bid))
        layer = self._layers.get(name)
        # With F16 as the file's type, the converter stores as F32 only what llama.cpp needs in single precision.
        self.ftype = self._precision if layer is None else gguf.LlamaFileType.MOSTLY_F16
        if layer is not None:
            sources = row_sources(
                layer.shape,
                lambda numbers: self._by_rows.modify_tensors(numbers, name, bid),
                lambda numbers: self._by_columns.modify_tensors(numbers, name, bid),
            )
            for new_name, values in converted:
                self.placement.record(new_name, layer, values.numpy(), sources.get(new_name))
        return converted

    def prepare_tensors(self) -> None:
        super().prepare_tensors()
        for layer in self._experts_layers:
            self._add_experts(layer)

    def _add_tensor(self, name: str, tensor: Any, *arguments: Any, raw_dtype: Any = None, **options: Any) -> None:
        if self.placement.has(name):
            if raw_dtype != gguf.GGMLQuantizationType.F32:
                self.placement.add(name, lambda name, tensor, kind: self._add(name, tensor, raw_dtype=kind))
                return
            self.placement.discard(name)
        self._add(name, tensor, *arguments, raw_dtype=raw_dtype, **options)

    def _add_experts(self, layer: UqffLayer) -> None:
        block = next((int(part) for part in layer.prefix.split(".") if part.isdecimal()), None)
        if block is not None and block >= self.block_count:
            # The layer belongs to a prediction head that the converter leaves out.
            return
        try:
            name = self.format_tensor_name(_experts_of(layer), block, suffix="")
        except (ValueError, AssertionError) as unknown:
            raise Refused(f"llama.cpp knows no experts like {layer.prefix!r} in a model of this kind.") from unknown
        rows = np.arange(math.prod(layer.shape[:-1])).reshape(layer.shape[:-1])
        self.placement.record(f"{name}.weight", layer, _lazy(layer).numpy(), rows)
        self._add_tensor(f"{name}.weight", None)
        if layer.bias is not None:
            self._add(f"{name}.bias", floats(layer.bias))


def _experts_of(layer: UqffLayer) -> Any:
    """Return the GGUF tensor of a layer with the weights of all experts of a block; None for other layers."""
    if len(layer.shape) != 3:
        return None
    return next((tensor for suffix, tensor in _EXPERTS.items() if layer.prefix.endswith(suffix)), None)


def _is_tied_head(layer: UqffLayer, layers: Sequence[UqffLayer], hparams: Any) -> bool:
    """Whether a layer is an output layer tied to the embedding and stored a second time; llama.cpp needs it once."""
    if not layer.prefix.endswith("lm_head") or not text_settings(hparams).get("tie_word_embeddings"):
        return False
    embedding = next((other for other in layers if other.prefix.endswith("embed_tokens")), None)
    if embedding is None or (embedding.stored, embedding.shape) != (layer.stored, layer.shape):
        return False
    return all(part.read() == embedding.parts[suffix].read() for suffix, part in layer.parts.items())


def _lazy(layer: UqffLayer) -> Any:
    meta = LazyTorchTensor.meta_with_dtype_and_shape(torch.float32, layer.shape)
    return LazyTorchTensor(meta=meta, args=(layer,), func=lambda layer: torch.from_numpy(dequantize(layer)))


def _lazy_bias(bias: StoredTensor) -> Any:
    meta = LazyTorchTensor.meta_with_dtype_and_shape(torch.float32, bias.shape)
    return LazyTorchTensor(meta=meta, args=(bias,), func=lambda bias: torch.from_numpy(floats(bias)))

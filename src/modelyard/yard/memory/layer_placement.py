"""On which device each tensor of a model is, for a placement. Pure.

Source: llama.cpp, src/llama-model.cpp, load_tensors; src/llama-model-loader.cpp, create_tensor, as of b11739.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Final

import numpy as np

from modelyard.engine.placing import overrides_of
from modelyard.formats.gguf.header import GgufHeader
from modelyard.protocol.placement import HOST_NAME, Placement
from modelyard.yard.memory.layer_shapes import layer_count
from modelyard.yard.memory.step_buffer import INPUT_LAYER, StepTensor

_LAYER: Final = re.compile(r"blk\.(\d+)\.")

# Tensors that stay on the host because they are only looked up. Source: src/llama-arch.cpp, LLM_TENSOR_LAYER_INPUT.
_INPUTS: Final = re.compile(r"(token_embd|position_embd|token_types|per_layer_token_embd|token_embd_norm)\b")

# Beginnings of names of devices that cannot compute beside others. Source: ggml/src/*, ggml_backend_dev_caps: "async",
# "events".
_WITHOUT_PIPELINES: Final = ("GPUOpenCL", "CANN", "WebGPU", "ET")


class LayerPlacement:
    """The devices of one model.

    Args:
        header: of the model.
        placement: with names of devices that exist, and with parts for several.
    """

    def __init__(self, header: GgufHeader, placement: Placement) -> None:
        self._placement = placement
        self._overrides = [(re.compile(pattern), place) for pattern, place in overrides_of(placement)]
        # Layers of prediction heads count where layers are divided, although they are not loaded.
        self._layers = header.block_count
        self._computed = layer_count(header)
        self._known: dict[int, str] = {}

    @property
    def has_patterns(self) -> bool:
        """Whether tensors of one layer may be on several devices by patterns of names, other than experts."""
        return bool(self._placement.tensor_overrides)

    @cached_property
    def devices(self) -> Sequence[str]:
        """The devices that layers may be on."""
        names = self._placement.devices or ()
        return (names[self._placement.main_device],) if names and self._placement.split_mode == "none" else names

    @cached_property
    def _ends(self) -> Sequence[float]:
        parts = self._placement.split if any(self._placement.split) else (1.0,) * len(self.devices)
        sums = list(accumulate(np.float32(part) for part in parts[: len(self.devices)]))
        return [float(np.float32(each) / np.float32(sums[-1])) for each in sums]

    @cached_property
    def gpu_layers(self) -> int:
        """Number of layers on devices, the output included."""
        if not self.devices:
            return 0
        wanted = self._placement.gpu_layers
        return self._layers + 1 if wanted is None else min(wanted, self._layers + 1)

    def layer(self, number: int) -> str:
        """Return the device of a layer; ``layer_count`` is the number of the output."""
        if (known := self._known.get(number)) is None:
            known = self._known[number] = self._device_of(number)
        return known

    def _device_of(self, number: int) -> str:
        number = self._layers if number >= self._computed else number
        first = self._layers + 1 - self.gpu_layers
        if number < first or not self.devices:
            return HOST_NAME
        at = float(np.float32(number - first) / np.float32(self.gpu_layers))
        return self.devices[min(bisect_right(self._ends, at), len(self.devices) - 1)]

    def tensor(self, name: str, *, is_output: bool = False) -> str:
        """Return the device of a tensor of the file.

        Args:
            name: of the tensor.
            is_output: whether it is the copy of the embeddings that serves as the output matrix.
        """
        for pattern, place in self._overrides if self.devices else ():
            if pattern.search(name):
                return place
        match = _LAYER.match(name)
        if match is None:
            return HOST_NAME if _INPUTS.match(name) and not is_output else self.layer(self._computed)
        return self.layer(int(match[1]))

    def cache(self, number: int) -> str:
        """Return the device of a layer's KV cache or state."""
        return HOST_NAME if self._placement.kv_on_host else self.layer(number)

    def experts(self, number: int) -> str:
        """Return the device of a layer's experts; of a layer without experts, where they would be."""
        return self.tensor(f"blk.{number}.ffn_up_exps.weight")

    def operation(self, tensor: StepTensor) -> str:
        """Return the device that computes a tensor of a step."""
        if tensor.layer == INPUT_LAYER:
            return HOST_NAME
        if tensor.part == "attention":
            return self.cache(tensor.layer)
        if tensor.part == "experts":
            return self.experts(tensor.layer)
        return self.layer(tensor.layer)

    @property
    def is_pipeline(self) -> bool:
        """Whether several devices compute different steps at the same time, if they can.

        Source: src/llama-context.cpp, "pipeline parallelism".
        """
        placement = self._placement
        return (
            len(self.devices) > 1
            and (placement.gpu_layers is None or placement.gpu_layers > self._layers)
            and placement.split_mode == "layer"
            and not placement.kv_on_host
            and not placement.tensor_overrides
            and not placement.cpu_moe_layers
            and not any(device.startswith(_WITHOUT_PIPELINES) for device in self.devices)
        )

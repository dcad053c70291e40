"""Writes the activation of a vision tower where llama.cpp's converter leaves it out.

llama.cpp computes x * sigmoid(1.702 x) if a projector's metadata names no activation. For towers configured with GELU,
such as Gemma 4's, the embeddings would be one percent off.
Source: llama.cpp, tools/mtmd/clip.cpp, KEY_USE_GELU; transformers, activations.py, for the names.
"""

from __future__ import annotations

from typing import Any, Final

_GELU: Final = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python"})
_SILU: Final = frozenset({"silu", "swish"})
_KEYS: Final = ("clip.use_gelu", "clip.use_silu")


def with_activation(model_class: Any) -> Any:
    """Return the converter's projector class ``model_class``, extended to write the activation of the configuration."""

    class Activated(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        def set_gguf_parameters(self) -> None:
            super().set_gguf_parameters()
            written = {key for shard in self.gguf_writer.kv_data for key in shard}
            vision = self.hparams_vision or {}
            activation = vision.get("hidden_act") or vision.get("hidden_activation")
            if not written.isdisjoint(_KEYS):
                return
            if activation in _GELU:
                self.gguf_writer.add_vision_use_gelu(True)
            elif activation in _SILU:
                self.gguf_writer.add_vision_use_silu(True)

    return Activated

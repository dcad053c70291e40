"""Makes the projector of Gemma 3n convertible: its vision tower, in the shapes and types that llama.cpp expects.

llama.cpp's converter stops at the norms of the audio tower's convolutions, for which it has no name; llama.cpp ignores
that tower, which is left out. The converter writes the scale of a layer as one row, which llama.cpp multiplies by
images of [width, height, channels]: it has to be [1, 1, channels]. On processors, llama.cpp has no convolutions with
weights of bfloat16, and none by channel with weights of 32 bits: they end the process.
Source: llama.cpp, conversion/gemma.py, Gemma3nVisionAudioModel; gguf/tensor_mapping.py, A_ENC_CONV1D_NORM;
tools/mtmd/clip.cpp, clip_init; tools/mtmd/models/mobilenetv5.cpp; ggml_conv_2d_direct, ggml_conv_2d_dw.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

_AUDIO: Final = ("audio_tower.", "embed_audio.")
_LAYER_SCALE: Final = ".layer_scale.gamma"
_TOWER: Final = "vision_tower."
_BY_CHANNEL: Final = ("dw_start.conv.weight", "dw_mid.conv.weight", "down_conv.weight")
_CONVOLUTION_AXES: Final = 4


def with_gemma_3n_tower(model_class: Any) -> Any:
    """Return the converter's projector class ``model_class``, changed to write the vision tower alone."""

    class VisionTower(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        def __init__(self, *args: Any, **named: Any) -> None:
            # The class requires the configurations of both towers here, and of two towers alone not a count of layers.
            super().__init__(*args, **named)
            self.has_audio_encoder = False

        @classmethod
        def filter_tensors(cls, item: Any) -> Any:
            name, _ = item
            return None if any(part in name for part in _AUDIO) else super().filter_tensors(item)

        def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterable[tuple[str, Any]]:
            if name.endswith(_LAYER_SCALE):
                data_torch = data_torch.reshape(1, -1, 1, 1)
            yield from super().modify_tensors(data_torch, name, bid)

        def tensor_force_quant(self, name: str, new_name: str, bid: int | None, n_dims: int) -> Any:
            import gguf

            known = super().tensor_force_quant(name, new_name, bid, n_dims)
            if known or not needs_f16(name, n_dims, is_f32=self.ftype == gguf.LlamaFileType.ALL_F32):
                return known
            return gguf.GGMLQuantizationType.F16

    return VisionTower


def needs_f16(name: str, n_dims: int, *, is_f32: bool) -> bool:
    """Tell whether a tensor has to have 16-bit floats; ``is_f32`` tells whether the others have 32 bits."""
    is_convolution = _TOWER in name and name.endswith(".weight") and n_dims == _CONVOLUTION_AXES
    return is_convolution and (not is_f32 or name.endswith(_BY_CHANNEL))

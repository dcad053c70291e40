"""Checks of projectors: refuses those on which mtmd would abort the process.

Faults that mtmd reports as errors (a missing key or tensor, an unknown type of projector, another width than the
model's) are left to it. It does not compare the shapes of most tensors before it computes, so those that all projectors
have in common are compared here.

Source: llama.cpp as of b11739, load_hparams and load_tensors in tools/mtmd/clip.cpp, and clip_graph::build_vit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.parse import MAX_LAYERS, Fail, Pairs
from modelyard.formats.gguf.values import GgufArray

if TYPE_CHECKING:
    from modelyard.formats.gguf.header import GgufHeader

# gguf_get_val_* aborts the process on another type.
_TYPES: Final = {
    "clip.has_vision_encoder": gguf.BOOL,
    "clip.has_audio_encoder": gguf.BOOL,
    "clip.use_gelu": gguf.BOOL,
    "clip.use_silu": gguf.BOOL,
    "clip.projector_type": gguf.STRING,
    "clip.vision.projector_type": gguf.STRING,
    "clip.audio.projector_type": gguf.STRING,
    "clip.vision.attention.layer_norm_epsilon": gguf.FLOAT32,
    "clip.vision.attention.head_count": gguf.UINT32,
    "clip.vision.block_count": gguf.UINT32,
    "clip.vision.embedding_length": gguf.UINT32,
    "clip.vision.feed_forward_length": gguf.UINT32,
    "clip.vision.image_size": gguf.UINT32,
    "clip.vision.patch_size": gguf.UINT32,
    "clip.vision.projection_dim": gguf.UINT32,
    "clip.vision.projector.scale_factor": gguf.UINT32,
    "clip.vision.spatial_merge_size": gguf.UINT32,
    "clip.audio.attention.layer_norm_epsilon": gguf.FLOAT32,
    "clip.audio.attention.head_count": gguf.UINT32,
    "clip.audio.block_count": gguf.UINT32,
    "clip.audio.embedding_length": gguf.UINT32,
    "clip.audio.feed_forward_length": gguf.UINT32,
    "clip.audio.num_mel_bins": gguf.UINT32,
    "clip.audio.projection_dim": gguf.UINT32,
    "clip.audio.projector.stack_factor": gguf.UINT32,
}

# Divisors in mtmd.
_POSITIVE: Final = ("attention.head_count", "image_size", "patch_size", "projector.scale_factor", "spatial_merge_size")

# Larger than the images of any projector. mtmd multiplies sides as 32-bit integers.
_MAX_SIDE: Final = 16_384

# More bands than any encoder has. The filters take memory for each band and half the window of a Fourier transform.
_MAX_MEL_BINS: Final = 4096

# Frames of the spectrum of a full window of sound in Whisper's encoders, and positions, one for every second frame.
_FRAMES: Final = 3000
_POSITIONS: Final = _FRAMES // 2
# Projectors that average neighbouring positions, and those that stack them, in tools/mtmd/clip.cpp.
_WITH_AVERAGE: Final = frozenset({"qwen2a", "qwen2.5o", "voxtral", "musicflamingo"})
_WITH_STACK: Final = frozenset({"ultravox", "voxtral", "meralion"})

_ATTENTION_INPUT: Final = re.compile(r"v\.blk\.\d+\.(?:attn_[qkv]|ffn_up|ffn_gate)\.weight")
_NOT_WEIGHTS: Final = frozenset({"Q8_1", "Q8_K", "F64", "I8", "I16", "I32", "I64"})


def check_projector(header: GgufHeader, pairs: Pairs, fail: Fail) -> None:
    """Refuse a projector on which mtmd would abort the process.

    Raises:
        UnusableModel: through ``fail``.
    """
    for key, wanted in _TYPES.items():
        found = pairs.types.get(key, wanted)
        if found != wanted:
            fail(f"'{key}' has the type {gguf.value_type_name(found)}, but must be {gguf.value_type_name(wanted)}")
    if pairs.values.get("clip.has_vision_encoder"):
        _check_vision(pairs, fail)
    if pairs.values.get("clip.has_audio_encoder"):
        _check_audio(pairs, fail)
    _check_tensors(header, pairs, fail)


def _check_vision(pairs: Pairs, fail: Fail) -> None:
    for name in ("image_mean", "image_std"):
        value = pairs.values.get(f"clip.vision.{name}")
        if not isinstance(value, GgufArray) or value.type != "f32" or value.length < 3:
            fail(f"'clip.vision.{name}' must be an array of three f32")
    for name in _POSITIVE:
        if pairs.values.get(f"clip.vision.{name}") == 0:
            fail(f"'clip.vision.{name}' is 0")

    def number(name: str) -> int:
        value = pairs.values.get(f"clip.vision.{name}", 0)
        return value if isinstance(value, int) else 0

    if number("block_count") > MAX_LAYERS:
        fail(f"'clip.vision.block_count' is {number('block_count')}, but must be at most {MAX_LAYERS}")
    width, heads, side, patch = map(number, ("embedding_length", "attention.head_count", "image_size", "patch_size"))
    if heads and width % heads:
        fail(f"'clip.vision.embedding_length' is {width}, which does not divide among {heads} attention heads")
    if side > _MAX_SIDE or patch > max(side, 1):
        fail(f"Images of {side} pixels a side cannot be cut into patches of {patch} ('clip.vision.image_size')")


def _check_audio(pairs: Pairs, fail: Fail) -> None:
    def number(name: str, default: int = 0) -> int:
        value = pairs.values.get(f"clip.audio.{name}", default)
        return value if isinstance(value, int) else default

    width, heads = number("embedding_length"), number("attention.head_count", 1)
    if heads == 0 or width % heads:
        fail(f"'clip.audio.embedding_length' is {width}, which does not divide among {heads} attention heads")
    if number("block_count") > MAX_LAYERS:
        fail(f"'clip.audio.block_count' is {number('block_count')}, but must be at most {MAX_LAYERS}")
    if not 0 < number("num_mel_bins", 128) <= _MAX_MEL_BINS:
        fail(f"'clip.audio.num_mel_bins' is {number('num_mel_bins')}, but must be from 1 to {_MAX_MEL_BINS}")
    kind = str(pairs.values.get("clip.audio.projector_type", pairs.values.get("clip.projector_type", "")))
    stack = number("projector.stack_factor", 1) if kind in _WITH_STACK else 1
    if stack == 0:
        fail("'clip.audio.projector.stack_factor' is 0")
    expected, computed = _tokens_of_window(kind, stack)
    if expected != computed:
        fail(
            f"llama.cpp ends the process on sound of this projector ('{kind}'): it counts on {expected} tokens for a "
            f"window of 30 s, and computes {computed}",
            "Serve the model without it (kind = 'text'), or choose one whose sound works: docs/audio.md lists them.",
        )


def _tokens_of_window(kind: str, stack: int) -> tuple[int, int]:
    """Return the tokens of a full window that llama.cpp expects, and those that it computes.

    Source: tools/mtmd/clip.cpp. clip_n_output_tokens stacks the frames, then halves them, rounding down; build_vit and
    build_stack average the positions first, and stack them with padding.
    """
    average = 2 if kind in _WITH_AVERAGE else 1
    return -(-_FRAMES // stack) // 2 // average, -(-(_POSITIONS // average) // stack)


def _check_tensors(header: GgufHeader, pairs: Pairs, fail: Fail) -> None:
    width, patch = pairs.values.get("clip.vision.embedding_length"), pairs.values.get("clip.vision.patch_size")
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    for tensor in header.tensors:
        if tensor.type in _NOT_WEIGHTS:
            fail(f"The tensor '{tensor.name}' has the type {tensor.type}, which weights cannot have")
        if _ATTENTION_INPUT.fullmatch(tensor.name) and width is not None and tensor.shape[0] != width:
            fail(f"The tensor '{tensor.name}' has rows of {tensor.shape[0]}, but the encoder is {width} wide")
        if tensor.name == "v.patch_embd.weight" and len(tensor.shape) == 4 and tensor.shape[:3] != (patch, patch, 3):
            fail(f"The tensor '{tensor.name}' has the shape {tensor.shape}, but patches have {patch} x {patch} pixels")
        weight = shapes.get(f"{tensor.name.removesuffix('.bias')}.weight")
        is_bias = tensor.name.endswith(".bias") and len(tensor.shape) == 1
        if is_bias and weight is not None and tensor.shape[0] not in (weight[-1], weight[0]):
            fail(f"The tensor '{tensor.name}' has {tensor.shape[0]} values, which is not what its weights yield")

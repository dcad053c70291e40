"""A tiny model that hears, with random weights, and one that sees too: GGUF files, made without a converter.

The language model is that of ``tiny_vision``, with SmolLM2's tokenizer and chat template; its ears are Qwen2-Audio's in
miniature: Whisper's encoder, of which 30 s are 750 tokens. With ``sees`` it has the eyes of Gemma 3 as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import tiny_vision
from gguf_file import GgufFile

BANDS: Final = 16
EAR_WIDTH, EAR_LAYERS, EAR_HEADS, EAR_FEED_FORWARD = 32, 2, 2, 64
WINDOW_TOKENS: Final = 750


def make(weights: Path, folder: Path, *, sees: bool = False) -> Path:
    """The folder with the model, made from the tokenizer of ``weights``."""
    tiny_vision.make(weights, folder, "gemma3")
    import gguf

    (mmproj,) = folder.glob("mmproj-*.gguf")
    eyes = GgufFile(mmproj) if sees else None
    made = folder / "made.partial"
    writer = gguf.GGUFWriter(made, "clip")
    writer.add_type("mmproj")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    if eyes is not None:
        _copy(gguf, eyes, writer)
    _add_ears(writer, is_only=not sees)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made.replace(mmproj)
    return folder


def _copy(gguf: Any, eyes: Any, writer: Any) -> None:
    for name, field in eyes.fields.items():
        if name.startswith("clip.") and name != "clip.projector_type":
            subtype = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], subtype)
    writer.add_string("clip.vision.projector_type", "gemma3")
    for tensor in eyes.tensors:
        writer.add_tensor(tensor.name, tensor.data)


def _add_ears(writer: Any, *, is_only: bool) -> None:
    """Source of names and shapes: llama.cpp, load_tensors in tools/mtmd/clip.cpp; whisper-enc.cpp in models."""
    writer.add_bool("clip.has_audio_encoder", True)
    writer.add_string("clip.projector_type" if is_only else "clip.audio.projector_type", "qwen2a")
    writer.add_uint32("clip.audio.num_mel_bins", BANDS)
    writer.add_uint32("clip.audio.embedding_length", EAR_WIDTH)
    writer.add_uint32("clip.audio.feed_forward_length", EAR_FEED_FORWARD)
    writer.add_uint32("clip.audio.block_count", EAR_LAYERS)
    writer.add_uint32("clip.audio.attention.head_count", EAR_HEADS)
    writer.add_uint32("clip.audio.projection_dim", tiny_vision.WIDTH)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    random = np.random.default_rng(tiny_vision.SEED)

    def put(name: str, *shape: int, kind: type = np.float32) -> None:
        # Larger than trained weights, so that two clips differ by more than rounding.
        is_norm = name.endswith(("ln.weight", "ln1.weight", "ln2.weight"))
        writer.add_tensor(name, (random.normal(0.0, 0.4, shape) + is_norm).astype(kind))

    for number, bands in ((1, BANDS), (2, EAR_WIDTH)):
        put(f"a.conv1d.{number}.weight", EAR_WIDTH, bands, 3, kind=np.float16)
        put(f"a.conv1d.{number}.bias", EAR_WIDTH, 1)
    put("a.position_embd.weight", 1500, EAR_WIDTH)
    for norm in ("a.post_ln", *(f"a.blk.{layer}.{part}" for layer in range(EAR_LAYERS) for part in ("ln1", "ln2"))):
        put(f"{norm}.weight", EAR_WIDTH)
        put(f"{norm}.bias", EAR_WIDTH)
    for layer in range(EAR_LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            put(f"a.blk.{layer}.{part}.weight", EAR_WIDTH, EAR_WIDTH)
            if part != "attn_k":
                put(f"a.blk.{layer}.{part}.bias", EAR_WIDTH)
        put(f"a.blk.{layer}.ffn_up.weight", EAR_FEED_FORWARD, EAR_WIDTH)
        put(f"a.blk.{layer}.ffn_up.bias", EAR_FEED_FORWARD)
        put(f"a.blk.{layer}.ffn_down.weight", EAR_WIDTH, EAR_FEED_FORWARD)
        put(f"a.blk.{layer}.ffn_down.bias", EAR_WIDTH)
    put("mm.a.fc.weight", tiny_vision.WIDTH, EAR_WIDTH)
    put("mm.a.fc.bias", tiny_vision.WIDTH)

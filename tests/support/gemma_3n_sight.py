"""Writes a small Gemma 3n that sees: random weights, in the layout of the published checkpoints.

    python gemma_3n_sight.py FOLDER

transformers makes its vision tower with timm, which is not installed here: the tower is written tensor by tensor, with
fewer blocks than MobileNetV5 has, one of each kind.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

EDGE: Final = 256

_WIDTH: Final = 128
_STEM: Final = 16
# Channels of the four stages; the last two are merged.
_CHANNELS: Final = (16, 24, 32, 48)
_HEADS: Final = 2
_LAYER_SCALE: Final = 0.3
_VISION_TOKENS: Final = 4


def write_checkpoint(folder: Path) -> None:
    """Write the files of the checkpoint into ``folder``."""
    import torch
    from safetensors.torch import save_file
    from transformers import Gemma3nForCausalLM

    from architectures.making import filled
    from architectures.table import ARCHITECTURES
    from architectures.tokenizers import make_tokenizer
    from architectures.weights import randomise

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer("sentencepiece-plain", folder)
    rows = tokenizer.size + 2 * _VISION_TOKENS
    settings = filled(ARCHITECTURES["gemma3n"].settings, rows) | {"vocab_size": rows, "pad_token_id": 0}
    text = Gemma3nForCausalLM(Gemma3nForCausalLM.config_class(**settings)).float().eval()
    randomise(text, tokenizer.words)
    weights = {
        name.replace("model.", "model.language_model.", 1): weight
        for name, weight in text.state_dict().items()
        if not name.startswith("lm_head.")
    }
    save_file(weights | _tower(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Gemma3nForConditionalGeneration"],
        "model_type": "gemma3n",
        "text_config": text.config.to_dict(),
        "vision_config": {"model_type": "gemma3n_vision", "hidden_size": _WIDTH, "vocab_offset": tokenizer.size},
        "audio_config": {
            "model_type": "gemma3n_audio",
            "hidden_size": 64,
            "conf_num_hidden_layers": 1,
            "conf_num_attention_heads": 2,
            "input_feat_size": 128,
        },
        "image_token_id": tokenizer.size,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    processor = {"size": {"height": EDGE, "width": EDGE}, "image_seq_length": 256}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")


def _tower() -> dict[str, Any]:
    """Return the tensors of the towers and of the projections, by their published names."""
    import torch

    random = torch.Generator().manual_seed(7)
    tensors: dict[str, Any] = {}

    def convolution(name: str, out: int, into: int, edge: int) -> None:
        values = torch.randn((out, into, edge, edge), generator=random)
        tensors[f"{name}.weight"] = values / (into * edge * edge) ** 0.5

    def norm(name: str, width: int) -> None:
        tensors[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=random)

    def scale(block: str, width: int) -> None:
        tensors[f"{block}.layer_scale.gamma"] = torch.full((width,), _LAYER_SCALE)

    def inverted(block: str, into: int, out: int, *, is_first: bool) -> None:
        wide = 2 * into
        convolution(f"{block}.dw_start.conv", into, 1, 3)
        norm(f"{block}.dw_start.bn", into)
        convolution(f"{block}.pw_exp.conv", wide, into, 1)
        norm(f"{block}.pw_exp.bn", wide)
        if is_first:
            convolution(f"{block}.dw_mid.conv", wide, 1, 5)
            norm(f"{block}.dw_mid.bn", wide)
        convolution(f"{block}.pw_proj.conv", out, wide, 1)
        norm(f"{block}.pw_proj.bn", out)
        scale(block, out)

    def attention(block: str, width: int) -> None:
        norm(f"{block}.norm", width)
        convolution(f"{block}.attn.query.proj", _HEADS * width, width, 1)
        for part in ("key", "value"):
            convolution(f"{block}.attn.{part}.down_conv", width, 1, 3)
            norm(f"{block}.attn.{part}.norm", width)
            convolution(f"{block}.attn.{part}.proj", width, width, 1)
        convolution(f"{block}.attn.output.proj", width, _HEADS * width, 1)
        scale(block, width)

    tower = "model.vision_tower.timm_model."
    convolution(f"{tower}conv_stem.conv", _STEM, 3, 3)
    tensors[f"{tower}conv_stem.conv.bias"] = 0.1 * torch.randn(_STEM, generator=random)
    norm(f"{tower}conv_stem.bn", _STEM)
    convolution(f"{tower}blocks.0.0.conv_exp", 2 * _STEM, _STEM, 3)
    norm(f"{tower}blocks.0.0.bn1", 2 * _STEM)
    convolution(f"{tower}blocks.0.0.conv_pwl", _CHANNELS[0], 2 * _STEM, 1)
    norm(f"{tower}blocks.0.0.bn2", _CHANNELS[0])
    for stage in (1, 2, 3):
        inverted(f"{tower}blocks.{stage}.0", _CHANNELS[stage - 1], _CHANNELS[stage], is_first=True)
        inverted(f"{tower}blocks.{stage}.1", _CHANNELS[stage], _CHANNELS[stage], is_first=False)
    attention(f"{tower}blocks.2.2", _CHANNELS[2])
    merged = _CHANNELS[2] + _CHANNELS[3]
    convolution(f"{tower}msfa.ffn.pw_exp.conv", 2 * merged, merged, 1)
    norm(f"{tower}msfa.ffn.pw_exp.bn", 2 * merged)
    convolution(f"{tower}msfa.ffn.pw_proj.conv", _WIDTH, 2 * merged, 1)
    norm(f"{tower}msfa.ffn.pw_proj.bn", _WIDTH)
    norm(f"{tower}msfa.norm", _WIDTH)
    embedder = "model.embed_vision."
    tensors[f"{embedder}embedding.weight"] = torch.randn((_VISION_TOKENS, _WIDTH), generator=random)
    tensors[f"{embedder}embedding_projection.weight"] = torch.randn((_WIDTH, _WIDTH), generator=random) / _WIDTH**0.5
    norm(f"{embedder}hard_embedding_norm", _WIDTH)
    norm(f"{embedder}soft_embedding_norm", _WIDTH)
    # The tensor of the audio tower for which llama.cpp's converter has no name.
    norm("model.audio_tower.subsample_conv_projection.conv_0.norm", 8)
    return tensors


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]))

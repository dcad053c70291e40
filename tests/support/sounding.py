"""Tiny checkpoints of models that hear, with random weights: each family's real modules and shapes, in miniature.

Made with transformers, in the layout of the hub, to be converted and served. What such a model writes means nothing,
but it depends on every token and every sample, and transformers computes it too.
"""

from __future__ import annotations

import json
import re
import shutil
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
        encode: text as token ids, nothing added but what begins every text.
        before, behind: special tokens that stand around sound.
        turn: what the template puts before and behind the content of a message.
        logits: (ids before the sound, samples, ids behind it) -> [vocabulary], of the token that comes next.
        differs: why llama.cpp computes something else; "" where it should not.
    """

    encode: Callable[[str], list[int]]
    before: str
    behind: str
    logits: Callable[[list[int], Samples, list[int]], Any]
    differs: str = ""
    turn: tuple[str, str] = ("", "")

    def log_probabilities(self, before: str, samples: Samples, behind: str) -> npt.NDArray[np.float64]:
        """What is computed for the token behind a prompt: text, sound, text."""
        import torch

        with torch.no_grad():
            opened, closed = self.turn
            ids = self.encode(opened + before + self.before), self.encode(self.behind + behind + closed)
            logits = self.logits(ids[0], samples, ids[1])
            return np.asarray(torch.log_softmax(logits.double(), -1))


def spliced(model: Any, embed: Callable[[Samples], Any]) -> Callable[[list[int], Samples, list[int]], Any]:
    """Logits of a language model that is fed what ``embed`` makes of sound, [tokens, width], between two texts."""
    import torch

    def logits(before: list[int], samples: Samples, behind: list[int]) -> Any:
        texts = [model.get_input_embeddings()(torch.tensor([ids], dtype=torch.long))[0] for ids in (before, behind)]
        return model(inputs_embeds=torch.cat([texts[0], embed(samples), texts[1]])[None]).logits[0, -1]

    return logits


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
                # Queries and keys larger, so that attention picks some tokens and is no mean over hundreds.
                gain = 2.5 if re.search(r"[qk]_proj|lm_head", name) else 1.0
                weight.copy_(gain * noise / weight[0].numel() ** 0.5)
            if "conv" in name and name.endswith("weight"):
                # The converter keeps them in half precision, whatever it is asked for.
                weight.copy_(weight.half().float())


def whisper_features(samples: Samples, bins: int) -> Any:
    """The spectra of windows of 30 s, [windows, bins, 3000], as WhisperFeatureExtractor makes them."""
    import torch
    from transformers import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor(feature_size=bins)
    windows = [samples[start : start + WINDOW] for start in range(0, len(samples), WINDOW)]
    features = extract(windows, sampling_rate=RATE, return_tensors="pt")["input_features"]
    return torch.as_tensor(features)


def _save_as_published(model: Any, folder: Path, *renamed: tuple[str, str]) -> None:
    """Write a checkpoint as Qwen publishes it, under a thinker: the names of transformers do not convert."""
    from safetensors.torch import save_file

    tensors = {}
    for name, value in model.state_dict().items():
        for pattern, new in renamed:
            name, count = re.subn(pattern, new, name)
            if count:
                break
        tensors[name] = value.contiguous().clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    kept = {
        "architectures": config.pop("architectures", None) or [type(model).__name__],
        "model_type": config["model_type"],
    }
    (folder / "config.json").write_text(json.dumps({**kept, "thinker_config": config}))


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

    return Hearing(encode, "<|audio_bos|>", "<|audio_eos|>", spliced(model, embed))


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

    return Hearing(encode, "[BEGIN_AUDIO]", "", spliced(model, embed))


def _audio_flamingo(folder: Path, like: Path) -> Hearing:
    import torch
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

    encode, size = tokenizer(folder, like)
    audio = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = AudioFlamingo3Config(
        audio_config={"num_mel_bins": 128, "max_source_positions": 1500, **audio},
        text_config={"model_type": "qwen2", "vocab_size": size, **TEXT},
        audio_token_id=size - 1,
    )
    model = AudioFlamingo3ForConditionalGeneration(config).float().eval()
    randomise(model)
    model.save_pretrained(folder)

    def embed(samples: Samples) -> Any:
        features = whisper_features(samples, 128)
        mask = torch.ones(len(features), features.shape[-1], dtype=torch.long)
        return model.get_audio_features(features, mask).pooler_output

    return Hearing(encode, "<sound>", "", spliced(model, embed))


def _qwen3_asr(folder: Path, like: Path) -> Hearing:
    import torch
    from transformers import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration, WhisperFeatureExtractor

    encode, size = tokenizer(folder, like)
    # Published ones have the sections of models that see; of sound all of them have one position.
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]}
    config = Qwen3ASRConfig(
        # The converter finds the third convolution where there are four layers or more.
        audio_config={
            **ENCODER,
            "encoder_layers": 4,
            "num_mel_bins": 128,
            "output_dim": 64,
            "downsample_hidden_size": 16,
        },
        text_config={"model_type": "qwen3", "vocab_size": size, **TEXT, "head_dim": 16, "rope_parameters": rope},
        audio_token_id=size - 1,
    )
    model = Qwen3ASRForConditionalGeneration(config).float().eval()
    randomise(model)
    _save_as_published(
        model,
        folder,
        (r"^model\.multi_modal_projector\.linear_(\d)", r"thinker.audio_tower.proj\1"),
        (r"^model\.audio_tower", "thinker.audio_tower"),
        (r"^model\.language_model", "thinker.model"),
        (r"^lm_head", "thinker.lm_head"),
    )
    extract = WhisperFeatureExtractor(feature_size=128)

    def embed(samples: Samples) -> Any:
        heard = extract(samples, sampling_rate=RATE, return_tensors="pt", padding=False, truncation=False)
        spectrum = torch.as_tensor(heard["input_features"])
        # Whole seconds, as the processor of this model has them, and of silence too all tokens, as llama.cpp has it.
        spectrum = torch.nn.functional.pad(spectrum, (0, -spectrum.shape[-1] % 100))
        return model.get_audio_features(spectrum, torch.ones(spectrum[:, 0].shape, dtype=torch.long)).pooler_output

    # The converter knows one template for this family, whatever the checkpoint has.
    turn = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    differs = "the last second is filled up with silence that is heard; compared as llama.cpp has it"
    return Hearing(encode, "<|audio_start|>", "<|audio_end|>", spliced(model, embed), differs, turn)


def _qwen25_omni(folder: Path, like: Path) -> Hearing:
    import torch
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    encode, size = tokenizer(folder, like)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision = {"depth": 1, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": WIDTH}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={"num_mel_bins": 128, "output_dim": WIDTH, "max_source_positions": 1500, **ENCODER},
        vision_config={**vision, "fullatt_block_indexes": [0]},
        text_config={"vocab_size": size, **TEXT, "rope_parameters": rope},
        audio_token_id=size - 1,
    )
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).float().eval()
    randomise(model)
    _save_as_published(
        model,
        folder,
        (r"^model\.(audio_tower|visual)", r"thinker.\1"),
        (r"^model\.language_model", "thinker.model"),
        (r"^(model|lm_head|audio_tower|visual)", r"thinker.\1"),
    )
    described = json.loads((folder / "config.json").read_text())
    described |= {"architectures": ["Qwen2_5OmniModel"], "model_type": "qwen2_5_omni"}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "min_pixels": 3136, "max_pixels": 12845056})
    )

    # As llama.cpp has it: all frames of a window of 30 s attend to each other, and not those of two seconds.
    model.model.audio_tower.n_window = 1500

    def embed(samples: Samples) -> Any:
        # Of every window all of its frames, as llama.cpp has it; transformers drops those of silence at its end.
        windows = whisper_features(samples, 128)
        heard = [
            model.get_audio_features(window[None], torch.ones(1, window.shape[-1], dtype=torch.long)).last_hidden_state
            for window in windows
        ]
        return torch.cat(heard)

    return Hearing(
        encode,
        "<|audio_bos|>",
        "<|audio_eos|>",
        spliced(model, embed),
        "frames of 30 s attend to each other, in transformers those of two seconds; compared as llama.cpp has it",
    )


def _gemma4(folder: Path, like: Path) -> Hearing:
    import torch
    from transformers import Gemma4AudioFeatureExtractor, Gemma4Config, Gemma4ForConditionalGeneration

    encode, size, audio_id = gemma_tokenizer(folder)
    layers = ["sliding_attention", "full_attention"] * 3
    text = {
        **TEXT,
        "vocab_size": size,
        "vocab_size_per_layer_input": size,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "num_hidden_layers": 6,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 16,
        "sliding_window": 512,
        "layer_types": layers,
        "tie_word_embeddings": True,
        # llama.cpp takes it for granted: every published model has it.
        "final_logit_softcapping": 30.0,
    }
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"num_key_value_heads": 2, "head_dim": 16}
    ears = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "output_proj_dims": 48}
    config = Gemma4Config(text_config=text, vision_config=vision, audio_config=ears, audio_token_id=audio_id)
    model = Gemma4ForConditionalGeneration(config).float().eval()
    randomise(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if re.search(r"[qk]_norm", name):
                # This family does not divide by the width of a head: attention would choose one token, and rounding
                # choose another.
                weight.mul_(0.6)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Gemma4ImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    extract = Gemma4AudioFeatureExtractor()

    def logits(before: list[int], samples: Samples, behind: list[int]) -> Any:
        # transformers hears the first window alone; llama.cpp hears one behind another.
        windows = [samples[start : start + WINDOW] for start in range(0, len(samples), WINDOW)]
        features = extract(windows, sampling_rate=RATE, return_tensors="pt")
        values = torch.as_tensor(features["input_features"]).float()
        mask = torch.as_tensor(features["input_features_mask"])
        heard = model.model.get_audio_features(values, mask)
        length = int(heard.attention_mask.sum()) if heard.attention_mask is not None else heard.pooler_output.shape[1]
        ids = torch.tensor([[2, *before, *[audio_id] * length, *behind]])
        kinds = (ids == audio_id).long() * 3
        out = model(input_ids=ids, input_features=values, input_features_mask=mask, mm_token_type_ids=kinds)
        return out.logits[0, -1]

    return Hearing(encode, "<|audio>", "<audio|>", logits)


def gemma_tokenizer(folder: Path) -> tuple[Callable[[str], list[int]], int, int]:
    """A tokenizer of Gemma's kind, of a few hundred tokens: how it encodes, its size, and the token for sound."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|audio>", "<audio|>", AUDIO_TOKEN]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = "the quick brown fox jumps over a lazy dog and listens to the rain that falls on the old red roof"
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *bytes_], show_progress=False)
    made.train_from_iterator([words, words.title(), "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ"], trainer)
    # Bytes are tokens of the vocabulary, and no special ones.
    described = json.loads(made.to_str())
    described["added_tokens"] = [each for each in described["added_tokens"] if each["content"] in special]
    read = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=special[4:],
    )
    read.chat_template = TEMPLATE
    read.save_pretrained(folder)
    return (lambda text: list(read.encode(text, add_special_tokens=False))), len(read), special.index(AUDIO_TOKEN)


FAMILIES: Final[dict[str, Callable[[Path, Path], Hearing]]] = {
    "qwen2-audio": _qwen2_audio,
    "qwen3-asr": _qwen3_asr,
    "gemma4": _gemma4,
    "audio-flamingo3": _audio_flamingo,
    "qwen2.5-omni": _qwen25_omni,
    "voxtral": _voxtral,
}


def make(name: str, checkpoint: Path, like: Path) -> Hearing:
    """A checkpoint of the family ``name`` in the folder ``checkpoint``; ``like`` is one whose tokenizer it gets."""
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir(parents=True)
    return FAMILIES[name](checkpoint, like)

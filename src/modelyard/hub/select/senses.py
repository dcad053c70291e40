"""What a model takes beside text, told from the header of its projector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.formats.gguf.header import GgufHeader

# Encoders of sound beside encoders of images that llama.cpp leaves aside.
# Source: llama.cpp, clip_init in tools/mtmd/clip.cpp: "we don't support audio for Gemma 3N".
_DEAF_BESIDE: Final = frozenset({"gemma3nv"})

# Checkpoints whose sound llama.cpp's converter makes a projector of, and what that calls the encoder.
# Source: llama.cpp, conversion/__init__.py and add_clip_audio_projector_type in conversion/.
_OF_CHECKPOINTS: Final = {
    "AudioFlamingo3ForConditionalGeneration": "musicflamingo",
    "Gemma4ForConditionalGeneration": "gemma4a",
    "Gemma4UnifiedForConditionalGeneration": "gemma4ua",
    "GlmasrModel": "glma",
    "GraniteSpeechForConditionalGeneration": "granite_speech",
    "Lfm2AudioForConditionalGeneration": "lfm2a",
    "MERaLiON2ForConditionalGeneration": "meralion",
    "Qwen2AudioForConditionalGeneration": "qwen2a",
    "Qwen2_5OmniModel": "qwen2.5o",
    "Qwen3ASRForConditionalGeneration": "qwen3a",
    "Qwen3OmniMoeForConditionalGeneration": "qwen3a",
    "UltravoxModel": "ultravox",
    "VoxtralForConditionalGeneration": "voxtral",
}
_DEAF_CHECKPOINTS: Final = frozenset({"Gemma3nForConditionalGeneration"})

# Encoders that turn the voice to be imitated, and not speech to be understood, into embeddings.
_OF_VOICES: Final = frozenset({"qwen3tts_spkenc", "pockettts_spkenc"})

# Source: llama.cpp, clip_graph_whisper_enc in tools/mtmd/models/whisper-enc.cpp; transformers, Qwen2_5OmniAudioEncoder.
_CAVEATS: Final = {
    "qwen2.5o": "llama.cpp encodes sound of Qwen2.5-Omni in windows of 30 s, and the model was trained on windows of "
    "two seconds: what it hears differs from what it hears in transformers.",
}

# Every other encoder takes 16,000 samples a second. Source: llama.cpp, load_hparams in tools/mtmd/clip.cpp.
_SAMPLE_RATES: Final = {"mimo_audio": 24_000}
_SAMPLE_RATE: Final = 16_000


@dataclass(frozen=True, slots=True)
class Senses:
    """What a model takes beside text.

    Attributes:
        sees, hears: whether it takes images, and sound.
        audio_encoder: what the projector's file calls its encoder of sound, such as "ultravox"; "" where it has none.
    """

    sees: bool = False
    hears: bool = False
    audio_encoder: str = ""

    @property
    def caveat(self) -> str:
        """In what llama.cpp hears something else than the model was trained on; "" where nothing is known."""
        return _CAVEATS.get(self.audio_encoder, "")

    @property
    def sample_rate(self) -> int:
        """Samples of sound in a second that it takes."""
        return _SAMPLE_RATES.get(self.audio_encoder, _SAMPLE_RATE)


NO_SENSES: Final = Senses()
"""What a model has that reads text alone."""


def senses_of(header: GgufHeader) -> Senses:
    """What the projector of ``header`` lets a model see and hear.

    Source: llama.cpp, load_hparams and clip_init in tools/mtmd/clip.cpp.
    """
    sees = header.metadata.get("clip.has_vision_encoder") is True
    hears = header.metadata.get("clip.has_audio_encoder") is True
    kind = header.metadata.get("clip.projector_type", "")
    seeing = header.metadata.get("clip.vision.projector_type", kind)
    encoder = str(header.metadata.get("clip.audio.projector_type", kind)) if hears else ""
    if (sees and seeing in _DEAF_BESIDE) or encoder in _OF_VOICES:
        hears, encoder = False, ""
    return Senses(sees, hears, encoder)


def senses_of_checkpoint(architectures: Sequence[str], *, has_vision: bool, has_audio: bool) -> Senses:
    """What a checkpoint of those architectures will see and hear, once a projector is made of its towers."""
    hears = has_audio and _DEAF_CHECKPOINTS.isdisjoint(architectures)
    encoders = (_OF_CHECKPOINTS[name] for name in architectures if name in _OF_CHECKPOINTS)
    return Senses(has_vision, hears, next(encoders, "") if hears else "")

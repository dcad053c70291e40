"""The inputs beside text (images, sound) that a model takes, from the header of its projector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.formats.gguf.header import GgufHeader

# Projector types of images with which llama.cpp ignores the encoder of sound.
# Source: llama.cpp, clip_init in tools/mtmd/clip.cpp: "we don't support audio for Gemma 3N".
_AUDIO_IGNORED_BESIDE_VISION: Final = frozenset({"gemma3nv"})

# Architectures of checkpoints with an audio encoder, and the encoder's name in the projector that llama.cpp converts.
# Source: llama.cpp, conversion/__init__.py and add_clip_audio_projector_type in conversion/.
_CHECKPOINT_ENCODERS: Final = {
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
_AUDIO_IGNORED_CHECKPOINTS: Final = frozenset({"Gemma3nForConditionalGeneration"})

# Encoders that embed the voice to be imitated, not speech to be understood.
_VOICE_ENCODERS: Final = frozenset({"qwen3tts_spkenc", "pockettts_spkenc"})

# Source: llama.cpp, clip_graph_whisper_enc in tools/mtmd/models/whisper-enc.cpp; transformers, Qwen2_5OmniAudioEncoder.
_CAVEATS: Final = {
    "qwen2.5o": "llama.cpp encodes sound of Qwen2.5-Omni in windows of 30 s, and the model was trained on windows of "
    "two seconds: its answers to sound differ from those in transformers.",
}

# Samples per second; all other encoders take 16,000. Source: llama.cpp, load_hparams in tools/mtmd/clip.cpp.
_SAMPLE_RATES: Final = {"mimo_audio": 24_000}
_SAMPLE_RATE: Final = 16_000


@dataclass(frozen=True, slots=True)
class Modalities:
    """The inputs beside text that a model takes.

    Attributes:
        has_vision, has_audio: whether the model takes images, and sound.
        audio_encoder: name of the audio encoder in the projector's file, such as "ultravox"; "" for none.
    """

    has_vision: bool = False
    has_audio: bool = False
    audio_encoder: str = ""

    @property
    def caveat(self) -> str:
        """How llama.cpp encodes sound differently from the model's training; "" if no difference is known."""
        return _CAVEATS.get(self.audio_encoder, "")

    @property
    def sample_rate(self) -> int:
        """Samples of sound per second that the audio encoder takes."""
        return _SAMPLE_RATES.get(self.audio_encoder, _SAMPLE_RATE)


NO_MODALITIES: Final = Modalities()
"""The value for a model that takes text alone."""


def modalities_of(header: GgufHeader) -> Modalities:
    """Return the inputs that the projector of ``header`` encodes.

    Source: llama.cpp, load_hparams and clip_init in tools/mtmd/clip.cpp.
    """
    has_vision = header.metadata.get("clip.has_vision_encoder") is True
    has_audio = header.metadata.get("clip.has_audio_encoder") is True
    kind = header.metadata.get("clip.projector_type", "")
    vision_encoder = header.metadata.get("clip.vision.projector_type", kind)
    encoder = str(header.metadata.get("clip.audio.projector_type", kind)) if has_audio else ""
    if (has_vision and vision_encoder in _AUDIO_IGNORED_BESIDE_VISION) or encoder in _VOICE_ENCODERS:
        has_audio, encoder = False, ""
    return Modalities(has_vision, has_audio, encoder)


def modalities_of_checkpoint(architectures: Sequence[str], *, has_vision: bool, has_audio: bool) -> Modalities:
    """Return the inputs that a projector will encode once it is converted from the towers of a checkpoint."""
    is_read = has_audio and _AUDIO_IGNORED_CHECKPOINTS.isdisjoint(architectures)
    encoders = (_CHECKPOINT_ENCODERS[name] for name in architectures if name in _CHECKPOINT_ENCODERS)
    return Modalities(has_vision, is_read, next(encoders, "") if is_read else "")

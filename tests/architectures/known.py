"""Why an architecture differs or is not served, in words: what the comparison cannot tell by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SELECTS_ALL: Final = (
    "Its sparse attention selected all tokens of these prompts: the selection itself was not compared."
)
_SILENCE: Final = "Compared with the silence that fills the window, which transformers drops."

REASONS: Final[Mapping[str, str]] = {
    "bitnet": "llama.cpp's converter looks for a SentencePiece tokenizer, which the published checkpoint has not.",
    "deepseek-v3.2": _SELECTS_ALL,
    "glm5": _SELECTS_ALL,
    "audio-flamingo3": _SILENCE,
    "gemma4": "transformers hears 30 s of a clip; longer ones were compared window by window.",
    "qwen2-audio": _SILENCE,
    "qwen2.5-omni": "Compared with attention over 30 s, as llama.cpp has it; the model was trained on two seconds.",
    "qwen3-asr": "Compared with the silence that fills its last second, as llama.cpp shows it.",
    "hunyuan-moe": "The published checkpoint has its tokenizer as a program, which is not run.",
    "internvl-hf": "llama.cpp's converter knows the tower in OpenGVLab's own layout alone. Such a model is served as "
    "text unless kind is 'multimodal'.",
    "llama4-vision": "libmtmd leaves out the last step of Llama 4's pixel shuffle, which puts the embeddings of a "
    "picture in rows, and says itself that its pictures are of degraded quality. That step alone does not make the two "
    "the same.",
    "llava": "llama.cpp's converter makes projectors of LLaVA's class with Pixtral's tower alone. Such a model is "
    "served as text unless kind is 'multimodal'.",
    "smolvlm": "libmtmd cuts the picture into tiles beside the whole, as the published checkpoints want it; "
    "transformers was shown the whole alone.",
}

"""What all systems are given: the same weights, the same prompts."""

from __future__ import annotations

import ctypes
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Source: llama.cpp, include/llama.h, enum llama_ftype.
_MOSTLY_Q4_0 = 2

SUBJECTS = (
    "a sailor",
    "a clockmaker",
    "two sisters",
    "an old dog",
    "a lighthouse",
    "the last train",
    "a baker",
    "rain",
)


def weights(folder: Path) -> tuple[Path, Path]:
    """SmolLM2-135M at Q4_0, and the same as another file: two models that share nothing."""
    first, second = folder / "smollm2-q4_0.gguf", folder / "another-q4_0.gguf"
    if not second.exists():
        sys.path.insert(0, str(ROOT / "scripts"))
        from demo_weights import prepare

        folder.mkdir(parents=True, exist_ok=True)
        _quantize(prepare(ROOT / ".weights")["smollm2"], first)
        shutil.copy(first, second)
    return first, second


def hybrid(folder: Path) -> Path:
    """A hybrid model with 100 M random parameters: three recurrent layers and one of attention, SmolLM2's tokenizer."""
    path = folder / "hybrid-100m.gguf"
    if not path.exists():
        sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
        from demo_weights import prepare

        from support.hybrid import HybridShape, write_hybrid

        shape = HybridShape(width=768, inner_feed=3072, heads=6)
        folder.mkdir(parents=True, exist_ok=True)
        write_hybrid(path, prepare(ROOT / ".weights")["smollm2"], shape)
    return path


def _quantize(source: Path, target: Path) -> None:
    import llama_cpp.llama_cpp as lib

    params = lib.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = _MOSTLY_Q4_0, True
    if lib.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp cannot quantise {source}")


def story(number: int) -> str:
    """A prompt of some 60 tokens, another for each number."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    return (
        f"Story {number}. This is the story of {subject}, told on a winter evening by somebody who was there and has "
        "forgotten nothing of it: neither the names, nor the weather, nor what was said at the end. It begins in the "
        "year when the harbour froze, and it goes like this:"
    )


def long_prompt(number: int, words: int = 750) -> str:
    """A prompt of some 1,500 tokens, another from its first word on for each number."""
    return f"{number} " + " ".join(f"{SUBJECTS[(at * at + number) % len(SUBJECTS)]} {at}" for at in range(words // 2))

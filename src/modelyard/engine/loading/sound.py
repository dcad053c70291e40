"""Clips of sound for a projector: resampled, and cut into windows that are computed one at a time.

The encoders of most models take windows of 30 s, and llama.cpp cuts a clip into them only after it has computed the
spectrum of all of it. Cut before, each window is prepared and encoded when its turn comes: other sequences decode in
between, a cancelled request stops at the next window, and memory does not grow with the clip.

Source: llama.cpp, tools/mtmd/mtmd-audio.cpp, the ``preprocess`` of each kind of encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from modelyard.engine.llama import SpanSize
from modelyard.protocol.prompts import MIN_S, SAMPLE_BYTES, Audio

# Length of llama.cpp's own windows, in seconds.
WINDOW_S: Final = 30

# Encoders that take windows of that length, each by itself, by their names in projector files. Those like Whisper's
# fill the last window with silence; where a clip ends within the last hundredth of a second of its window, llama.cpp
# adds one of silence alone.
FILLED: Final = frozenset({"ultravox", "qwen2a", "qwen2.5o", "voxtral", "meralion", "musicflamingo", "glma"})
WINDOWED: Final = FILLED | {"gemma4a"}


def resampled(audio: Audio, rate: int) -> Audio:
    """Return the clip at the sample rate ``rate``."""
    if audio.rate == rate:
        return audio
    # Imported here because it is rarely needed: clips come at the rate of their projector.
    import soxr

    samples = soxr.resample(np.frombuffer(audio.samples, np.float32), audio.rate, rate)
    return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32).tobytes(), rate, audio.param, audio.salt)


def windows(audio: Audio, *, is_windowed: bool) -> list[Audio]:
    """Return the parts of a clip that are prepared one at a time: windows of WINDOW_S, or the whole clip."""
    length = WINDOW_S * audio.rate if is_windowed else max(audio.length, 1)
    shortest = round(MIN_S * audio.rate) * SAMPLE_BYTES
    starts = range(0, max(audio.length, 1), length)
    parts = (audio.samples[start * SAMPLE_BYTES : (start + length) * SAMPLE_BYTES] for start in starts)
    return [Audio(part.ljust(shortest, b"\0"), audio.rate, audio.param, audio.salt) for part in parts]


def parts_of_window(
    parts: Sequence[list[int] | SpanSize], *, is_windowed: bool, is_first: bool, is_last: bool
) -> list[tuple[int, list[int] | SpanSize]]:
    """Return the parts of one window that enter the prompt, each with its index.

    Text that the model expects around sound stands once before the first window and once behind the last. Of a windowed
    encoder only the first spectrum counts: another one is silence.
    """
    sizes = [index for index, part in enumerate(parts) if isinstance(part, SpanSize)]
    if not sizes:
        return list(enumerate(parts))
    begin, end = sizes[0], sizes[-1]
    shown = [(index, parts[index]) for index in (sizes[:1] if is_windowed else range(begin, end + 1))]
    before = list(enumerate(parts))[:begin] if is_first else []
    behind = list(enumerate(parts))[end + 1 :] if is_last else []
    return [*before, *shown, *behind]

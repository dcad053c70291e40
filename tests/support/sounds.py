"""Sound for tests: made, never recorded."""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile

RATE: Final = 16_000

Samples = npt.NDArray[np.float32]


def chirp(seconds: float, seed: int = 0, rate: int = RATE) -> Samples:
    """A tone that rises or falls, with some noise: another one for every seed."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    start, end, wobble = random.uniform((150, 800, 1), (600, 2500, 6))
    phase = 2 * np.pi * (start * time + (end - start) * time**2 / (2 * max(seconds, 1e-9)))
    tone = np.sin(phase + np.sin(2 * np.pi * wobble * time)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return (0.5 * tone + 0.02 * random.standard_normal(len(time))).astype(np.float32)


def audio_file(samples: npt.NDArray[Any], rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """A file of those samples, [frames] or [frames, channels]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "wav") -> str:
    return f"data:audio/{kind};base64,{base64.b64encode(data).decode()}"


def input_audio(data: bytes, kind: str = "wav") -> dict[str, Any]:
    """OpenAI's content part."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}

"""Schema of llama.cpp's ``timings``, which answers of several dialects have."""

from __future__ import annotations

from typing_extensions import TypedDict


class Timings(TypedDict):
    """llama.cpp's counts and speeds of an answer."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


class Progress(TypedDict):
    """llama.cpp's ``prompt_progress``: how much of a prompt is computed, from ``cache`` to ``total`` tokens."""

    total: int
    cache: int
    processed: int
    time_ms: int

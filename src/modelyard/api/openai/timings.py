"""llama.cpp's ``timings``: token counts and speeds of one answer.

Source: llama.cpp, tools/server, server-task.cpp, result_timings::to_json.
"""

from __future__ import annotations

import time

from modelyard.api.openapi.answers_timings import Progress, Timings
from modelyard.yard.requests.token_stream import TokenStream


def timings_object(generation: TokenStream) -> Timings:
    """Return the counts and speeds of ``generation`` up to now.

    Durations are those that the server observes: up to the first token for the prompt, and from there for the answer,
    without the time in which it was suspended.
    """
    times, finished = generation.times, generation.finished
    cached = generation.cached_tokens if finished is None else finished.usage.cached_tokens
    predicted = generation.generated if finished is None else finished.usage.completion_tokens
    prompt = generation.prompt_tokens - cached
    prompt_ms = 1000 * (times.prefill_s or 0.0)
    predicted_ms = 1000 * (times.decode_s or 0.0)
    return {
        "cache_n": cached,
        "prompt_n": prompt,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": _ratio(prompt_ms, prompt),
        "prompt_per_second": _ratio(1000 * prompt, prompt_ms),
        "predicted_n": predicted,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": _ratio(predicted_ms, predicted),
        "predicted_per_second": _ratio(1000 * predicted, predicted_ms),
    }


def take_progress(generation: TokenStream) -> Progress | None:
    """Return llama.cpp's ``prompt_progress`` of a prompt that is being computed; None: there is no news of it.

    Source: llama.cpp, tools/server, server-task.cpp, result_prompt_progress::to_json.
    """
    computed, generation.computed = generation.computed, None
    if computed is None:
        return None
    return {
        "total": generation.prompt_tokens,
        "cache": generation.cached_tokens,
        "processed": computed,
        "time_ms": round(1000 * (time.monotonic() - generation.times.started)),
    }


def _ratio(dividend: float, divisor: float) -> float:
    return dividend / divisor if divisor else 0.0

"""The settings of a generation in the shape of llama.cpp's ``generation_settings``. Pure.

Source: llama.cpp, tools/server, server-task.cpp, task_params::to_json.
"""

from __future__ import annotations

from typing import Any, Final

from modelyard.protocol.prompts import SAMPLER_ORDER, Sampling
from modelyard.yard.requests.requests import Request

# llama.cpp's number for a seed of its own choice. Source: llama.h, LLAMA_DEFAULT_SEED.
_NO_SEED: Final = 0xFFFFFFFF


def generation_settings(request: Request, defaults: Sampling, *, n_predict: int, is_stream: bool) -> dict[str, Any]:
    """Return the settings of a request.

    Args:
        request: the request.
        defaults: the sampling of its model, for what the request leaves open.
        n_predict: the limit of tokens as it was sent; -1: none.
        is_stream: whether the answer is streamed.
    """
    sampling = request.sampling.over(defaults)
    window = sampling.penalty_window
    return {
        "seed": _NO_SEED if sampling.seed is None else sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_last_n": -1 if window is None else window,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry_multiplier or 0.0,
        "dry_base": sampling.dry_base,
        "dry_allowed_length": sampling.dry_allowed_length,
        "dry_sequence_breakers": list(sampling.dry_sequence_breakers or ()),
        "stop": list(request.stop),
        "max_tokens": n_predict,
        "n_predict": n_predict,
        "ignore_eos": request.ignore_eos,
        "logit_bias": [{"token": token, "bias": bias} for token, bias in (sampling.logit_bias or {}).items()],
        "stream": is_stream,
        "n_probs": request.logprobs or 0,
        "samplers": list(SAMPLER_ORDER if sampling.samplers is None else sampling.samplers),
        "lora": [{"id": number, "scale": scale} for number, scale in request.lora or ()],
    }

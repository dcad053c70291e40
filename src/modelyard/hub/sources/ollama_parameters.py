"""Turns parameters of Ollama's models into keys of a configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SAMPLING: Final = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
}
"""Ollama's parameters -> keys of ``[models.sampling]``. Source: Ollama, docs/modelfile.mdx, PARAMETER."""


def sampling_keys(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of ``[models.sampling]`` that the parameters give; others are left out."""
    numbers = {
        name: value for name, value in parameters.items() if isinstance(value, int | float) and type(value) is not bool
    }
    return {key: numbers[name] for name, key in SAMPLING.items() if name in numbers}


def context_length(parameters: Mapping[str, Any]) -> int | None:
    """Return the context length that the parameters give; None for none."""
    context = parameters.get("num_ctx")
    return context if type(context) is int else None

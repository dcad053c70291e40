"""Numbers and settings of a model as Ollama writes them."""

from __future__ import annotations

from typing import Final

from modelyard.protocol.prompts import Sampling

_THOUSAND: Final = 1_000
_MILLION: Final = 1_000_000
_BILLION: Final = 1_000_000_000

# Width of the column of names. Source: Ollama, server/routes.go, GetModelInfo.
_NAMES_WIDTH: Final = 30

# Ollama's parameter -> field of the sampling. Source: Ollama, docs/modelfile.mdx, PARAMETER.
_PARAMETERS: Final = {
    "frequency_penalty": "frequency_penalty",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "repeat_penalty": "repetition_penalty",
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}


def parameter_size(count: int | None) -> str:
    """Return a number of weights, such as "134.52M" or "3.2B"; "" where it is unknown.

    Source: Ollama, format/format.go, HumanNumber.
    """
    if not count:
        return ""
    if count >= _BILLION:
        return f"{count / _BILLION:.{1 if count % _BILLION else 0}f}B"
    if count >= _MILLION:
        return f"{count / _MILLION:.{2 if count % _MILLION else 0}f}M"
    return f"{count / _THOUSAND:.0f}K" if count >= _THOUSAND else str(count)


def parameters_text(sampling: Sampling | None) -> str:
    """Return the sampling defaults of a model, one a line, those that are unset left out."""
    values = {} if sampling is None else {name: getattr(sampling, field) for name, field in _PARAMETERS.items()}
    return "\n".join(f"{name:<{_NAMES_WIDTH}} {_number(value)}" for name, value in values.items() if value is not None)


def _number(value: float) -> str:
    """Return a number without the digits that a 32-bit float of a header does not have, and 1.0 as 1."""
    return str(int(value)) if value == int(value) else f"{value:.7g}"

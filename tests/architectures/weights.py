"""Random weights with which a small model answers as distinctly as a trained one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import torch

_STATE: Final = re.compile(r"A_log|dt_bias|\.D$|time_step")
_CORRECTION: Final = re.compile(r"correction_bias|expert_bias|e_score")
_NORM: Final = re.compile(r"norm|ln_|layernorm")
_ROUTER: Final = re.compile(r"gate\.weight$|router")
_LAST_NORM: Final = re.compile(r"(^|\.)(norm|final_norm|final_layernorm|ln_f|norm_f|embedding_norm)\.weight$")
_SCALES: Final = ("layer_scalar", "scale", "sinks", "per_expert_scale")
_SPREAD: Final = 4.0

# Types of models that do not scale attention by the size of a head: the norms of queries and keys contain the scale.
# Norms of size one would make attention so sharp that rounding alone changes the answer.
_UNSCALED_ATTENTION: Final = ("gemma3n", "gemma4")

# Size of the embeddings of a model whose output they are too. With larger ones the answer is the last token again.
_TIED_SIZE: Final = 0.05
# Gemma 3n derives more streams from the embeddings, of the same size: transformers divides by at least 0.003, and
# llama.cpp has no such bound. Smaller embeddings, those of tokens that are no words, would differ by that alone.
_GEMMA3N_SIZE: Final = 0.5


def randomise(model: Any, words: Sequence[int]) -> None:
    """Give all weights values of a size that keeps the signal, and let the output have ``words`` alone."""
    generator = torch.Generator().manual_seed(1)

    def random(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    outputs, inputs = model.get_output_embeddings(), model.get_input_embeddings().weight
    out = None if outputs is None else getattr(outputs, "weight", None)
    hidden = inputs.shape[-1]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight is not inputs and weight is not out:
                _fill(name, weight, hidden, random)
                is_unscaled = model.config.model_type.startswith(_UNSCALED_ATTENTION)
                if is_unscaled and name.endswith(("q_norm.weight", "k_norm.weight")):
                    weight.mul_(weight.shape[0] ** -0.25)
        for name, buffer in model.named_buffers():
            if _CORRECTION.search(name):
                buffer.copy_(0.05 * random(buffer))
        is_word = torch.zeros(inputs.shape[0], 1)
        is_word[list(words)] = 1
        if out is inputs:
            # Gemma multiplies its embeddings by the root of their width.
            scaled = math.sqrt(hidden) if model.config.model_type.startswith("gemma") else 1.0
            size = (_GEMMA3N_SIZE if model.config.model_type.startswith("gemma3n") else _TIED_SIZE) / scaled
            inputs.copy_(size * random(inputs))
            inputs[(is_word == 0).squeeze()] *= 0.02
            _scale_last_norm(model, _SPREAD / (size * math.sqrt(hidden)), random)
        else:
            inputs.copy_(0.5 * random(inputs))
            if out is not None:
                out.copy_(random(out) * _SPREAD / math.sqrt(hidden) * is_word)


def _fill(name: str, weight: torch.Tensor, hidden: int, random: Any) -> None:
    last = name.rpartition(".")[2]
    if _CORRECTION.search(name):
        weight.copy_(0.05 * random(weight))
    elif _STATE.search(name):
        if "dt_bias" in name:
            weight.add_(0.2 * random(weight))
    elif (_NORM.search(name) and last == "weight") or last == "norm":
        weight.add_(0.1 * random(weight))
    elif weight.dim() <= 1:
        if last in _SCALES:
            weight.add_(0.2 * random(weight))
        else:
            weight.copy_(0.1 * random(weight))
    elif "conv" in name:
        weight.copy_(random(weight) / math.sqrt(weight.shape[-1]))
    elif weight.dim() == 3:  # stacked experts, either way round
        weight.copy_(random(weight) / math.sqrt(hidden))
    elif "embed" in name:
        weight.copy_(random(weight) * 0.3)
    else:
        weight.copy_(_gain(name, hidden) * random(weight) / math.sqrt(weight.shape[-1]))


def _gain(name: str, hidden: int) -> float:
    """How far apart the outputs of a matrix are. Experts must be chosen clearly, or rounding errors choose others."""
    if name.endswith("router.proj.weight"):  # Gemma 4 divides what it routes by
        return 4.0 * math.sqrt(hidden)
    return 4.0 if _ROUTER.search(name) else 1.0


def _scale_last_norm(model: Any, gain: float, random: Any) -> None:
    """Spread the answers of a model whose output is its input embeddings: its last norm carries the scale."""
    for name, weight in model.named_parameters():
        if _LAST_NORM.search(name) and "layers" not in name:
            # Gemma's norms multiply by one more than their weight.
            stored = 1.0 if float(weight.mean()) > 0.5 else 0.0
            weight.copy_(random(weight) * 0.1 + gain - (1 - stored))
            return

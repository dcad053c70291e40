"""What classes of transformers have fixed, and llama.cpp's converter looks for in ``config.json``.

Published checkpoints spell it out. Those that transformers has saved, as most tools for fine-tuning do, have lost it:
the file would then be of a model with other experts or a short context, or end the process that computes on it.
Source: transformers, the routers in models/*/modeling_*.py; llama.cpp, conversion/base.py, set_gguf_parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_SIGMOID: Final = {"scoring_func": "sigmoid"}

# The converter takes the width of the model for its length of context where the configuration has none. ALiBi has no
# length: this is what Bloom was trained on. Source: T. Le Scao et al., "BLOOM: A 176B-Parameter Open-Access
# Multilingual Language Model", 2022; llama.cpp, conversion/bloom.py, set_gguf_parameters.
_BLOOM: Final = {"seq_length": 2048}

_FIXED: Final[Mapping[str, Mapping[str, Any]]] = {
    "AfmoeForCausalLM": {"route_norm": True},
    "BloomForCausalLM": _BLOOM,
    "BloomModel": _BLOOM,
    "DeepseekV3ForCausalLM": _SIGMOID,
    "DeepseekV32ForCausalLM": _SIGMOID,
    "Dots1ForCausalLM": _SIGMOID,
    "ExaoneMoeForCausalLM": _SIGMOID,
    "ExaoneMoEForCausalLM": _SIGMOID,
    "Glm4MoeLiteForCausalLM": _SIGMOID,
    "GlmMoeDsaForCausalLM": _SIGMOID,
    "MiniMaxM2ForCausalLM": _SIGMOID,
    # The converter takes it for a GLM 4.5, which rotates a half of each head.
    "SolarOpenForCausalLM": {"partial_rotary_factor": 1.0},
}


def with_fixed_settings(hparams: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """The configuration of a checkpoint, with what its class has fixed where it says nothing of it."""
    return {**_FIXED.get(architecture, {}), **hparams}


def text_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a checkpoint's language model, which those with towers have in a table of its own.

    Source: llama.cpp, conversion/base.py, TextModel.__init__.
    """
    return {**hparams, **(hparams.get("text_config") or {})}

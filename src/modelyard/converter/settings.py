"""Settings that classes of transformers fix in code, and that llama.cpp's converter reads from ``config.json``.

Published checkpoints contain them. Checkpoints that were saved with transformers, as most fine-tuning tools do, lack
them: the converted model would select other experts, have a short context, or abort the process that computes it.
Source: transformers, the routers in models/*/modeling_*.py; llama.cpp, conversion/base.py, set_gguf_parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_SIGMOID: Final = {"scoring_func": "sigmoid"}

# Bloom's training context. ALiBi needs no context length, and if the configuration has none, the converter uses the
# model's width instead. Source: T. Le Scao et al., "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model",
# 2022; llama.cpp, conversion/bloom.py, set_gguf_parameters.
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
    # The converter treats it as GLM 4.5, which rotates half of each head.
    "SolarOpenForCausalLM": {"partial_rotary_factor": 1.0},
}


def with_fixed_settings(hparams: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Return the configuration of a checkpoint, completed with the settings that its class fixes."""
    return {**_FIXED.get(architecture, {}), **_under_older_names(hparams, architecture), **hparams}


def _under_older_names(hparams: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Return settings under the names that the converter reads, where transformers 5 saves them under others."""
    rotation = hparams.get("rope_parameters")
    if architecture != "GPTNeoXForCausalLM" or not isinstance(rotation, Mapping):
        return {}
    return {"rotary_pct": rotation.get("partial_rotary_factor", 1.0)}


def text_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a checkpoint's language model, which multimodal checkpoints nest in a table.

    Source: llama.cpp, conversion/base.py, TextModel.__init__.
    """
    return {**hparams, **(hparams.get("text_config") or {})}

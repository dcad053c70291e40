"""Leaves out prediction heads (MTP) that a checkpoint declares but does not have.

Published checkpoints of Qwen3-Next, Qwen3.5, GLM 4.5 and DeepSeek end with a head that predicts a second token. Many
fine-tuned or requantised checkpoints lack its weights and still declare it in config.json; the converter then writes a
file that lacks a layer, or fails. Generation does not need the head.
Source: llama.cpp, conversion/base.py, ModelBase.no_mtp; conversion/qwen.py, _QwenMtpMixin; conversion/glm.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from modelyard.converter.settings import text_settings

_DECLARATIONS: Final = ("num_nextn_predict_layers", "mtp_num_hidden_layers")
_APART: Final = re.compile(r"(?:^|\.)mtp(?:\.|_)")
# Matches layers of the language model only: towers number their layers separately.
_APPENDED: Final = re.compile(r"(?:(?:model|language_model|text_model)\.)*layers\.(\d+)\..*")


def has_head(names: Iterable[str], layers: int) -> bool:
    """Whether a checkpoint with tensors of those names and ``layers`` layers has a prediction head."""
    return any(
        _APART.search(name) is not None
        or ((found := _APPENDED.fullmatch(name)) is not None and int(found[1]) >= layers)
        for name in names
    )


def without_declared_head(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a checkpoint with the declaration of a prediction head set to 0."""
    inner = hparams.get("text_config")
    kept = {key: 0 if key in _DECLARATIONS and value else value for key, value in hparams.items()}
    return {**kept, "text_config": without_declared_head(inner)} if isinstance(inner, dict) else kept


def headless(model_class: Any) -> Any:
    """Return the converter's class ``model_class``, changed to expect no prediction head."""
    return type(model_class.__name__, (model_class,), {"model_arch": model_class.model_arch, "no_mtp": True})


def declares_head(hparams: Mapping[str, Any], model_class: Any) -> bool:
    """Whether the converter expects a prediction head, which the configuration of Qwen3-Next does not declare."""
    facts = text_settings(hparams)
    return any(facts.get(key) for key in _DECLARATIONS) or hasattr(model_class, "opt_num_mtp_layers")

"""Prediction heads (MTP) that a checkpoint declares and does not have.

Published checkpoints of Qwen3-Next, Qwen3.5, GLM 4.5 and DeepSeek end with a head that predicts a second token. Many
that were quantised again or tuned further have lost it, and still declare it in config.json; the converter then writes
a file that lacks a layer, or fails. Answers do not need the head: it is left out.
Source: llama.cpp, conversion/base.py, ModelBase.no_mtp; conversion/qwen.py, _QwenMtpMixin; conversion/glm.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from modelyard.converter.settings import text_settings

_DECLARATIONS: Final = ("num_nextn_predict_layers", "mtp_num_hidden_layers")
_APART: Final = re.compile(r"(?:^|\.)mtp(?:\.|_)")
# Towers count their layers by themselves.
_APPENDED: Final = re.compile(r"(?:(?:model|language_model|text_model)\.)*layers\.(\d+)\..*")


def has_head(names: Iterable[str], layers: int) -> bool:
    """Whether a checkpoint of ``layers`` layers with tensors of those names has a prediction head."""
    return any(
        _APART.search(name) is not None
        or ((found := _APPENDED.fullmatch(name)) is not None and int(found[1]) >= layers)
        for name in names
    )


def without_declared_head(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a checkpoint as one without a prediction head would have it."""
    inner = hparams.get("text_config")
    kept = {key: 0 if key in _DECLARATIONS and value else value for key, value in hparams.items()}
    return {**kept, "text_config": without_declared_head(inner)} if isinstance(inner, dict) else kept


def headless(model_class: Any) -> Any:
    """``model_class``, of llama.cpp's converter, which expects no prediction head."""
    return type(model_class.__name__, (model_class,), {"model_arch": model_class.model_arch, "no_mtp": True})


def declares_head(hparams: Mapping[str, Any], model_class: Any) -> bool:
    """Whether the converter looks for a prediction head. Qwen3-Next has one that its configuration does not name."""
    facts = text_settings(hparams)
    return any(facts.get(key) for key in _DECLARATIONS) or hasattr(model_class, "opt_num_mtp_layers")

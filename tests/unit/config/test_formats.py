"""Formats of answers, which the configuration names and the engine has."""

from __future__ import annotations

from typing import get_args

import pytest

from modelyard.config import validate_config
from modelyard.config.names import ReasoningFormatName, ToolFormatName
from modelyard.engine.formats.reasoning import REASONING
from modelyard.engine.formats.registry import FORMATS
from modelyard.errors import ConfigError


def test_the_configuration_names_the_formats_that_there_are() -> None:
    assert set(get_args(ToolFormatName)) == set(FORMATS)
    assert set(get_args(ReasoningFormatName)) == {"none", *REASONING}


@pytest.mark.parametrize("key", ["tool_format", "reasoning_format"])
def test_an_unknown_one_is_answered_with_those_that_there_are(key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validate_config({"models": [{"model_id": "a.gguf", key: "hermis"}]}, source="test")
    named = {"tool_format": FORMATS, "reasoning_format": REASONING}[key]
    assert key in str(refused.value)
    assert all(f"'{name}'" in str(refused.value) or f'"{name}"' in str(refused.value) for name in named)

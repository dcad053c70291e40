"""Calls and their results as text, for templates that have no words for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.engine.formats import json_calls
from modelyard.engine.formats.families.generic import GENERIC
from modelyard.engine.formats.format import ToolFormat


def write_calls(calls: Sequence[Mapping[str, Any]], tool_format: ToolFormat) -> str:
    """Return calls as the model writes them, so that the history is an example of what its answers should be.

    Formats whose calls are no JSON are not written here: their calls are JSON too.

    Args:
        calls: in OpenAI's shape, with objects as arguments.
        tool_format: the format of the model's answers.
    """
    is_json = tool_format.call in (json_calls.call, json_calls.bare_call)
    shape = (tool_format if is_json else GENERIC).shape
    texts = [
        json.dumps({"name": call["function"]["name"], "arguments": call["function"]["arguments"]}, ensure_ascii=False)
        for call in calls
    ]
    return f"{shape.open}{(shape.between or chr(10)).join(texts)}{shape.close}"


def result_label(message: Mapping[str, Any]) -> str:
    """Return the text before the result of a function in a user's turn."""
    name = message.get("name")
    return f"Result of {name}:\n" if name else "Result of a function:\n"

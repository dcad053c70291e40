"""Converts conversations with tool calls to the form that chat templates expect.

In OpenAI's API the arguments of a call are text. Templates iterate over them, or write them with ``tojson``, which
would quote text once more.

Source: https://huggingface.co/docs/transformers/chat_extras#tool-use
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.engine.formats.json_text import decode
from modelyard.errors import InvalidRequest


def for_template(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the conversation with arguments as objects, missing content as "", and results as text.

    A result without a function name gets that of its call, which some templates require.

    Raises:
        InvalidRequest: the arguments of a call are not a JSON object.
    """
    names: dict[str, str] = {}
    converted: list[dict[str, Any]] = []
    for index, original in enumerate(messages):
        message = dict(original)
        if message.get("content") is None:
            message["content"] = ""
        if message.get("role") in ("assistant", "tool"):
            message["content"] = _text(message["content"])
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [_call(call, index) for call in calls]
            names |= {call["id"]: call["function"]["name"] for call in message["tool_calls"] if call.get("id")}
        if message.get("role") == "tool" and not message.get("name") and message.get("tool_call_id") in names:
            message["name"] = names[message["tool_call_id"]]
        converted.append(message)
    return converted


def with_instructions(messages: Sequence[Mapping[str, Any]], instructions: str) -> list[Mapping[str, Any]]:
    """Return the conversation with ``instructions`` at the end of its system message, which is added if need be."""
    first, *rest = messages or [{}]
    if first.get("role") not in ("system", "developer"):
        return [{"role": "system", "content": instructions}, *messages]
    return [{**first, "content": f"{_text(first.get('content') or '')}\n\n{instructions}".lstrip()}, *rest]


def _call(call: Mapping[str, Any], index: int) -> dict[str, Any]:
    function = dict(call["function"])
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = {}
    elif isinstance(arguments, str):
        try:
            arguments = decode(arguments)
        except ValueError:
            arguments = None
    if not isinstance(arguments, Mapping):
        raise InvalidRequest(
            f"The arguments of the call of '{function.get('name')}' in message {index} are not a JSON object: "
            "send them as the model wrote them.",
            "messages",
        )
    return {**call, "function": {**function, "arguments": arguments}}


def _text(content: Any) -> Any:
    """Return the joined text of content that consists of text parts; other content unchanged."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content

"""Conversations with calls in them, as chat templates expect them.

OpenAI's API has the arguments of a call as text; templates iterate over them, or write them with ``tojson``, which
would quote text once more.

Source: https://huggingface.co/docs/transformers/chat_extras#tool-use
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.engine.formats.json_text import decode
from modelyard.errors import InvalidRequest


def for_template(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation with arguments as objects, no content as "", and results as text.

    A result that names no function gets the name of the call that it answers: some templates want it.

    Raises:
        InvalidRequest: the arguments of a call are no JSON object.
    """
    names: dict[str, str] = {}
    out: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        told = dict(message)
        if told.get("content") is None:
            told["content"] = ""
        if told.get("role") in ("assistant", "tool"):
            told["content"] = _text(told["content"])
        if calls := told.get("tool_calls"):
            told["tool_calls"] = [_call(call, place) for call in calls]
            names |= {call["id"]: call["function"]["name"] for call in told["tool_calls"] if call.get("id")}
        if told.get("role") == "tool" and not told.get("name") and told.get("tool_call_id") in names:
            told["name"] = names[told["tool_call_id"]]
        out.append(told)
    return out


def with_instructions(messages: Sequence[Mapping[str, Any]], instructions: str) -> list[Mapping[str, Any]]:
    """The conversation with ``instructions`` at the end of what its system message says."""
    first, *rest = messages or [{}]
    if first.get("role") not in ("system", "developer"):
        return [{"role": "system", "content": instructions}, *messages]
    return [{**first, "content": f"{_text(first.get('content') or '')}\n\n{instructions}".lstrip()}, *rest]


def _call(call: Mapping[str, Any], place: int) -> dict[str, Any]:
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
            f"The arguments of the call of '{function.get('name')}' in message {place} are not a JSON object: "
            "send them as the model wrote them.",
            "messages",
        )
    return {**call, "function": {**function, "arguments": arguments}}


def _text(content: Any) -> Any:
    """The text of content that consists of text parts; all other content as it is."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content

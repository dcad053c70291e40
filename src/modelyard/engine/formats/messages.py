"""Reads the messages of a conversation, which clients write in many ways, into the one form that the rest works with.

In OpenAI's API the arguments of a call are text, as the model wrote it. Templates iterate over them, or write them with
``tojson``, which would quote text once more, so they become objects here. A model may have written anything, and its
client sends it back with every request: nothing that a model once said is refused.

Source: https://huggingface.co/docs/transformers/chat_extras#tool-use
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelyard.engine.formats.json_text import decode

RAW_ARGUMENTS: Final = "_raw"
"""Name of the one argument of a call whose arguments are no JSON object: their text."""

REASONING: Final = "reasoning_content"
"""The field of a message that has its reasoning, in this form."""

# Names under which clients send back reasoning: DeepSeek's, vLLM's and OpenRouter's, Ollama's.
_REASONING_FIELDS: Final = (REASONING, "reasoning", "thinking")

_ROLES: Final = {"developer": "system", "function": "tool"}

# Claude Code's first line of its system text. It changes with each request, so that no prompt would begin with a cached
# one, and is meant for Anthropic's own accounting.
_BILLING_LINE: Final = re.compile(r"\s*x-anthropic-billing-header:[^\n]*\n*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Turn:
    """A message, and where it comes from.

    Attributes:
        message: role, content and further fields, as templates read them.
        places: indexes of the messages that it was made of; () for one that was added.
    """

    message: Mapping[str, Any]
    places: tuple[int, ...]

    @property
    def role(self) -> str:
        """The role of its message."""
        return str(self.message.get("role", ""))

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        """The calls in its message."""
        return self.message.get("tool_calls") or ()

    @property
    def where(self) -> str:
        """Its messages, for notes."""
        if not self.places:
            return "an added message"
        first, last = self.places[0], self.places[-1]
        if first == last:
            return f"messages[{first}]"
        return f"messages[{first}] {'and' if len(self.places) == 2 else 'to'} messages[{last}]"


def turns_of(messages: Sequence[Mapping[str, Any]], notes: list[str]) -> list[Turn]:
    """Return the turns of a conversation.

    Contents are texts (those with other parts than text stay lists), missing ones are ""; arguments are objects; calls
    and their results have ids, and results the names of their functions; reasoning is in ``reasoning_content``.

    Args:
        messages: the conversation.
        notes: gets a phrase for each value that could not be kept as it is.
    """
    names: dict[str, str] = {}
    unanswered: dict[str, str] = {}
    turns: list[Turn] = []
    for place, original in enumerate(messages):
        message = _plain(original)
        where = f"messages[{place}]"
        if message["role"] == "system":
            _without_billing_line(message, where, notes)
        calls = _calls(message, where, f"{place:03}", notes)
        if calls:
            message["tool_calls"] = calls
            asked = {call["id"]: call["function"]["name"] for call in calls}
            names |= asked
            unanswered = asked
        elif message["role"] == "tool":
            _name_result(message, names, unanswered)
        turns.append(Turn(message, (place,)))
    return turns


def with_instructions(turns: Sequence[Turn], instructions: str) -> list[Turn]:
    """Return the conversation with ``instructions`` at the end of its system turn, which is added if need be."""
    if not turns or turns[0].role != "system":
        return [Turn({"role": "system", "content": instructions}, ()), *turns]
    first, *rest = turns
    content = f"{first.message['content']}\n\n{instructions}".lstrip()
    return [Turn({**first.message, "content": content}, first.places), *rest]


def _plain(original: Mapping[str, Any]) -> dict[str, Any]:
    role = original.get("role", "")
    content = original.get("content")
    message = {**original, "role": _ROLES.get(role, role), "content": "" if content is None else _text(content)}
    if message["role"] == "assistant":
        thoughts = [thought for name in _REASONING_FIELDS if isinstance(thought := message.get(name), str) and thought]
        if thoughts:
            for name in _REASONING_FIELDS:
                message.pop(name, None)
            message[REASONING] = thoughts[0]
    return message


def _without_billing_line(message: dict[str, Any], where: str, notes: list[str]) -> None:
    if isinstance(message["content"], str) and (found := _BILLING_LINE.match(message["content"])):
        message["content"] = message["content"][found.end() :]
        notes.append(f"left the billing header out of {where}")


def _calls(message: dict[str, Any], where: str, number: str, notes: list[str]) -> list[dict[str, Any]]:
    """Remove the calls from ``message``, and return them with ids and with objects as arguments."""
    calls = message.pop("tool_calls", None) or []
    legacy = message.pop("function_call", None)
    if not calls and isinstance(legacy, Mapping):
        calls = [{"function": legacy}]
    read: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        function = dict(call["function"])
        function["arguments"], is_exact = _arguments(function.get("arguments"))
        if not is_exact:
            notes.append(f"wrapped the arguments of {where}.tool_calls[{index}] that are no JSON object")
        call_id = call.get("id") or f"call{number}{index:02}"
        read.append({**call, "id": call_id, "type": "function", "function": function})
    return read


def _arguments(sent: Any) -> tuple[Mapping[str, Any], bool]:
    """Return arguments as an object, and whether it says no more and no less than what was sent."""
    value = sent
    # A client that encodes text once more sends an object in a text in a text.
    for _ in range(2):
        if not isinstance(value, str):
            break
        if not value.strip():
            return {}, True
        try:
            value = decode(value)
        except ValueError:
            return {RAW_ARGUMENTS: sent}, False
    if isinstance(value, Mapping):
        return value, True
    if value is None or value == []:
        return {}, True
    return {RAW_ARGUMENTS: sent}, False


def _name_result(message: dict[str, Any], names: Mapping[str, str], unanswered: dict[str, str]) -> None:
    """Give a result the id of the call that it answers, the oldest one, and the name of its function."""
    call_id = message.get("tool_call_id")
    if not call_id:
        name = message.get("name")
        matching = (each for each, called in unanswered.items() if not name or called == name)
        if call_id := next(matching, None):
            message["tool_call_id"] = call_id
    if call_id and call_id in names and not message.get("name"):
        message["name"] = names[call_id]
    unanswered.pop(call_id or "", None)


def _text(content: Any) -> Any:
    """Return the joined text of content that consists of text parts; other content unchanged."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content

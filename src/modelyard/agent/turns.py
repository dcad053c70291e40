"""The turns that an agent's answer adds to a conversation, as chat templates read them. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from modelyard.agent.tools import ToolResult
from modelyard.protocol.deltas import Message, ToolCall
from modelyard.protocol.prompts import Chat

Turn = Mapping[str, Any]

LEFT_OUT: Final = "\n[The rest of the result was left out: it is longer than the model can read.]"
"""Stands at the end of a result that was cut for a model."""


def assistant_turn(message: Message) -> dict[str, Any]:
    """Return what the model wrote in one round as a turn of the conversation."""
    turn: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [call_object(call) for call in message.tool_calls]
    return turn


def call_object(call: ToolCall) -> dict[str, Any]:
    """Return a call in OpenAI's shape."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def result_turn(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    """Return the result of a call as a turn of the conversation."""
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result.text}


def continued(chat: Chat, turn: Turn, results: Sequence[Turn]) -> Chat:
    """Return the conversation with the turn of the assistant and with the results of its calls.

    Where the answer went on from the last message, the turn becomes a part of that message.
    """
    messages = chat.messages
    if chat.continues and messages:
        *others, begun = messages
        messages, turn = tuple(others), _joined(begun, turn)
    return replace(chat, messages=(*messages, turn, *results), continues=False, opens_turn=True)


def _joined(begun: Turn, turn: Turn) -> Turn:
    content, said = begun.get("content") or "", turn["content"]
    joined: dict[str, Any] = {**begun, **turn}
    joined["content"] = content + said if isinstance(content, str) else (*content, said)
    thoughts = begun.get("reasoning_content") or begun.get("reasoning")
    if isinstance(thoughts, str) and thoughts:
        joined["reasoning_content"] = thoughts + (turn.get("reasoning_content") or "")
    return joined


def with_results(chat: Chat, results: Sequence[tuple[ToolCall, ToolResult]]) -> Chat:
    """Return the conversation with results of calls that it lacks so far.

    Each stands behind the turn that makes the call, and behind the results that are there. A call that no turn makes
    gets one, at the end of the conversation.
    """
    messages = list(chat.messages)
    for call, result in results:
        made = [place for place, message in enumerate(messages) if call.id in _ids(message)]
        if made:
            place = made[-1] + 1
            while place < len(messages) and messages[place].get("role") == "tool":
                place += 1
        else:
            messages.append(assistant_turn(Message(tool_calls=(call,))))
            place = len(messages)
        messages.insert(place, result_turn(call, result))
    return replace(chat, messages=tuple(messages), continues=chat.continues and not results)


def _ids(message: Turn) -> list[str | None]:
    return [call.get("id") for call in message.get("tool_calls") or ()]


def shortened(turns: Sequence[Turn], calls: Collection[str], max_length: int) -> tuple[Turn, ...]:
    """Return turns in which the results of ``calls``, by id, have at most so many characters, and say so if cut."""

    def cut(turn: Turn) -> Turn:
        if turn.get("role") != "tool" or turn.get("tool_call_id") not in calls:
            return turn
        content: str = turn["content"]
        return turn if len(content) <= max_length else {**turn, "content": content[:max_length] + LEFT_OUT}

    return tuple(map(cut, turns))

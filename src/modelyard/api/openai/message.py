"""The parts of an assistant's message as OpenAI's clients read them, piece by piece and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    Message,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallBroken,
    ToolCallEnd,
)
from modelyard.protocol.values import TokenLogprob


def delta_object(delta: Delta) -> dict[str, Any] | None:
    """A chunk's ``delta``; None where there is nothing to say."""
    match delta:
        case ContentDelta(text) | ToolCallBroken(_, text):
            return {"content": text}
        case ReasoningDelta(text):
            return {"reasoning_content": text}
        case ToolCallBegin(index, id, name):
            call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [call]}
        case ToolCallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        case ToolCallEnd():
            return None


def message_object(message: Message) -> dict[str, Any]:
    """A whole message."""
    known: dict[str, Any] = {"role": "assistant", "content": message.content, "refusal": None}
    if message.reasoning:
        known["reasoning_content"] = message.reasoning
    if message.tool_calls:
        known["content"] = message.content or None
        known["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return known


def logprobs_object(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """OpenAI's ``logprobs`` of a choice."""
    content = [
        {**_token(each.token, each.logprob), "top_logprobs": [_token(*other) for other in each.top]}
        for each in logprobs
    ]
    return {"content": content, "refusal": None}


def _token(token: bytes, logprob: float) -> dict[str, Any]:
    # JSON has no infinity; OpenAI's clients read so small a number as none.
    return {"token": token.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(token)}

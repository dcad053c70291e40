"""An assistant's message in OpenAI's shape: the deltas of a stream, and the whole message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from modelyard.api.openai.prompt_logprobs import LEAST_LOGPROB, token_name
from modelyard.api.openapi.answers_openai import AssistantMessage, LikelyToken, Logprobs
from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    Message,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from modelyard.protocol.values import TokenLogprob


class FunctionDelta(TypedDict):
    """A function's name, in the first delta of a call, and a piece of its arguments."""

    name: NotRequired[str]
    arguments: str


class FunctionCallDelta(TypedDict):
    """A piece of a tool call; id and type are in its first delta."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class MessageDelta(TypedDict):
    """The ``delta`` of a chunk."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[FunctionCallDelta]]


def delta_object(delta: Delta) -> MessageDelta | None:
    """Return a chunk's ``delta``; None for the end of a call, which OpenAI's stream does not mark."""
    match delta:
        case ContentDelta(text):
            return {"content": text}
        case ReasoningDelta(text):
            return {"reasoning_content": text}
        case ToolCallBegin(index, id, name):
            call: FunctionCallDelta = {
                "index": index,
                "id": id,
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }
            return {"tool_calls": [call]}
        case ToolCallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        case ToolCallEnd():
            return None


def message_object(message: Message) -> AssistantMessage:
    """Return a whole message."""
    answer: AssistantMessage = {"role": "assistant", "content": message.content, "refusal": None}
    if message.reasoning:
        answer["reasoning_content"] = message.reasoning
    if message.tool_calls:
        answer["content"] = message.content or None
        answer["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return answer


def logprobs_object(logprobs: Sequence[TokenLogprob], *, as_ids: bool = False) -> Logprobs:
    """Return OpenAI's ``logprobs`` of a choice.

    Args:
        logprobs: those of its tokens.
        as_ids: whether tokens are named by their ids.
    """

    def token_object(token: bytes, logprob: float, token_id: int) -> LikelyToken:
        return {
            "token": token_name(token, token_id, as_id=as_ids),
            "logprob": max(logprob, LEAST_LOGPROB),
            "bytes": list(token),
        }

    def top(each: TokenLogprob) -> list[LikelyToken]:
        ids = each.top_ids or (-1,) * len(each.top)
        return [token_object(*other, token_id) for other, token_id in zip(each.top, ids, strict=True)]

    return {
        "content": [
            {**token_object(each.token, each.logprob, each.id), "top_logprobs": top(each)} for each in logprobs
        ],
        "refusal": None,
    }

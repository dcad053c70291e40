"""What Anthropic's endpoints answer, for the documentation alone."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class TextBlock(TypedDict):
    """What the model said."""

    type: Literal["text"]
    text: str


class ThinkingBlock(TypedDict):
    """What the model thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(TypedDict):
    """A call that the model asks for."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(TypedDict):
    """Tokens of a message."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


class MessageObject(TypedDict):
    """A conversation's next turn."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(TypedDict):
    """How long a conversation is."""

    input_tokens: int


class AnthropicErrorObject(TypedDict):
    """What went wrong."""

    type: str
    message: str


class AnthropicErrorAnswer(TypedDict):
    """An error as Anthropic's clients read it."""

    type: Literal["error"]
    error: AnthropicErrorObject

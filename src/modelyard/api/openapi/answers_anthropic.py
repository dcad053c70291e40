"""Schemas of the answers of Anthropic's endpoints, for the documentation."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class TextBlock(TypedDict):
    """Text of the model."""

    type: Literal["text"]
    text: str


class ThinkingBlock(TypedDict):
    """Reasoning of the model."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(TypedDict):
    """A tool call of the model."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class McpToolUseBlock(TypedDict):
    """A tool call of the model that the server runs."""

    type: Literal["mcp_tool_use"]
    id: str
    name: str
    server_name: str
    input: dict[str, Any]


class McpToolResultBlock(TypedDict):
    """The result of a call that the server ran."""

    type: Literal["mcp_tool_result"]
    tool_use_id: str
    is_error: bool
    content: list[TextBlock]


ContentBlock = TextBlock | ThinkingBlock | ToolUseBlock | McpToolUseBlock | McpToolResultBlock


class MessageUsage(TypedDict):
    """Token counts of a message."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


class AppliedEditObject(TypedDict):
    """An edit of ``context_management`` that has shortened the conversation."""

    type: str
    cleared_input_tokens: int
    cleared_tool_uses: NotRequired[int]
    cleared_thinking_turns: NotRequired[int]


class AppliedEdits(TypedDict):
    """The edits that have shortened the conversation."""

    applied_edits: list[AppliedEditObject]


class EditedFields(TypedDict):
    """The field of a message whose request has ``context_management``."""

    context_management: NotRequired[AppliedEdits]


class MessageObject(EditedFields):
    """The next message of a conversation."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage


class OriginalCount(TypedDict):
    """The length of a conversation before edits."""

    original_input_tokens: int


class TokenCount(TypedDict):
    """The length of a conversation."""

    input_tokens: int
    context_management: NotRequired[OriginalCount]


class AnthropicErrorObject(TypedDict):
    """The error."""

    type: str
    message: str


class AnthropicErrorAnswer(TypedDict):
    """An error in Anthropic's dialect."""

    type: Literal["error"]
    error: AnthropicErrorObject

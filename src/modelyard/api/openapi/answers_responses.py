"""The answers about responses and conversations: their documentation, and what the encoders return.

A field that is ``NotRequired`` is left out if it has no value.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from modelyard.api.openapi.answers_openai import ChosenToken, ReasoningTokens


class CachedTokens(TypedDict):
    """A breakdown of the input's tokens."""

    cached_tokens: int
    cache_write_tokens: int


class ResponseUsage(TypedDict):
    """Token counts of a response."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class OutputText(TypedDict):
    """Text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ChosenToken]


class ReasoningText(TypedDict):
    """Text of the reasoning."""

    type: Literal["reasoning_text"]
    text: str


ItemStatus = Literal["in_progress", "completed", "incomplete"]


class MessageItem(TypedDict):
    """The message of the model."""

    type: Literal["message"]
    id: str
    role: Literal["assistant"]
    status: ItemStatus
    content: list[OutputText]


class ReasoningItem(TypedDict):
    """Reasoning of the model."""

    type: Literal["reasoning"]
    id: str
    status: ItemStatus
    summary: list[Any]
    content: list[ReasoningText]
    encrypted_content: NotRequired[str]


class FunctionCallItem(TypedDict):
    """A tool call of the model."""

    type: Literal["function_call"]
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    namespace: NotRequired[str]


class CustomToolCallItem(TypedDict):
    """A call of a custom tool."""

    type: Literal["custom_tool_call"]
    id: str
    status: ItemStatus
    call_id: str
    name: str
    input: str
    namespace: NotRequired[str]


class LocalShellCallItem(TypedDict):
    """A call of `local_shell`."""

    type: Literal["local_shell_call"]
    id: str
    status: ItemStatus
    call_id: str
    action: dict[str, Any]


class ShellCallItem(TypedDict):
    """A call of `shell`."""

    type: Literal["shell_call"]
    id: str
    status: ItemStatus
    call_id: str
    action: dict[str, Any]
    environment: None


class ApplyPatchCallItem(TypedDict):
    """A call of `apply_patch`."""

    type: Literal["apply_patch_call"]
    id: str
    status: ItemStatus
    call_id: str
    operation: dict[str, Any]


class ToolSearchCallItem(TypedDict):
    """A call of `tool_search`."""

    type: Literal["tool_search_call"]
    id: str
    status: ItemStatus
    call_id: str
    arguments: dict[str, Any]
    execution: Literal["client"]


class McpListedTool(TypedDict):
    """A tool of an MCP server."""

    name: str
    description: str | None
    input_schema: dict[str, Any]
    annotations: dict[str, Any] | None


class McpListToolsItem(TypedDict):
    """The tools of one server that the model may call, which this server runs."""

    type: Literal["mcp_list_tools"]
    id: str
    server_label: str
    tools: list[McpListedTool]
    error: str | None


class McpText(TypedDict):
    """A text that a tool has returned."""

    type: Literal["text"]
    text: str


class McpToolError(TypedDict):
    """Why a call failed, as the model reads it."""

    type: Literal["mcp_tool_execution_error"]
    content: list[McpText]


class McpCallItem(TypedDict):
    """A call that this server runs, with its result."""

    type: Literal["mcp_call"]
    id: str
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    server_label: str
    name: str
    arguments: str
    output: str | None
    error: McpToolError | None
    approval_request_id: str | None


class McpApprovalRequestItem(TypedDict):
    """A call that runs once the client has approved it in its next request."""

    type: Literal["mcp_approval_request"]
    id: str
    server_label: str
    name: str
    arguments: str


OutputItem = (
    MessageItem
    | ReasoningItem
    | FunctionCallItem
    | CustomToolCallItem
    | LocalShellCallItem
    | ShellCallItem
    | ApplyPatchCallItem
    | ToolSearchCallItem
    | McpListToolsItem
    | McpCallItem
    | McpApprovalRequestItem
)


class ResponseFailure(TypedDict):
    """Why a response failed."""

    code: str
    message: str
    type: NotRequired[str]


class IncompleteDetails(TypedDict):
    """Why a response was cut off."""

    reason: Literal["max_output_tokens"]


class ReasoningConfig(TypedDict):
    """The requested reasoning."""

    effort: str | None
    summary: None


class ConversationId(TypedDict):
    """The conversation of a response."""

    id: str


class ResponseObject(TypedDict):
    """A response in its current state."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    conversation: NotRequired[ConversationId]
    error: ResponseFailure | None
    frequency_penalty: float
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningConfig
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None


class InputItems(TypedDict):
    """A page of the items of a response's input, or of a conversation."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(TypedDict):
    """The number of tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class CompactedResponse(TypedDict):
    """A conversation in short: the messages of the user, and a summary of the rest."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[dict[str, Any]]
    usage: ResponseUsage


class ConversationObject(TypedDict):
    """A stored conversation."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class DeletedConversation(TypedDict):
    """A deleted conversation."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: bool


@with_config(ConfigDict(extra="allow"))
class ConversationItem(TypedDict):
    """An item of a conversation; its type determines its other fields."""

    id: str
    type: str


class DeletedResponse(TypedDict):
    """A deleted response."""

    id: str
    object: Literal["response"]
    deleted: bool

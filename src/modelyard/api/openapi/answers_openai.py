"""The answers of OpenAI's endpoints: their documentation, and what the encoders return.

A field that is ``NotRequired`` is left out if it has no value.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from modelyard.api.openapi.answers_timings import Timings

FinishReason = Literal["stop", "length", "tool_calls"]


class PromptTokens(TypedDict):
    """A breakdown of the prompt's tokens."""

    cached_tokens: int


class ReasoningTokens(TypedDict):
    """A breakdown of the output's tokens."""

    reasoning_tokens: int


class TokenUsage(TypedDict):
    """Token counts of all choices; the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: ReasoningTokens


class LikelyToken(TypedDict):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of the answer, and the most likely tokens at its position."""

    top_logprobs: list[LikelyToken]


class Logprobs(TypedDict):
    """Log-probabilities of the tokens."""

    content: list[ChosenToken]
    refusal: None


class CalledFunction(TypedDict):
    """A function, and its arguments as JSON text."""

    name: str
    arguments: str


class FunctionCall(TypedDict):
    """A tool call of the model."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(TypedDict):
    """The message of the model."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[FunctionCall]]


class ChatChoice(TypedDict):
    """One choice."""

    index: int
    message: AssistantMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class PromptToken(TypedDict):
    """A token that is possible at a place of the prompt. vLLM's ``Logprob``."""

    logprob: float
    rank: int
    decoded_token: str


class PromptScores(TypedDict):
    """The log-probabilities at each place of the prompt, by token id. An extension of vLLM."""

    prompt_logprobs: NotRequired[list[dict[str, PromptToken] | None]]


class AgenticToolCall(TypedDict):
    """A call of a tool that the server has run, and its result. An extension of mistral.rs."""

    index: int
    id: str
    name: str
    server: str
    arguments: str
    result: str
    is_error: bool
    round: int
    duration_ms: float


class ChatCompletion(PromptScores):
    """The next message of a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: TokenUsage
    timings: Timings


class AgentChatCompletion(ChatCompletion):
    """The next message of a conversation, for which the server may have run tools."""

    agentic_tool_calls: NotRequired[list[AgenticToolCall]]


class ListedLogprobs(TypedDict):
    """Log-probabilities of the tokens, as parallel lists."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(PromptScores):
    """One continuation."""

    index: int
    text: str
    logprobs: ListedLogprobs | None
    finish_reason: FinishReason


class TextCompletion(TypedDict):
    """Continued texts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: TokenUsage
    timings: Timings


class Embedding(TypedDict):
    """The vector of one input: numbers, or bytes in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """Token counts of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    """Vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


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


class SpeechUsage(TypedDict):
    """Token counts, or with `verbose_json` the seconds of sound."""

    type: Literal["tokens", "duration"]
    input_tokens: NotRequired[int]
    output_tokens: NotRequired[int]
    total_tokens: NotRequired[int]
    seconds: NotRequired[int]


class SpeechText(TypedDict):
    """The transcript. With the format `text`, the answer is the text alone, as text/plain."""

    text: str
    usage: SpeechUsage
    task: NotRequired[Literal["transcribe", "translate"]]
    language: NotRequired[str]
    duration: NotRequired[float]


class DeletedResponse(TypedDict):
    """A deleted response."""

    id: str
    object: Literal["response"]
    deleted: bool


class ErrorObject(TypedDict):
    """The error."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(TypedDict):
    """An error in OpenAI's dialect."""

    error: ErrorObject

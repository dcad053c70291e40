"""The parts of a chat's answer, as they arrive.

Hot path: each streamed piece makes a chunk, a choice and a delta, which costs 7 µs more than plain dataclasses would.

Source: OpenAI, API reference, "The chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from modelyard.inprocess.answers.base import Answer, in_repr
from modelyard.inprocess.answers.chat import ChoiceLogprobs, FinishReason
from modelyard.inprocess.answers.usage import CompletionUsage, PromptProgress, Timings


class FunctionCallDelta(Answer):
    """A part of a function call: the whole name comes first, then pieces of the arguments' JSON text."""

    name: str | None = None
    arguments: str = ""


class ToolCallDelta(Answer):
    """A part of a tool call; index counts the calls of an answer from 0. The first part has id and type."""

    index: int
    function: FunctionCallDelta
    id: str | None = None
    type: Literal["function"] | None = None


class ChoiceDelta(Answer):
    """A part of a choice: each field that is not None extends the message so far."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    role: Literal["assistant"] | None = None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name in ("role", "content", "reasoning_content", "tool_calls"):
            if (value := self[name]) is not None:
                yield name, in_repr(value) if isinstance(value, str) else value


class ChunkChoice(Answer):
    """A part of one choice. The last part has a finish_reason."""

    index: int
    delta: ChoiceDelta
    finish_reason: FinishReason | None = None
    logprobs: ChoiceLogprobs | None = None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        if self.index:
            yield "index", self.index
        yield from self.delta.__repr_args__()
        if self.finish_reason is not None:
            yield "finish_reason", self.finish_reason


class AgenticToolCallProgress(Answer):
    """News of a call of a tool that is run for the model. An extension of mistral.rs.

    Attributes:
        id: of the call.
        round: in which the call was made, from 0.
        server: name of the tool's MCP server; "program" for a function of the program.
        phase: "calling", then "running" with each report of progress, "approved" or "denied" after an approval, and
            "complete" with the result.
        data: ``arguments``; ``progress``, ``total`` and ``message``; ``content`` and ``is_error`` of the result.
    """

    id: str
    round: int
    tool_name: str
    server: str
    phase: Literal["calling", "running", "approved", "denied", "complete"]
    data: dict[str, Any]
    type: Literal["agentic_tool_call_progress"] = "agentic_tool_call_progress"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield None, self.tool_name
        yield "phase", self.phase
        if self.phase == "complete":
            yield "content", in_repr(str(self.data.get("content")))


class AgenticToolApprovalRequired(Answer):
    """A call of a tool that waits for its approval. An extension of mistral.rs.

    Attributes:
        approval_id: under which ``POST /v1/agent/approvals/{id}`` of a server on the model approves or denies it.
        id: of the call.
        round: in which the call was made, from 0.
        tool: its ``name`` and its ``server``.
        arguments: text of a JSON object, as the model wrote it.
        expires_at: when it counts as denied, in seconds since 1970.
    """

    approval_id: str
    id: str
    round: int
    tool: dict[str, Any]
    arguments: str
    expires_at: float | None = None
    type: Literal["agentic_tool_approval_required"] = "agentic_tool_approval_required"


class ChatCompletionChunk(Answer):
    """A part of an answer: ``chunk.choices[0].delta.content`` is its text, or None.

    Attributes:
        choices: always one choice.
        usage: tokens of all choices, in the last chunk; None before.
        timings: in the last chunk of a choice, and in every chunk if the request has ``timings_per_token``.
        prompt_progress: in chunks before the text, if the request has ``return_progress``.
        agentic_tool_call_progress: in chunks without text, what becomes of a call of a tool that is run for the model.
        agentic_tool_approval_required: in chunks without text, a call that waits for its approval.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    timings: Timings | None = None
    prompt_progress: PromptProgress | None = None
    agentic_tool_call_progress: AgenticToolCallProgress | None = None
    agentic_tool_approval_required: AgenticToolApprovalRequired | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for choice in self.choices:
            yield from choice.__repr_args__()
        for news in (self.agentic_tool_call_progress, self.agentic_tool_approval_required):
            if news is not None:
                yield None, news
        if self.usage is not None:
            yield "usage", self.usage

"""Whole answers to chats.

Source: OpenAI, API reference, "The chat completion object".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from modelyard.inprocess.answers.base import Answer, in_repr
from modelyard.inprocess.answers.notebook import RanCall, answer_html
from modelyard.inprocess.answers.usage import CompletionUsage, PromptToken, Timings

FinishReason = Literal["stop", "length", "tool_calls"]


class FunctionCall(Answer):
    """The name of a function, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


class ToolCall(Answer):
    """A tool call that the model requests."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "id", self.id
        yield None, f"{self.function.name}({in_repr(self.function.arguments)})"


class ChatCompletionMessage(Answer):
    """The message of an answer. It can be passed as a message of the next request.

    Attributes:
        content: the text; None if there are only tool calls.
        reasoning_content: the reasoning before the answer; None if there is none.
        tool_calls: the tool calls; None if there are none.
        refusal: always None.
    """

    content: str | None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: None = None
    role: Literal["assistant"] = "assistant"

    def as_request(self) -> dict[str, Any]:
        """Return the message as a dict for a request, without absent fields."""
        return {"role": self.role, "content": self.content, **self.model_dump(exclude_none=True)}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "content", in_repr(self.content)
        if self.reasoning_content is not None:
            yield "reasoning_content", in_repr(self.reasoning_content)
        if self.tool_calls:
            yield "tool_calls", self.tool_calls

    def _repr_html_(self) -> str:
        return answer_html(self.content, self.reasoning_content, _calls(self))


class TopLogprob(Answer):
    """A candidate token; logprob is the natural logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield None, self.token
        yield "logprob", round(self.logprob, 4)


class TokenLogprob(TopLogprob):
    """A token of the answer, and the most likely candidates at its position."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Answer):
    """Log-probabilities of the tokens of a choice or of a chunk."""

    content: list[TokenLogprob]
    refusal: None = None


class AgenticToolCall(Answer):
    """A call of a tool that was run for the model, and its result. An extension of mistral.rs.

    Attributes:
        index: number of the choice that it belongs to.
        name: of the tool, as the model calls it.
        server: name of the tool's MCP server; "program" for a function of the program.
        arguments: text of a JSON object, as the model wrote it.
        result: as the model read it.
        is_error: whether the tool failed, was not approved, or took too long.
        round: in which the call was made, from 0.
        duration_ms: how long the tool ran.
    """

    index: int
    id: str
    name: str
    server: str
    arguments: str
    result: str
    is_error: bool
    round: int
    duration_ms: float

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield None, f"{self.name}({in_repr(self.arguments)})"
        yield "result", in_repr(self.result)
        if self.is_error:
            yield "is_error", True


class Choice(Answer):
    """One of the requested answers."""

    index: int
    message: ChatCompletionMessage
    finish_reason: FinishReason
    logprobs: ChoiceLogprobs | None = None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from self.message.__repr_args__()
        yield "finish_reason", self.finish_reason


class ChatCompletion(Answer):
    """A whole answer: ``completion.choices[0].message.content`` is its text. A notebook renders its Markdown.

    Attributes:
        created: seconds since 1970.
        model: id of the model that answered.
        system_fingerprint: identifies the weights and settings of the model.
        timings: counts and speeds, as llama.cpp has them.
        agentic_tool_calls: the calls of tools that were run for the model, as they ended; None if it had no such tools.
        prompt_logprobs: at each place of the prompt the likely tokens, by id, if the request has ``prompt_logprobs``.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[Choice]
    usage: CompletionUsage
    timings: Timings | None = None
    agentic_tool_calls: list[AgenticToolCall] | None = None
    prompt_logprobs: list[dict[str, PromptToken] | None] | None = None
    object: Literal["chat.completion"] = "chat.completion"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        if len(self.choices) == 1:
            yield from self.choices[0].__repr_args__()
        else:
            yield "choices", self.choices
        if self.agentic_tool_calls:
            yield "agentic_tool_calls", self.agentic_tool_calls
        yield "model", self.model
        yield "usage", self.usage

    def _repr_html_(self) -> str:
        parts = []
        for choice in self.choices:
            message = choice.message
            note = f"{self.model} · {choice.finish_reason} · {self.usage.completion_tokens} tokens"
            if self.timings is not None and self.timings.predicted_per_second:
                note += f" · {self.timings.predicted_per_second:.1f} tokens/s"
            ran = [
                RanCall(f"{call.name}({call.arguments})", call.result, call.is_error)
                for call in self.agentic_tool_calls or ()
                if call.index == choice.index
            ]
            parts.append(answer_html(message.content, message.reasoning_content, _calls(message), note, ran))
        return "".join(parts)


def _calls(message: ChatCompletionMessage) -> list[str]:
    return [f"{call.function.name}({call.function.arguments})" for call in message.tool_calls or ()]

"""Answers with OpenAI's names and shapes, as attributes of immutable objects.

Hot path: each streamed piece makes a chunk, a choice and a delta.

Source: OpenAI, API reference, "The chat completion object", "The chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelyard.protocol.values import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """The name of a function, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model requests."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


@dataclass(frozen=True, slots=True)
class ChatCompletionMessage:
    """The message of an answer. It can be passed as a message of the next request.

    Attributes:
        content: the text; None if there are only tool calls.
        reasoning_content: the reasoning before the answer; None if there is none.
        tool_calls: the tool calls; may be empty.
    """

    content: str | None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    role: Literal["assistant"] = "assistant"

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> ChatCompletionMessage:
        """Build from OpenAI's JSON."""
        calls = tuple(
            ToolCall(call["id"], FunctionCall(call["function"]["name"], call["function"]["arguments"]))
            for call in message.get("tool_calls", ())
        )
        return cls(message["content"], message.get("reasoning_content"), calls)

    def as_request(self) -> dict[str, Any]:
        """Return the message as a dict for a request, without absent fields."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": call.type,
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in self.tool_calls
            ]
        return message


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A candidate token; logprob is the natural logarithm of its probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer, and the most likely candidates at its position."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


@dataclass(frozen=True, slots=True)
class ChoiceLogprobs:
    """Log-probabilities of the tokens of a choice or of a chunk."""

    content: tuple[TokenLogprob, ...]

    @classmethod
    def of(cls, logprobs: Mapping[str, Any] | None) -> ChoiceLogprobs | None:
        """Build from OpenAI's JSON."""
        if logprobs is None:
            return None
        return cls(
            tuple(
                TokenLogprob(
                    each["token"],
                    each["logprob"],
                    tuple(each["bytes"]),
                    tuple(
                        TopLogprob(top["token"], top["logprob"], tuple(top["bytes"])) for top in each["top_logprobs"]
                    ),
                )
                for each in logprobs["content"]
            )
        )


@dataclass(frozen=True, slots=True)
class PromptTokensDetails:
    """cached_tokens counts the tokens of the prompt that were taken from the KV cache."""

    cached_tokens: int


@dataclass(frozen=True, slots=True)
class CompletionUsage:
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, usage: Usage) -> CompletionUsage:
        """Build from the yard's usage."""
        total = usage.prompt_tokens + usage.completion_tokens
        return cls(usage.prompt_tokens, usage.completion_tokens, total, PromptTokensDetails(usage.cached_tokens))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the requested answers."""

    index: int
    message: ChatCompletionMessage
    finish_reason: FinishReason
    logprobs: ChoiceLogprobs | None = None

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> Choice:
        """Build from OpenAI's JSON."""
        message = ChatCompletionMessage.of(choice["message"])
        return cls(choice["index"], message, choice["finish_reason"], ChoiceLogprobs.of(choice["logprobs"]))


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """A whole answer: ``completion.choices[0].message.content`` is its text.

    Attributes:
        created: seconds since 1970.
        model: id of the model that answered.
        system_fingerprint: identifies the weights and settings of the model.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[Choice, ...]
    usage: CompletionUsage
    object: Literal["chat.completion"] = "chat.completion"


@dataclass(frozen=True, slots=True)
class FunctionCallDelta:
    """A part of a function call: the whole name comes first, then pieces of the arguments' JSON text."""

    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A part of a tool call; index counts the calls of an answer from 0. The first part has id and type."""

    index: int
    function: FunctionCallDelta
    id: str | None = None
    type: Literal["function"] | None = None


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A part of a choice: each field that is not None extends the message so far."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    role: Literal["assistant"] | None = None

    @classmethod
    def of(cls, delta: Mapping[str, Any]) -> ChoiceDelta:
        """Build from OpenAI's JSON."""
        calls = tuple(
            ToolCallDelta(
                call["index"],
                FunctionCallDelta(call["function"].get("name"), call["function"]["arguments"]),
                call.get("id"),
                call.get("type"),
            )
            for call in delta.get("tool_calls", ())
        )
        return cls(delta.get("content"), delta.get("reasoning_content"), calls)


@dataclass(frozen=True, slots=True)
class ChunkChoice:
    """A part of one choice. The last part has a finish_reason."""

    index: int
    delta: ChoiceDelta
    finish_reason: FinishReason | None = None
    logprobs: ChoiceLogprobs | None = None


@dataclass(frozen=True, slots=True)
class ChatCompletionChunk:
    """A part of an answer: ``chunk.choices[0].delta.content`` is its text, or None.

    Attributes:
        choices: always one choice.
        usage: tokens of all choices, in the last chunk; None before.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[ChunkChoice, ...]
    usage: CompletionUsage | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """How well one document answers a query.

    Attributes:
        index: index of the document in the request.
        relevance_score: from 0 to 1.
    """

    index: int
    relevance_score: float


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """Documents by how well they answer a query.

    Attributes:
        results: the best document first.
        model: id of the reranker.
        usage: tokens of all pairs of the query and a document.
    """

    results: tuple[RankedDocument, ...]
    model: str
    usage: CompletionUsage


@dataclass(frozen=True, slots=True)
class Embedding:
    """One text as a vector of length 1."""

    index: int
    embedding: list[float]
    object: Literal["embedding"] = "embedding"


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingResponse:
    """Texts as vectors.

    Attributes:
        vectors: [inputs, dimensions], 32-bit floats, each row of length 1.
        model: id of the embedding model.
        usage: tokens of all inputs.
    """

    vectors: npt.NDArray[np.float32]
    model: str
    usage: CompletionUsage
    object: Literal["list"] = "list"

    @property
    def data(self) -> Sequence[Embedding]:
        """Return the vectors in OpenAI's shape, as lists of numbers."""
        return [Embedding(index, vector) for index, vector in enumerate(self.vectors.tolist())]

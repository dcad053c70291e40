"""The answers of OpenAI's endpoints but those of responses: their documentation, and what the encoders return.

A field that is ``NotRequired`` is left out if it has no value.
"""

from __future__ import annotations

from typing import Literal, NotRequired

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


class ErrorObject(TypedDict):
    """The error."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(TypedDict):
    """An error in OpenAI's dialect."""

    error: ErrorObject

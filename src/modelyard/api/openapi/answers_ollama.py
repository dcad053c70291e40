"""Schemas of the answers of Ollama's endpoints, for the documentation."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from modelyard.api.openapi.answers_openai import AgenticToolCall, ChosenToken


class OllamaVersion(TypedDict):
    """The supported version of Ollama's API."""

    version: str


class ModelDetails(TypedDict):
    """Properties of a model's weights."""

    parent_model: str
    format: Literal["gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(TypedDict):
    """A model in the list."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class ListedModels(TypedDict):
    """All models."""

    models: list[ListedModel]


class LoadedModel(ListedModel):
    """A model that is loaded or parked."""

    size_vram: int
    expires_at: str
    context_length: int
    parked: NotRequired[bool]


class LoadedModels(TypedDict):
    """The models that are loaded or parked."""

    models: list[LoadedModel]


class ShownModel(TypedDict):
    """Properties of a model."""

    license: NotRequired[str]
    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaFunction(TypedDict):
    """A function and its arguments."""

    name: str
    arguments: dict[str, Any]


class OllamaCall(TypedDict):
    """A tool call of the model."""

    function: OllamaFunction


class OllamaTurn(TypedDict):
    """The message of the model, or in a stream the result of a tool that the server ran."""

    role: Literal["assistant", "tool"]
    content: str
    tool_name: NotRequired[str]
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[OllamaCall]]


class _Measured(TypedDict):
    model: str
    created_at: str
    done: bool
    done_reason: str
    logprobs: NotRequired[list[ChosenToken]]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]


class ChatAnswer(_Measured):
    """The next message of a conversation, with token counts, and times in nanoseconds."""

    message: OllamaTurn
    agentic_tool_calls: NotRequired[list[AgenticToolCall]]


class GenerateAnswer(_Measured):
    """A continued text, with token counts, and times in nanoseconds."""

    response: str
    thinking: NotRequired[str]


class _Settled(TypedDict):
    created_at: NotRequired[str]
    done: NotRequired[bool]
    done_reason: NotRequired[str]


class EmbedAnswer(_Settled):
    """Vectors in the order of the inputs; none if the request only loaded or unloaded the model."""

    model: str
    embeddings: list[list[float]]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]


class EmbeddingsAnswer(_Settled):
    """A vector; empty if the request only loaded or unloaded the model."""

    model: NotRequired[str]
    embedding: list[float]


class OllamaErrorAnswer(TypedDict):
    """An error in Ollama's dialect."""

    error: str

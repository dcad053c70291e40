"""What Ollama's endpoints answer, for the documentation alone."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from modelyard.api.openapi.answers_openai import ChosenToken


class OllamaVersion(TypedDict):
    """The version of Ollama's API that is spoken."""

    version: str


class ModelDetails(TypedDict):
    """What is known of a model's weights."""

    parent_model: str
    format: Literal["gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(TypedDict):
    """A model that can be asked."""

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
    """A model that is loaded."""

    size_vram: int
    expires_at: str
    context_length: int


class LoadedModels(TypedDict):
    """The models that are loaded."""

    models: list[LoadedModel]


class ShownModel(TypedDict):
    """All that is known of a model."""

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
    """A call that the model asks for."""

    function: OllamaFunction


class OllamaTurn(TypedDict):
    """What the model said."""

    role: Literal["assistant"]
    content: str
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
    """A conversation's next turn, with counts, and times in nanoseconds."""

    message: OllamaTurn


class GenerateAnswer(_Measured):
    """A continued text, with counts, and times in nanoseconds."""

    response: str
    thinking: NotRequired[str]


class _Settled(TypedDict):
    created_at: NotRequired[str]
    done: NotRequired[bool]
    done_reason: NotRequired[str]


class EmbedAnswer(_Settled):
    """Vectors, in the order of the inputs; none, where the model was only loaded or unloaded."""

    model: str
    embeddings: list[list[float]]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]


class EmbeddingsAnswer(_Settled):
    """A vector; an empty one, where the model was only loaded or unloaded."""

    model: NotRequired[str]
    embedding: list[float]


class OllamaErrorAnswer(TypedDict):
    """An error as Ollama's clients read it."""

    error: str

"""Schemas of the answers of llama.cpp's endpoints, for the documentation."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import RootModel
from typing_extensions import TypedDict

from modelyard.api.openapi.answers_timings import Timings


class TokenPiece(TypedDict):
    """A token and its text, or its bytes if they are not whole characters."""

    id: int
    piece: str | list[int]


class TokenList(TypedDict):
    """The tokens of a text."""

    tokens: list[int | TokenPiece]
    count: int
    max_model_len: int | None
    model: str
    token_strs: NotRequired[list[str]]


class TokenText(TypedDict):
    """The text of tokens, in the field of llama.cpp and in that of vLLM."""

    content: str
    prompt: str
    model: str


class RouterStatus(TypedDict):
    """The state of a model."""

    value: Literal["unloaded", "loading", "loaded", "sleeping", "downloading"]
    failed: NotRequired[bool]


class Modalities(TypedDict):
    """Input and output modalities of a model."""

    input_modalities: list[str]
    output_modalities: list[str]


class RouterModel(TypedDict):
    """A model."""

    id: str
    object: Literal["model"]
    owned_by: str
    created: int
    aliases: list[str]
    status: RouterStatus
    architecture: Modalities
    resident_bytes: int
    predicted_bytes: NotRequired[int]


class RouterModels(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[RouterModel]


class RouterDone(TypedDict):
    """Success of a change."""

    success: Literal[True]


StopType = Literal["none", "eos", "limit", "word"]


class TokenIdentity(TypedDict):
    """A token."""

    id: int
    token: str
    bytes: list[int]


class LikelyTokenId(TokenIdentity):
    """A token and its log-probability."""

    logprob: float


class DrawableToken(TokenIdentity):
    """A token and the probability that it is drawn with."""

    prob: float


class TokenProbability(LikelyTokenId):
    """A token of the answer, and the most likely tokens at its position."""

    top_logprobs: list[LikelyTokenId]


class SampledToken(DrawableToken):
    """A token of the answer, and the most likely tokens that could be drawn in its place."""

    top_probs: list[DrawableToken]


class NativeCompletion(TypedDict):
    """A continued text, in llama.cpp's shape."""

    index: int
    content: str
    tokens: list[int]
    id_slot: int
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    generation_settings: dict[str, Any]
    prompt: Any
    has_new_line: bool
    truncated: bool
    stop_type: StopType
    stopping_word: str
    tokens_cached: int
    timings: Timings
    completion_probabilities: NotRequired[list[TokenProbability | SampledToken]]


class TextEmbedding(TypedDict):
    """The vectors of one input."""

    index: int
    embedding: list[list[float]]


class RenderedPrompt(TypedDict):
    """A conversation as the text that the model reads."""

    prompt: str


class ServerProperties(TypedDict):
    """Properties of one model, as llama.cpp's server has them."""

    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    model_path: str
    modalities: dict[str, bool]
    media_marker: str
    chat_template: str
    bos_token: str
    eos_token: str
    build_info: str
    is_sleeping: bool


class Slot(TypedDict):
    """One of the answers that a model computes at the same time."""

    id: int
    n_ctx: int | None
    speculative: bool
    is_processing: bool


class ChatTokenCount(TypedDict):
    """The number of tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class NativeCompletions(RootModel[NativeCompletion | list[NativeCompletion]]):
    """A continued text, or a list of them for several prompts or answers."""


class TextEmbeddings(RootModel[list[TextEmbedding]]):
    """The vectors of all inputs."""


class Slots(RootModel[list[Slot]]):
    """The answers that a model computes at the same time."""


class AdapterEntry(TypedDict):
    """A LoRA adapter; ``scale`` is that of requests which name no adapter."""

    id: int
    path: str
    scale: float
    task_name: str
    prompt_prefix: str


class Adapters(RootModel[list[AdapterEntry]]):
    """The LoRA adapters of a model."""

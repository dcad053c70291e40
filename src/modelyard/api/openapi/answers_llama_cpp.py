"""What llama.cpp's endpoints answer, for the documentation alone."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class TokenPiece(TypedDict):
    """A token and its text, or its bytes where they are not whole characters."""

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
    """The text of tokens, in llama.cpp's field and in vLLM's."""

    content: str
    prompt: str
    model: str


class RouterStatus(TypedDict):
    """Where a model is."""

    value: Literal["unloaded", "loading", "loaded", "sleeping", "downloading"]
    failed: NotRequired[bool]


class Modalities(TypedDict):
    """What goes into a model, and what comes out."""

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


class RouterModels(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[RouterModel]


class RouterDone(TypedDict):
    """It is done."""

    success: Literal[True]

"""Schemas of the answers of llama.cpp's endpoints, for the documentation."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


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


class RouterModels(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[RouterModel]


class RouterDone(TypedDict):
    """Success of a load or unload."""

    success: Literal[True]

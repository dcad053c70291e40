"""Schemas of the answers of the endpoints about what happened to requests and models, for the documentation."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class Activity(TypedDict):
    """A request to a model. Times are seconds since 1970; null: not reached."""

    id: str
    object: Literal["activity"]
    request_id: str | None
    model: str
    key: str | None
    dialect: str
    path: str | None
    kind: Literal["text", "vectors", "scores", "tokens"]
    stream: bool
    state: Literal["waiting", "loading", "prefill", "decode", "suspended", "done", "failed", "cancelled"]
    arrived_at: float
    granted_at: float | None
    first_token_at: float | None
    ended_at: float | None
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    tokens_per_second: float | None
    finish_reason: str | None
    error: str | None


class ActivityList(TypedDict):
    """Requests: those that are not over, the latest first, then those that ended, likewise."""

    object: Literal["list"]
    data: list[Activity]


class ActivityPhase(TypedDict):
    """A part of the time of a request."""

    phase: Literal["waiting", "loading", "prefill", "decode", "suspended"]
    began_at: float
    ended_at: float | None
    text: str
    models: list[str]


class ActivityDetail(Activity):
    """A request to a model, with its phases, which have no gaps between them."""

    error_message: str | None
    phases: list[ActivityPhase]
    prompt: NotRequired[str | None]
    answer: NotRequired[str | None]


class ResidencyInterval(TypedDict):
    """A time in which the state of a model and its memory did not change."""

    state: Literal["unloaded", "sizing", "loading", "loaded", "freeing", "parked", "failed"]
    began_at: float
    ended_at: float | None
    bytes: dict[str, int]
    cause: str | None
    reason: str | None


class ModelHistory(TypedDict):
    """What happened to a model. Before its first interval it was unloaded."""

    model_id: str
    intervals: list[ResidencyInterval]


class ModelHistoryList(TypedDict):
    """What happened to the models."""

    object: Literal["list"]
    as_of: float
    data: list[ModelHistory]

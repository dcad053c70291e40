"""What the endpoints of models, configuration and health answer, for the documentation alone."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class ModelObject(TypedDict):
    """A model; what is not known is left out."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    status: str
    kind: NotRequired[str]
    capabilities: NotRequired[list[str]]
    aliases: list[str]
    context_length: NotRequired[int]
    dimensions: NotRequired[int]
    input_modalities: NotRequired[list[str]]
    quantization: NotRequired[str]
    size_bytes: NotRequired[int]
    memory_bytes: NotRequired[int]
    shared_bytes: NotRequired[int]
    stage: NotRequired[str]
    progress: NotRequired[float]
    load_seconds: NotRequired[float]
    pinned: NotRequired[bool]
    parked: NotRequired[bool]
    isolated: NotRequired[bool]
    restarts: NotRequired[int]
    last_death: NotRequired[str]
    warnings: NotRequired[list[str]]
    default: NotRequired[bool]
    error: NotRequired[str]


class ModelList(TypedDict):
    """All models, in the order of the configuration."""

    object: Literal["list"]
    data: list[ModelObject]


class ModelState(TypedDict):
    """Where a model is."""

    model_id: str
    status: str
    error: NotRequired[str]


class Evicted(TypedDict):
    """A model that would have to go."""

    model_id: str
    bytes: int
    reason: str


class LoadPlan(TypedDict):
    """What a load would do."""

    model_id: str
    outcome: str
    needed_bytes: int
    free_bytes: int
    budget_bytes: int
    evicts: list[Evicted]
    load_seconds: float


class ChangedModel(TypedDict):
    """What changed of a model, and how it took effect."""

    keys: list[str]
    how: str
    error: str | None


class ReloadedConfig(TypedDict):
    """What a new configuration changed, or would change."""

    applied: bool
    added: list[str]
    removed: list[str]
    changed: dict[str, ChangedModel]
    retuned: list[str]
    memory: list[str]
    needs_restart: list[str]


class ModelHealth(TypedDict):
    """Whether a model would begin a request at once; without a key that may read, that alone."""

    model: NotRequired[str]
    status: Literal["ok", "unavailable"]
    reason: NotRequired[str]


class Readiness(TypedDict):
    """Whether every model can serve, and why not; without a key that may read, the first alone."""

    status: Literal["ok", "failed"]
    failed: NotRequired[dict[str, str]]

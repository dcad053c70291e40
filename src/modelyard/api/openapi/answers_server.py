"""Schemas of the answers of the endpoints for models, configuration and health, for the documentation."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class RemoteAddress(TypedDict):
    """A server that has a model; unknown fields are left out."""

    status: Literal["up", "down"]
    running: int
    address: NotRequired[str]
    error: NotRequired[str]
    retry_in_seconds: NotRequired[float]


class NodeModel(TypedDict):
    """A model on one node of a cluster."""

    status: Literal["loaded", "unloaded", "reloading"]
    running: int
    waiting: int
    resident_bytes: int
    error: NotRequired[str]


class NodeMemory(TypedDict):
    """The memory of all models of a node together."""

    budget_bytes: int
    used_bytes: int
    free_bytes: int


class NodeObject(TypedDict):
    """A node of a cluster."""

    id: str
    object: Literal["node"]
    status: Literal["up", "draining", "silent"]
    memory: NodeMemory
    models: dict[str, NodeModel]


class NodeList(TypedDict):
    """The nodes of a cluster; none where one machine serves."""

    object: Literal["list"]
    data: list[NodeObject]


class AdapterObject(TypedDict):
    """A LoRA adapter of a model; ``id`` is that of the model with it."""

    id: str
    name: str
    scale: float
    applied_scale: NotRequired[float]
    size_bytes: NotRequired[int]


class ModelObject(TypedDict):
    """A model; unknown fields are left out."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    status: str
    kind: NotRequired[str]
    capabilities: NotRequired[list[str]]
    aliases: list[str]
    context_length: NotRequired[int]
    context_reason: NotRequired[str]
    context_allocated: NotRequired[int]
    dimensions: NotRequired[int]
    input_modalities: NotRequired[list[str]]
    quantization: NotRequired[str]
    size_bytes: NotRequired[int]
    resident_bytes: int
    predicted_bytes: NotRequired[int]
    memory_bytes: NotRequired[int]
    shared_bytes: NotRequired[int]
    device_bytes: NotRequired[dict[str, int]]
    placement: NotRequired[str]
    stage: NotRequired[str]
    progress: NotRequired[float]
    load_seconds: NotRequired[float]
    pinned: NotRequired[bool]
    retuned: NotRequired[bool]
    parked: NotRequired[bool]
    isolated: NotRequired[bool]
    restarts: NotRequired[int]
    last_death: NotRequired[str]
    warnings: NotRequired[list[str]]
    default: NotRequired[bool]
    adapters: NotRequired[list[AdapterObject]]
    root: NotRequired[str]
    parent: NotRequired[str]
    scale: NotRequired[float]
    remote: NotRequired[list[RemoteAddress]]
    nodes: NotRequired[dict[str, NodeModel]]
    tools_available: NotRequired[bool]
    mcp_tools_count: NotRequired[int]
    mcp_servers_connected: NotRequired[int]
    error: NotRequired[str]


class RunningModel(ModelObject):
    """A model, and what it does at the moment; unknown fields are left out."""

    state: str
    running: int
    waiting: int
    priority: int
    resident_bytes: int
    idle_seconds: NotRequired[float]
    unloads_after_seconds: NotRequired[float]
    unloads_in_seconds: NotRequired[float]
    device: NotRequired[Literal["cpu"]]
    source: NotRequired[str]


class DeviceMemory(TypedDict):
    """The memory of a device."""

    budget_bytes: int
    used_bytes: int
    free_bytes: int
    description: NotRequired[str]


class YardMemory(TypedDict):
    """The memory of all models together."""

    budget_bytes: int
    used_bytes: int
    free_bytes: int
    kept_bytes: int
    devices: NotRequired[dict[str, DeviceMemory]]


class CallerObject(TypedDict):
    """Who asks, and what it may do."""

    name: str | None
    scopes: list[Literal["inference", "read", "admin"]]
    models: list[str] | None


class ServerObject(TypedDict):
    """The server and its models."""

    object: Literal["server"]
    version: str
    created: int | None
    memory: YardMemory | None
    caller: CallerObject
    models: list[RunningModel]


class DoctorFinding(TypedDict):
    """The outcome of a check."""

    name: str
    label: str
    value: str
    verdict: Literal["ok", "note", "problem"]
    advice: str
    facts: dict[str, Any]
    command: str


class DoctorReport(TypedDict):
    """What was found about the machine, the installation and the configuration of a running server."""

    object: Literal["doctor"]
    as_of: float
    usable: bool
    findings: list[DoctorFinding]


class LogLine(TypedDict):
    """A line of the log."""

    id: str
    time: str
    level: str
    logger: str
    message: str


class LogLines(TypedDict):
    """The last lines of the log, the oldest first."""

    object: Literal["list"]
    data: list[LogLine]


class ModelList(TypedDict):
    """All models, in the order of the configuration."""

    object: Literal["list"]
    data: list[ModelObject]


class ModelStatusAnswer(TypedDict):
    """The state of a model."""

    model_id: str
    status: str
    error: NotRequired[str]
    resident_bytes: NotRequired[int]
    predicted_bytes: NotRequired[int]
    nodes: NotRequired[dict[str, NodeModel]]


class RetunedModel(ModelStatusAnswer):
    """The state of a model, and how it is treated."""

    pinned: bool
    priority: int


class Evicted(TypedDict):
    """A model that the load would evict."""

    model_id: str
    bytes: int
    reason: str
    device_bytes: NotRequired[dict[str, int]]


class DevicePlan(TypedDict):
    """What a load needs of a device."""

    needed_bytes: int
    free_bytes: int
    budget_bytes: int


class LoadPlan(TypedDict):
    """What a load would do."""

    model_id: str
    node: NotRequired[str]
    outcome: str
    needed_bytes: int
    free_bytes: int
    budget_bytes: int
    devices: NotRequired[dict[str, DevicePlan]]
    placement: NotRequired[str]
    tokens_per_second: NotRequired[float]
    evicts: list[Evicted]
    load_seconds: float


class ChangedModel(TypedDict):
    """The changed keys of a model, and how they took effect."""

    keys: list[str]
    how: str
    error: str | None


class ReloadedConfig(TypedDict):
    """The changes of a new configuration."""

    applied: bool
    added: list[str]
    removed: list[str]
    changed: dict[str, ChangedModel]
    retuned: list[str]
    memory: list[str]
    mcp: list[str]
    needs_restart: list[str]


class ModelHealth(TypedDict):
    """Whether a model would start a request at once. Without a key with the scope `read`, only `status`."""

    model: NotRequired[str]
    status: Literal["ok", "unavailable"]
    reason: NotRequired[str]


class Readiness(TypedDict):
    """Whether every model can serve, and why not. Without a key with the scope `read`, only `status`."""

    status: Literal["ok", "failed"]
    failed: NotRequired[dict[str, str]]

"""GET /v1/models, /{id} and /events below it; POST /v1/models/unload, /reload, /prepare, /retune, /status and /plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.agent.agent import Agent
from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.openapi.answers_server import AdapterObject, NodeModel, RemoteAddress
from modelyard.api.services import Services
from modelyard.api.serving.event_stream import EventStream
from modelyard.api.serving.ignored_fields import report_ignored
from modelyard.config.adapter import SEPARATOR
from modelyard.config.key_rules import MAX_PRIORITY
from modelyard.remote.engine import AddressStatus
from modelyard.yard.requests.context import current_caller
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.stats.nodes import ModelOnNode
from modelyard.yard.stats.status import STATUS, AdapterStatus, Eviction, ModelStatus, Plan
from modelyard.yard.stats.status_broadcaster import StatusChange
from modelyard.yard.yard import Yard

MAX_NODE_LENGTH: Final = 256


class ModelName(BaseModel):
    """The body of requests that name a model."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    model_id: str = Field(min_length=1, max_length=MAX_NAME_LENGTH, description="Id or alias of a model.")


class OnNode(ModelName):
    """The body of requests about a model, which is on one node of a cluster or on several."""

    node: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_NODE_LENGTH,
        description="On a cluster: name of the node that is meant, as `GET /v1/nodes` has it. Unset: every node that "
        "has the model; for a load, its plan and its files, the node where a load costs least.",
    )


class Unload(OnNode):
    """The body of ``POST /v1/models/unload``."""

    mode: Annotated[UnloadMode, Field(strict=False)] = Field(
        default=UnloadMode.DRAIN,
        description="What happens to running requests: `drain` waits for them, `suspend` pauses them until the model "
        "is loaded again, `force` ends them with an error. `park` waits like `drain` and keeps the weights in memory, "
        "so that the next load takes a fraction of the time.",
    )


class Retune(ModelName):
    """The body of ``POST /v1/models/retune``."""

    pinned: bool | None = Field(
        default=None, description="Whether the model is never unloaded to make room for others, nor when it is idle."
    )
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = Field(
        default=None, description="Priority of requests that name none, from -100 to 100. Those that wait keep theirs."
    )


def model_object(model: ModelStatus) -> dict[str, Any]:
    """Return a model in OpenAI's shape, with mistral.rs's fields and more; unknown fields are left out."""
    fields = {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "remote" if model.is_remote else "local",
        "status": model.status,
        "kind": model.kind,
        "capabilities": capabilities(model),
        "aliases": list(model.aliases),
        "context_length": model.context_length,
        "context_reason": model.context_reason or None,
        "context_allocated": model.context_allocated,
        "dimensions": model.dimensions,
        "input_modalities": input_modalities(model) if model.can_see or model.can_hear else None,
        "quantization": model.quantization,
        "size_bytes": model.size_bytes,
        **memory_fields(model),
        # The name of earlier versions for what a model holds.
        "memory_bytes": model.resident_bytes or None,
        "shared_bytes": model.shared_bytes or None,
        "device_bytes": dict(model.device_bytes) or None,
        "placement": model.placement or None,
        "stage": None if model.progress is None else model.progress.step,
        "progress": None if model.progress is None else round(model.progress.fraction, 4),
        "load_seconds": None if model.load_s is None else round(model.load_s, 3),
        "pinned": model.is_pinned or None,
        "retuned": model.is_retuned or None,
        "parked": model.is_parked or None,
        "isolated": model.is_isolated or None,
        "restarts": model.restarts or None,
        "last_death": model.last_death,
        "default": model.is_default or None,
        "adapters": [adapter_fields(adapter) for adapter in model.adapters] or None,
        "remote": [remote_address(address) for address in model.addresses] or None,
        "nodes": None if model.nodes is None else node_models(model.nodes),
        "warnings": list(model.warnings) or None,
        "error": model.reason,
    }
    return {key: value for key, value in fields.items() if value is not None}


def adapter_fields(adapter: AdapterStatus) -> AdapterObject:
    """Return an adapter as its model shows it."""
    described: AdapterObject = {"id": adapter.id, "name": adapter.name, "scale": adapter.scale}
    if adapter.applied_scale:
        described["applied_scale"] = adapter.applied_scale
    if adapter.size_bytes is not None:
        described["size_bytes"] = adapter.size_bytes
    return described


def adapter_model(model: ModelStatus, adapter: AdapterStatus) -> dict[str, Any]:
    """Return a model with one of its adapters as a model of its own, with vLLM's and mistral.rs's fields."""
    fields = {
        "id": adapter.id,
        "object": "model",
        "created": model.created,
        "owned_by": "local",
        "status": model.status,
        "kind": model.kind,
        "capabilities": capabilities(model),
        "aliases": [] if adapter.alias is None else [adapter.alias],
        "context_length": model.context_length,
        "root": adapter.name,
        "parent": model.id,
        "scale": adapter.scale,
    }
    return {key: value for key, value in fields.items() if value is not None}


def node_models(nodes: Mapping[str, ModelOnNode]) -> dict[str, NodeModel]:
    """Return a model on each of the nodes that have it or had it."""
    return {name: node_model(model) for name, model in nodes.items()}


def node_model(model: ModelOnNode) -> NodeModel:
    """Return a model as it is on one node."""
    shown: NodeModel = {
        "status": STATUS[model.load_state],
        "running": model.running,
        "waiting": model.waiting,
        "resident_bytes": model.resident_bytes,
    }
    if model.failure:
        shown["error"] = current_caller().visible_reason(model.failure)
    return shown


def remote_address(address: AddressStatus) -> RemoteAddress:
    """Return what is known of a server that has a model. Its address is for callers with the scope ``admin``."""
    described: RemoteAddress = {"status": "up" if address.is_up else "down", "running": address.running}
    if current_caller().may("admin"):
        described["address"] = address.url
    if address.retry_in_s is not None:
        described["error"] = current_caller().visible_reason(address.problem)
        described["retry_in_seconds"] = round(address.retry_in_s, 1)
    return described


def tool_fields(agent: Agent, model: ModelStatus) -> dict[str, Any]:
    """Return mistral.rs's fields about the tools that a model may call for the caller; none without any.

    They count what is there: tools of MCP servers alone, and the servers that are connected.
    """
    if model.kind in ("embedding", "rerank") or model.can_chat is False:
        return {}
    summary = agent.summary(model.id, current_caller())
    if summary is None:
        return {}
    fields = {
        "tools_available": summary.tools > 0,
        "mcp_tools_count": summary.mcp_tools,
        "mcp_servers_connected": summary.mcp_servers,
    }
    return {name: value for name, value in fields.items() if value is not None}


def listed_model(services: Services, model: ModelStatus) -> dict[str, Any]:
    """Return a model as the list of models shows it to the caller."""
    return {**model_object(model), **tool_fields(services.agent, model)}


def model_list(services: Services) -> dict[str, Any]:
    """Return all models that the caller may see, in OpenAI's shape; behind each those with its adapters."""
    listed = []
    for model in services.yard.models():
        listed += [listed_model(services, model), *(adapter_model(model, adapter) for adapter in model.adapters)]
    return {"object": "list", "data": listed}


def named_model(services: Services, name: str) -> dict[str, Any]:
    """Return the model ``name``, an id or alias, which may be that of a model with an adapter.

    Raises:
        ModelNotFound: no model has that name.
    """
    model = services.yard.model(name)
    if name not in (model.id, *model.aliases):
        for adapter in model.adapters:
            if name in (adapter.id, adapter.alias) or name.rpartition(SEPARATOR)[2] == adapter.name:
                return adapter_model(model, adapter)
    return listed_model(services, model)


def known_status(yard: Yard, name: str, node: str | None = None) -> dict[str, Any]:
    """Return the status of the model ``name``, an id or alias, with the memory that it takes as far as it is known.

    Raises:
        ModelNotFound: no model has that name.
        NodeNotFound: no node of that name is connected.
    """
    model = yard.model(name, node)
    known = {field: size for field, size in memory_fields(model).items() if size is not None}
    return {**status_object(name, model), **known}


def input_modalities(model: ModelStatus) -> list[str]:
    """Return the known input modalities of a model, by the names of OpenAI and OpenRouter."""
    return ["text", *(["image"] if model.can_see else []), *(["audio"] if model.can_hear else [])]


def capabilities(model: ModelStatus) -> list[str] | None:
    """Return what a model can do: "embeddings", "rerank", "completion", "chat"; None: not known yet."""
    if model.kind is None:
        return None
    if model.kind == "embedding":
        return ["embeddings"]
    if model.kind == "rerank":
        return ["rerank"]
    return ["completion"] if model.can_chat is False else ["completion", "chat"]


def status_object(name: str, model: ModelStatus) -> dict[str, Any]:
    """Return mistral.rs's ModelStatusResponse: the requested ``name``, and the status of its model."""
    answer: dict[str, Any] = {"model_id": name, "status": model.status}
    if model.reason is not None:
        answer["error"] = model.reason
    if model.nodes is not None:
        answer["nodes"] = node_models(model.nodes)
    return answer


def memory_fields(model: ModelStatus) -> dict[str, int | None]:
    """Return the memory that a model takes now, and the memory that it takes when it is loaded; None: not known yet."""
    return {"resident_bytes": model.resident_bytes, "predicted_bytes": model.predicted_bytes}


def plan_object(plan: Plan) -> dict[str, Any]:
    """Return what a load of the model would do; fields about devices are left out on a machine without any."""
    fields = {
        "model_id": plan.model,
        "node": plan.node or None,
        "outcome": plan.outcome,
        "needed_bytes": plan.needed_bytes,
        "free_bytes": plan.free_bytes,
        "budget_bytes": plan.budget_bytes,
        "devices": {device: asdict(pool) for device, pool in plan.devices.items()} or None,
        "placement": plan.placement or None,
        "tokens_per_second": None if plan.tokens_per_s is None else round(plan.tokens_per_s, 1),
        "evicts": [_evicted(each) for each in plan.evicts],
        "load_seconds": round(plan.load_s, 3),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _evicted(eviction: Eviction) -> dict[str, Any]:
    evicted = {"model_id": eviction.model, "bytes": eviction.bytes, "reason": eviction.why}
    return {**evicted, "device_bytes": dict(eviction.device_bytes)} if eviction.device_bytes else evicted


def status_frame(model: ModelStatus) -> bytes:
    """Return the server-sent event of the present status of a model."""
    return b"event: status\ndata: " + orjson.dumps(status_object(model.id, model)) + b"\n\n"


def event_frame(change: StatusChange) -> bytes:
    """Return a server-sent event: ``progress`` for the progress of a load, ``status`` for a change of state."""
    fields = {
        "model_id": change.model,
        "status": "removed" if change.load_state is None else STATUS[change.load_state],
        "stage": change.step or (None if change.load_state is None else change.load_state.value),
        "progress": None if change.progress is None else round(change.progress, 4),
        "placement": change.placement or None,
        "error": change.reason,
        "restarts": change.restarts,
        "last_death": change.last_death,
    }
    name = b"status" if change.progress is None else b"progress"
    data = orjson.dumps({key: value for key, value in fields.items() if value is not None})
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


def model_event_stream(
    yard: Yard, status_frame: Callable[[ModelStatus], bytes], change_frame: Callable[[StatusChange], bytes]
) -> EventStream[StatusChange]:
    """Return a stream of the status of each model, then of every change.

    Args:
        yard: the models.
        status_frame, change_frame: return the event of a status, and of a change.
    """
    return EventStream(yard.monitor.observer, lambda: b"".join(map(status_frame, yard.models())), change_frame)


router = APIRouter()


# The path of one model also matches an empty id, so that the list answers this address, too.
@router.get("/v1/models/", include_in_schema=False)
@router.get("/v1/models")
async def list_models(http: HttpRequest) -> Response:
    """All models, loaded or not, in the order of the configuration."""
    return Response(orjson.dumps(model_list(Services.of(http))), media_type="application/json")


@router.get("/v1/models/events", response_model=None)
@needs("admin", all_models=True)
async def watch_models(http: HttpRequest) -> Response:
    """Changes of the status of all models, as server-sent events."""
    return model_event_stream(Services.of(http).yard, status_frame, event_frame)


# An id may hold slashes.
@router.get("/v1/models/{model_id:path}")
async def retrieve_model(model_id: str, http: HttpRequest) -> dict[str, Any]:
    """One model, by id or alias."""
    return named_model(Services.of(http), model_id)


@router.post("/v1/models/unload")
@needs("admin")
async def unload_model(body: Unload, http: HttpRequest) -> dict[str, Any]:
    """Free a model's memory. Idempotent."""
    report_ignored(http.scope, body)
    return status_object(body.model_id, await Services.of(http).yard.unload(body.model_id, body.mode, body.node))


@router.post("/v1/models/reload")
@needs("admin")
async def reload_model(body: OnNode, http: HttpRequest) -> dict[str, Any]:
    """Load a model. Idempotent."""
    report_ignored(http.scope, body)
    return status_object(body.model_id, await Services.of(http).yard.reload(body.model_id, body.node))


@router.post("/v1/models/prepare")
@needs("admin")
async def prepare_model(body: OnNode, http: HttpRequest) -> dict[str, Any]:
    """Download and convert the files of a model, as far as they are missing, without loading it. Idempotent."""
    report_ignored(http.scope, body)
    return status_object(body.model_id, await Services.of(http).yard.prepare(body.model_id, body.node))


@router.post("/v1/models/retune")
@needs("admin")
async def retune_model(body: Retune, http: HttpRequest) -> dict[str, Any]:
    """Pin a model, or change its priority, until the configuration is read again or the server restarts.

    What is left out stays as it is. The configuration file is not changed.
    """
    report_ignored(http.scope, body)
    model = Services.of(http).yard.retune(body.model_id, pinned=body.pinned, priority=body.priority)
    return {**status_object(body.model_id, model), "pinned": model.is_pinned, "priority": model.priority}


@router.post("/v1/models/status")
@needs("read")
async def model_status(body: OnNode, http: HttpRequest) -> dict[str, Any]:
    """The status of a model."""
    report_ignored(http.scope, body)
    return known_status(Services.of(http).yard, body.model_id, body.node)


@router.post("/v1/models/plan")
@needs("read")
async def plan_load(body: OnNode, http: HttpRequest) -> dict[str, Any]:
    """What a load of the model would do now. It changes nothing."""
    report_ignored(http.scope, body)
    return plan_object(await Services.of(http).yard.plan(body.model_id, body.node))

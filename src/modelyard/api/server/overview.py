"""GET /v1/server: the server, its memory, and what each model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.models import model_object
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.config import Model, Scope
from modelyard.protocol.placement import HOST_NAME
from modelyard.system import hardware
from modelyard.version import __version__
from modelyard.yard.requests.context import Caller, current_caller
from modelyard.yard.stats.device_memory import DeviceUse
from modelyard.yard.stats.nodes import NodeStatus
from modelyard.yard.stats.snapshot import MetricsSnapshot, ModelMetrics
from modelyard.yard.stats.status import ModelStatus


def server_object(
    models: list[tuple[ModelStatus, Model]],
    snapshot: MetricsSnapshot,
    caller: Caller,
    key: str | None,
    device_descriptions: Mapping[str, str],
) -> dict[str, Any]:
    """Return the description of the server.

    Args:
        models: the models that the caller may see.
        snapshot: the numbers of all models.
        caller: the caller. One that may see all models sees the memory that they take together, and one that may
            ``admin`` where models come from, which may be paths.
        key: name of its API key; None: it has none.
        device_descriptions: what devices are, such as the name of the product, by their names.
    """
    numbers = {each.model: each for each in snapshot.models}
    memory: dict[str, Any] = {
        "budget_bytes": snapshot.budget_bytes,
        "used_bytes": snapshot.used_bytes,
        "free_bytes": max(0, snapshot.budget_bytes - snapshot.used_bytes),
        "kept_bytes": snapshot.kept_bytes,
    }
    if snapshot.devices:
        memory["devices"] = {
            name: device_object(use, device_descriptions.get(name)) for name, use in snapshot.devices.items()
        }
    has_accelerator = hardware.has_accelerator()
    return {
        "object": "server",
        "version": __version__,
        "created": models[0][0].created if models else None,
        "memory": memory if caller.models is None else None,
        "caller": {
            "name": key,
            "scopes": [scope for scope in get_args(Scope) if caller.may(scope)],
            "models": None if caller.models is None else sorted(caller.models),
        },
        "models": [
            running_model(
                status,
                model,
                numbers.get(status.id),
                has_accelerator=has_accelerator,
                sees_sources=caller.may("admin"),
            )
            for status, model in models
        ],
    }


def _of_nodes(snapshot: MetricsSnapshot, nodes: Sequence[NodeStatus]) -> MetricsSnapshot:
    """Return ``snapshot`` with the memory of all nodes together."""
    budget_bytes, used_bytes = sum(node.budget_bytes for node in nodes), sum(node.used_bytes for node in nodes)
    return replace(snapshot, budget_bytes=budget_bytes, used_bytes=used_bytes, kept_bytes=0, devices={})


def device_object(use: DeviceUse, description: str | None) -> dict[str, int | str]:
    """Return the memory of a device that models may take, and that they take."""
    memory = {"budget_bytes": use.budget_bytes, "used_bytes": use.used_bytes, "free_bytes": use.free_bytes}
    return {**memory, "description": description} if description else {**memory}


def running_model(
    status: ModelStatus, model: Model, numbers: ModelMetrics | None, *, has_accelerator: bool, sees_sources: bool
) -> dict[str, Any]:
    """Return a model as ``GET /v1/models`` has it, with what it does at the moment; unknown fields are left out."""
    uses_cpu = model.device.cpu or not has_accelerator or status.placement == HOST_NAME
    fields: dict[str, Any] = {
        "state": status.load_state.value,
        **_requests(status, numbers),
        "priority": status.priority,
        "idle_seconds": None if status.idle_s is None else round(status.idle_s, 1),
        "unloads_after_seconds": status.unloads_after_s,
        "unloads_in_seconds": None if status.leaves_in_s is None else round(status.leaves_in_s, 1),
        # What is on which accelerator is said by the placement.
        "device": "cpu" if uses_cpu else None,
        "source": model.source if sees_sources else None,
    }
    return model_object(status) | {key: value for key, value in fields.items() if value is not None}


def _requests(status: ModelStatus, numbers: ModelMetrics | None) -> dict[str, int]:
    """Return the requests and the memory of a model: on a cluster as its nodes report them."""
    if status.nodes is not None:
        on_nodes = status.nodes.values()
        return {
            "running": sum(node.running for node in on_nodes),
            "waiting": sum(node.waiting for node in on_nodes),
            "resident_bytes": status.resident_bytes,
        }
    if numbers is None:
        return {"running": 0, "waiting": 0, "resident_bytes": 0}
    return {"running": numbers.running, "waiting": numbers.waiting, "resident_bytes": numbers.resident_bytes}


router = APIRouter()


@router.get("/v1/server")
@needs("read")
async def describe_server(http: HttpRequest) -> Response:
    """The server, its memory, and what each model does. Sources of models are for keys with the scope `admin`."""
    yard, caller = Services.of(http).yard, current_caller()
    configured = {model.id: model for model in yard.config.models}
    models = [(status, configured[status.id]) for status in yard.models()]
    key = RequestContext.of(http.scope).key
    name = None if key is None else key.name
    snapshot = yard.monitor.metrics()
    if yard.nodes is not None:
        # A front has no models in its own memory.
        snapshot = _of_nodes(snapshot, yard.nodes.status())
    found = server_object(models, snapshot, caller, name, yard.monitor.device_descriptions())
    return Response(orjson.dumps(found), media_type="application/json")

"""The nodes of a cluster over HTTP: what each has and does, and loads and unloads on one of them."""

from __future__ import annotations

from copy import copy
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi import Request as HttpRequest
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.middleware.authorization import authorize_route, needs
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.cluster.front_nodes import FrontNodes
from modelyard.cluster.node_report import ModelReport, NodeReport
from modelyard.yard.residency.waiting import UnloadMode

MAX_NODE_LENGTH: Final = 256


class OnNode(BaseModel):
    """The body of requests about a model on a node."""

    model_config = ConfigDict(strict=True, extra="forbid")

    node: str = Field(min_length=1, max_length=MAX_NODE_LENGTH, description="Name of a node, as GET /v1/nodes has it.")
    model_id: str = Field(min_length=1, max_length=MAX_NAME_LENGTH, description="Id of a model.")


router = APIRouter()


@router.get("/v1/nodes")
@needs("read", all_models=True)
async def list_nodes(http: HttpRequest) -> dict[str, Any]:
    """The nodes that are connected, as they last reported."""
    nodes: FrontNodes = http.app.state.nodes
    return {"object": "list", "data": [node_object(report) for report in nodes.reports]}


@router.post("/v1/nodes/unload")
@needs("admin", all_models=True)
async def unload_on_node(body: OnNode, http: HttpRequest) -> dict[str, str]:
    """Free a model on one node, after its requests there are done."""
    nodes: FrontNodes = http.app.state.nodes
    status = await nodes.ask(body.node, f"unload {UnloadMode.DRAIN.value}", body.model_id)
    return {"node": body.node, "model_id": body.model_id, "status": status}


@router.post("/v1/nodes/reload")
@needs("admin", all_models=True)
async def reload_on_node(body: OnNode, http: HttpRequest) -> dict[str, str]:
    """Load a model on one node; the answer follows when it is loaded."""
    nodes: FrontNodes = http.app.state.nodes
    status = await nodes.ask(body.node, "reload", body.model_id)
    return {"node": body.node, "model_id": body.model_id, "status": status}


def node_object(report: NodeReport) -> dict[str, Any]:
    """Return a node as it is shown."""
    return {
        "id": report.node,
        "object": "node",
        "status": "draining" if report.is_draining else "up",
        "memory": {"budget_bytes": report.budget_bytes, "used_bytes": report.used_bytes},
        "models": {name: _model_object(model) for name, model in report.models.items()},
    }


def _model_object(model: ModelReport) -> dict[str, Any]:
    status = "unloaded" if not model.is_resident else "reloading" if model.ready_s else "loaded"
    shown: dict[str, Any] = {"status": status, "running": model.running, "waiting": model.waiting}
    return {**shown, "reason": model.failure} if model.failure else shown


def add_nodes(app: FastAPI, nodes: FrontNodes) -> None:
    """Have an application answer about ``nodes``. Keys need the same scopes as for models."""
    app.state.nodes = nodes
    for route in router.routes:
        own = copy(route)
        authorize_route(own)
        # Before the paths of the page, which match all others.
        app.router.routes.insert(0, own)

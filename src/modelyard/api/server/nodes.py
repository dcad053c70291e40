"""GET /v1/nodes: the nodes of a cluster, what each has, and what it does."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.models import node_model
from modelyard.api.openapi.answers_server import NodeList, NodeObject
from modelyard.api.services import Services
from modelyard.yard.stats.nodes import NodeStatus

router = APIRouter()


@router.get("/v1/nodes", response_model=None)
@needs("read", all_models=True)
async def list_nodes(http: HttpRequest) -> NodeList:
    """The nodes of the cluster that are connected, as they last reported; none where one machine serves."""
    nodes = Services.of(http).yard.nodes
    return {"object": "list", "data": [] if nodes is None else [node_object(node) for node in nodes.status()]}


def node_object(node: NodeStatus) -> NodeObject:
    """Return a node as it is shown."""
    return {
        "id": node.name,
        "object": "node",
        "status": node.state,
        "memory": {
            "budget_bytes": node.budget_bytes,
            "used_bytes": node.used_bytes,
            "free_bytes": max(0, node.budget_bytes - node.used_bytes),
        },
        "models": {name: node_model(model) for name, model in node.models.items()},
    }

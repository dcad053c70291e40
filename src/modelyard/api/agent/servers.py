"""GET /v1/agent/servers: the MCP servers whose tools models call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from modelyard.api.middleware.authorization import needs
from modelyard.mcp.connection import ServerStatus
from modelyard.yard.requests.context import current_caller

router = APIRouter()


def server_object(status: ServerStatus) -> dict[str, Any]:
    """Return an MCP server as the list of them has it."""
    return {
        "name": status.name,
        "object": "agent.server",
        "transport": status.transport,
        "state": status.state,
        "reason": status.reason or None,
        "tools": status.tools,
        "software": status.title or None,
        "connect_seconds": status.connect_s,
        "retry_seconds": status.retry_s,
    }


@router.get("/v1/agent/servers", response_model=None)
@needs("read")
async def list_servers(http: HttpRequest) -> dict[str, Any]:
    """The MCP servers whose tools the caller may use: their states, and why one is not connected."""
    statuses: Callable[[], Sequence[ServerStatus]] = http.app.state.mcp_statuses
    permitted = current_caller().mcp_servers
    seen = [status for status in statuses() if permitted is None or status.name in permitted]
    return {"object": "list", "data": [server_object(status) for status in seen]}

"""Schemas of the answers of the endpoints about the server's tools, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class AgentTool(TypedDict):
    """A tool that the server runs."""

    name: str
    object: Literal["agent.tool"]
    server: str
    own_name: str
    description: str
    parameters: dict[str, Any]
    needs_approval: bool
    read_only: bool


class AgentToolList(TypedDict):
    """The tools that a model may call."""

    object: Literal["list"]
    data: list[AgentTool]


class AgentServer(TypedDict):
    """An MCP server of the configuration."""

    name: str
    object: Literal["agent.server"]
    transport: Literal["stdio", "http", "sse", "websocket"]
    state: Literal["connecting", "connected", "failed", "disabled"]
    reason: str | None
    tools: int
    software: str | None
    connect_seconds: float | None
    retry_seconds: float | None


class AgentServerList(TypedDict):
    """The MCP servers of the configuration."""

    object: Literal["list"]
    data: list[AgentServer]


class WaitingApproval(TypedDict):
    """A call of a tool that waits for its approval."""

    id: str
    object: Literal["agent.approval"]
    created_at: int
    expires_at: int
    model: str
    tool: str
    server: str
    arguments: str
    call_id: str
    round: int


class WaitingApprovalList(TypedDict):
    """The calls that wait, the oldest first."""

    object: Literal["list"]
    data: list[WaitingApproval]


class ResolvedApproval(TypedDict):
    """The decision counts."""

    status: Literal["resolved"]

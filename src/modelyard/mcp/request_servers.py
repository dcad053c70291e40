"""MCP servers that a request names: connections that last for one answer, to hosts that the operator allows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelyard.agent.tools import ServerTool
from modelyard.errors import InvalidRequest

if TYPE_CHECKING:
    from modelyard.config import Config


@dataclass(frozen=True, slots=True)
class RequestServer:
    """An MCP server that a request names.

    Attributes:
        label: as the request calls it; it is the ``server`` of its tools, and their prefix.
        url: http or https URL of its streamable HTTP endpoint.
        headers: sent with each of its requests. They are secrets.
        authorization: token that is sent as ``Authorization: Bearer``; None: none. A secret.
        allowed_tools: own names of the tools that the model may call; None: all.
    """

    label: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: str | None = field(default=None, repr=False)
    allowed_tools: frozenset[str] | None = None


@asynccontextmanager
async def connect_for_request(
    server: RequestServer, config: Config, *, taken: Collection[str] = (), param: str = "tools"
) -> AsyncIterator[tuple[ServerTool, ...]]:
    """Enter with the tools of a server that a request names, connected until the context is left.

    The context may be entered and left by different tasks. The tools have the server's hints and no approval: what a
    dialect asks for is set with ``dataclasses.replace(tool, needs_approval=…)``.

    Args:
        server: what the request names.
        config: in force; its ``[mcp] allow_request_servers`` lists the hosts that requests may name.
        taken: names of other tools of the request, which the tools' names avoid.
        param: the field of the request that names the server, for errors.

    Raises:
        InvalidRequest: the host is not allowed, has a private address, or the server cannot be used.
    """
    raise InvalidRequest(f"This server connects to no MCP servers that requests name: {server.label}.", param)
    yield ()

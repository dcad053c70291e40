"""The MCP servers that one HTTP request names: configured ones, and others that it connects to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final, Protocol

from starlette.requests import Request

from modelyard.agent.tools import ServerTool
from modelyard.api.serving.streaming import while_connected
from modelyard.config import Config
from modelyard.errors import InvalidRequest, PermissionDenied
from modelyard.mcp.request_servers import RequestServer, connect_for_request
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.context import current_caller

MAX_REQUEST_SERVERS: Final = 16
"""MCP servers that one request connects to."""


class NamedServer(Protocol):
    """An MCP server that a request names in its dialect."""

    @property
    def label(self) -> str:
        """Its name, which the tools of a configured server have as their ``server``."""

    @property
    def param(self) -> str:
        """The path of what names it in the body, for errors."""

    @property
    def request_server(self) -> RequestServer | None:
        """The server to connect to; None: it is a configured one."""

    def selected(self, tools: Sequence[ServerTool]) -> list[ServerTool]:
        """Return those of its ``tools`` that the model may call, with the approvals that they need."""


@dataclass(frozen=True, slots=True)
class ServedTools:
    """The tools of the server for one request.

    Attributes:
        tools: those that its model may call, with the approvals that they need.
        known: those that its conversation may have calls of.
    """

    tools: tuple[ServerTool, ...] = ()
    known: tuple[ServerTool, ...] = ()

    @property
    def names(self) -> dict[tuple[str, str], str]:
        """The names by which models call the tools, by the label of their server and their own name."""
        return {(tool.server, tool.own_name): tool.name for tool in (*self.known, *self.tools)}


def configured_tools(servers: Sequence[NamedServer], tools: Sequence[ServerTool]) -> list[ServerTool]:
    """Return the tools of the configured servers among ``servers``; where a request names no servers, all.

    Args:
        servers: those that the request names.
        tools: those of all configured servers that the model may call.

    Raises:
        InvalidRequest: no server of that name has tools for the model.
    """
    if not servers:
        return list(tools)
    selected: list[ServerTool] = []
    for server in servers:
        if server.request_server is not None:
            continue
        own = [tool for tool in tools if tool.server == server.label]
        if not own:
            known = ", ".join(dict.fromkeys(tool.server for tool in tools)) or "none"
            raise InvalidRequest(
                f"'{server.param}': No MCP server '{server.label}' has tools for this model; these have: {known}. Name "
                "one of them, or give the URL of the server.",
                server.param,
            )
        selected += server.selected(own)
    return selected


async def connected_tools(
    servers: Sequence[NamedServer],
    http: Request,
    config: Config,
    connections: AsyncExitStack,
    taken: Collection[str],
) -> list[ServerTool]:
    """Connect to the servers that a request names by URL, until ``connections`` is closed, and return their tools.

    Args:
        servers: those that the request names.
        http: the request; nothing is connected any more once its client has left.
        config: in force.
        connections: gets the connections.
        taken: names of other tools of the request, which the names of these tools avoid.

    Raises:
        InvalidRequest: there are too many, or one is not allowed or cannot be used.
        PermissionDenied: the key is limited to MCP servers of the configuration.
    """
    named = [(server, at) for server in servers if (at := server.request_server) is not None]
    if not named:
        return []
    if current_caller().mcp_servers is not None:
        raise PermissionDenied(
            "This API key may use configured MCP servers only, so its requests cannot name others. Leave them out, or "
            "use a key without 'mcp'."
        )
    if len(named) > MAX_REQUEST_SERVERS:
        raise InvalidRequest(
            f"The request names {len(named)} MCP servers; {MAX_REQUEST_SERVERS} are the most that one connects to. "
            "Leave some out.",
            named[-1][0].param,
        )
    connected: list[list[ServerTool]] = []

    async def connect() -> None:
        names = set(taken)
        for server, at in named:
            connection = connect_for_request(at, config, taken=names, param=server.param)
            own = server.selected(await connections.enter_async_context(connection))
            connected.append(own)
            names.update(tool.name for tool in own)

    await while_connected(http.receive, connect())
    if len(connected) < len(named):
        raise InvalidRequest("The client left before its MCP servers were connected.")
    return [tool for tools in connected for tool in tools]


def with_definitions(chat: Chat, tools: Sequence[ServerTool]) -> Chat:
    """Return ``chat`` with the tools of the server, as an agent's request has them, to count its tokens."""
    own = {tool["function"]["name"] for tool in chat.tools}
    added = () if chat.tool_choice == "none" else (tool.definition for tool in tools if tool.name not in own)
    return replace(chat, tools=(*added, *chat.tools))

"""The MCP servers that one HTTP request names: configured ones, and others that it connects to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Final

from starlette.requests import Request

from modelyard.agent.agent import Agent
from modelyard.agent.tools import ServerTool
from modelyard.api.serving.server_tools import known_tools, wants_tools
from modelyard.api.serving.streaming import while_connected
from modelyard.config import Config
from modelyard.errors import InvalidRequest, PermissionDenied
from modelyard.mcp.request_servers import RequestServer, connect_for_request
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.context import current_caller
from modelyard.yard.yard import Yard

MAX_REQUEST_SERVERS: Final = 16
"""MCP servers that one request connects to."""


ToolNames = Mapping[tuple[str, str], str]
"""Names by which models call tools, by the label of the MCP server that has the tool, and the tool's own name."""


@dataclass(frozen=True, slots=True)
class NamedServer:
    """An MCP server that a request names.

    Attributes:
        label: its name, which its tools have as their ``server``.
        param: the path of what names it in the body, for errors.
        connects_to: where it is; None: it is a server of the configuration.
        selected: returns those of its tools that the model may call, with the approvals that they need.
    """

    label: str
    param: str
    connects_to: RequestServer | None
    selected: Callable[[Sequence[ServerTool]], list[ServerTool]] = field(repr=False)


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
    def names(self) -> ToolNames:
        """The names by which models call the tools."""
        return {(tool.server, tool.own_name): tool.name for tool in (*self.known, *self.tools)}


async def served_tools(
    http: Request,
    yard: Yard,
    agent: Agent,
    model: str | None,
    servers: Sequence[NamedServer],
    connections: AsyncExitStack | None = None,
    own: Collection[str] = (),
) -> ServedTools:
    """Return the tools that this server runs for a request.

    Args:
        http: the request.
        yard: the models.
        agent: the tools of configured servers.
        model: as the request names it.
        servers: those that the request names.
        connections: gets the connections to servers that the request names by URL; None: nothing is connected.
        own: names of the client's tools.

    Raises:
        InvalidRequest: a server is not known, not allowed, or cannot be used.
        PermissionDenied: the key is limited to MCP servers of the configuration.
        ModelNotFound, ModelRequired: there is no such model.
    """
    known = known_tools(yard, agent, model)
    if not wants_tools(http):
        return ServedTools((), known)
    tools = configured_tools(servers, known)
    if connections is not None:
        taken = {*own, *(tool.name for tool in tools)}
        tools += await connected_tools(servers, http, yard.config, connections, taken)
    return ServedTools(tuple(tools), known)


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
        if server.connects_to is not None:
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
    named = [(server, at) for server in servers if (at := server.connects_to) is not None]
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

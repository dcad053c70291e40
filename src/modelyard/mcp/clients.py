"""The clients of all MCP servers of a configuration, and the tools that models may call there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from modelyard.agent.tools import ReportProgress, ServerTool, ToolFunction, ToolResult
from modelyard.config import Config, Mcp, McpServer
from modelyard.mcp.connection import Connection, ServerStatus
from modelyard.mcp.limits import CallLimits
from modelyard.mcp.naming import ToolKey, tool_names
from modelyard.mcp.results import failed
from modelyard.mcp.session import ListedTool
from modelyard.yard.requests.context import Caller

READ_RESOURCE: Final = "read_resource"
"""Own name of the tool with which models read the resources that the configuration lists."""


class McpClients:
    """The clients of the MCP servers of a configuration; a source of tools. Use it on one event loop.

    Args:
        config: the configuration. Servers are connected after ``start``.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connections: dict[str, Connection] = {}
        self._places = asyncio.Semaphore(config.mcp.max_concurrent_calls)
        self._tools: tuple[ServerTool, ...] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._is_running = False
        for server in config.mcp.servers:
            self._connections[server.name] = self._connection(config.mcp, server)

    def start(self) -> None:
        """Begin to connect the servers, and return at once. Idempotent."""
        self._is_running = True
        for connection in self._connections.values():
            connection.start()

    async def aclose(self) -> None:
        """Close all connections, and end the servers' programs. Bounded, and idempotent."""
        self._is_running = False
        await asyncio.gather(*(connection.aclose() for connection in self._connections.values()))
        if self._closing:
            await asyncio.wait(self._closing)

    async def wait_settled(self) -> None:
        """Return when the first attempt to connect each server has succeeded or failed."""
        await asyncio.gather(*(connection.wait_settled() for connection in self._connections.values()))

    def statuses(self) -> tuple[ServerStatus, ...]:
        """Return the states of all servers, in the order of the configuration."""
        return tuple(self._connections[server.name].status() for server in self._config.mcp.servers)

    def reconfigure(self, config: Config) -> None:
        """Follow another configuration. Servers whose settings, and bounds, did not change keep their connections."""
        old, self._config = self._config.mcp, config
        self._tools = None
        mcp = config.mcp
        if mcp.max_concurrent_calls != old.max_concurrent_calls:
            self._places = asyncio.Semaphore(mcp.max_concurrent_calls)
        keep_all = _bounds(mcp) == _bounds(old)
        before, self._connections = self._connections, {}
        for server in mcp.servers:
            known = before.get(server.name)
            if known is not None and keep_all and known.server == server:
                self._connections[server.name] = before.pop(server.name)
                continue
            self._connections[server.name] = self._connection(mcp, server)
            if self._is_running:
                self._connections[server.name].start()
        for connection in before.values():
            task = asyncio.get_running_loop().create_task(connection.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def tools(self, model: str, caller: Caller) -> Sequence[ServerTool]:
        """Return the tools that ``model``, by id, may call for ``caller``: those of the servers that both may use."""
        if not self._connections:
            return ()
        permitted = self._permitted(model, caller)
        return [tool for tool in self.all_tools() if tool.server in permitted]

    def connected_servers(self, model: str, caller: Caller) -> int | None:
        """Return how many servers are connected that ``model`` may use for ``caller``; None where there are none."""
        permitted = self._permitted(model, caller)
        if not permitted:
            return None
        return sum(self._connections[name].is_connected for name in permitted)

    def _permitted(self, model: str, caller: Caller) -> frozenset[str]:
        """Return the names of the servers that ``model`` may use for ``caller``."""
        named = next((entry.mcp for entry in self._config.models if entry.id == model), ())
        names = frozenset(self._connections if named is None else named) & self._connections.keys()
        return names if caller.mcp_servers is None else names & caller.mcp_servers

    def all_tools(self) -> tuple[ServerTool, ...]:
        """Return the tools of all servers that are connected. Their list is made when it has changed."""
        if self._tools is None:
            offered = [
                (connection.server, tool, run)
                for connection in self._connections.values()
                for tool, run in _offered(connection)
            ]
            names = tool_names([ToolKey(server.name, server.prefix, tool.own_name) for server, tool, _ in offered])
            self._tools = tuple(
                tool.offered_as(name, server.name, run, needs_approval=server.needs_approval(tool.own_name))
                for name, (server, tool, run) in zip(names, offered, strict=True)
            )
        return self._tools

    def next_change(self) -> Coroutine[Any, Any, object]:
        """Return what ends when the tools, or the state, of a server change after this call."""
        return self._changed.wait()

    def _on_change(self) -> None:
        self._tools = None
        self._changed.set()
        self._changed = asyncio.Event()

    def _connection(self, mcp: Mcp, server: McpServer) -> Connection:
        own = server.max_concurrent_calls
        limits = CallLimits(
            server.timeout or mcp.tool_timeout,
            mcp.max_result,
            self._places,
            None if own is None else asyncio.Semaphore(own),
        )
        return Connection(server, limits, self._on_change)


def _bounds(mcp: Mcp) -> tuple[object, ...]:
    """Return what all connections depend on, beside their own settings."""
    return mcp.tool_timeout, mcp.max_concurrent_calls, mcp.max_result


def _offered(connection: Connection) -> Iterator[tuple[ListedTool, ToolFunction]]:
    """Yield the tools of a server, and the one that reads its listed resources, with what runs them."""
    for tool in connection.tools:
        yield tool, partial(connection.call, tool.own_name)
    resources = connection.server.resources
    has_own = any(tool.own_name == READ_RESOURCE for tool in connection.tools)
    if resources and connection.is_connected and not has_own:
        uri = {"type": "string", "enum": list(resources), "description": "URI of the resource."}
        parameters = {"type": "object", "properties": {"uri": uri}, "required": ["uri"]}
        yield ListedTool(READ_RESOURCE, "Read a resource.", parameters, is_read_only=True), partial(_read, connection)


async def _read(connection: Connection, arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
    uri, resources = arguments.get("uri"), connection.server.resources
    if uri not in resources:
        return failed(f"There is no such resource. There are: {', '.join(resources)}.")
    return await connection.read_resource(str(uri))

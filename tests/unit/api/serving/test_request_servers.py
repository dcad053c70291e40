"""MCP servers that one request names: which tools it gets, and connections that end with its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from modelyard.agent.agent import Agent
from modelyard.agent.tools import ServerTool
from modelyard.api.serving import request_servers
from modelyard.api.serving.request_servers import NamedServer, ServedTools, connected_tools, served_tools
from modelyard.config import Config
from modelyard.errors import InvalidRequest, PermissionDenied
from modelyard.mcp.request_servers import RequestServer
from modelyard.yard.requests.context import CALLER, Caller
from support.scripted_tools import add, server_tool

CONFIG = cast("Config", None)


class Connections:
    """Connections to servers of one tool, without a server.

    Attributes:
        is_hanging: whether connecting takes for ever.
        begun: set when the first connection is begun.
        taken: the names that each connection was told to avoid.
        open: how many are open, or being opened.
    """

    def __init__(self) -> None:
        self.is_hanging = False
        self.begun = asyncio.Event()
        self.taken: list[set[str]] = []
        self.open = 0

    @asynccontextmanager
    async def connect(
        self, server: RequestServer, _config: Config, *, taken: Collection[str], param: str
    ) -> AsyncIterator[tuple[ServerTool, ...]]:
        self.taken.append(set(taken))
        self.open += 1
        self.begun.set()
        try:
            if self.is_hanging:
                await asyncio.Event().wait()
            yield (server_tool("add", add, server=server.label),)
        finally:
            self.open -= 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    connections = Connections()
    monkeypatch.setattr(request_servers, "connect_for_request", connections.connect)
    return connections


@pytest.fixture
def caller() -> Iterator[Caller]:
    caller = Caller()
    token = CALLER.set(caller)
    yield caller
    CALLER.reset(token)


def request(disconnects: asyncio.Event | None = None, tools: bytes = b"on") -> Request:
    """A request whose client leaves when ``disconnects`` is set; ``tools`` is its header X-Tools."""

    async def receive() -> Any:
        await (disconnects or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": [(b"x-tools", tools)]}, receive)


def named(*names: str) -> list[NamedServer]:
    return [
        NamedServer(name, f"mcp_servers[{index}]", RequestServer(name, "https://mcp.example"), list)
        for index, name in enumerate(names)
    ]


async def test_each_server_avoids_the_names_before_it(connections: Connections) -> None:
    async with AsyncExitStack() as stack:
        tools = await connected_tools(named("a", "b"), request(), CONFIG, stack, {"f"})
        assert [tool.name for tool in tools] == ["a_add", "b_add"]
        assert connections.taken == [{"f"}, {"f", "a_add"}]
        assert connections.open == 2
    assert connections.open == 0


async def test_nothing_is_connected_for_a_model_that_may_call_nothing(connections: Connections) -> None:
    yard: Any = SimpleNamespace(config=CONFIG)
    async with AsyncExitStack() as stack:
        served = await served_tools(request(), yard, Agent(), "m", named("a"), stack, {"f"})
        assert ([tool.name for tool in served.tools], connections.taken) == (["a_add"], [{"f"}])
        off = request(tools=b"off")
        assert await served_tools(off, yard, Agent(), "m", named("a"), stack) == ServedTools()
        assert await served_tools(request(), yard, Agent(), "m", named("a")) == ServedTools()
        assert connections.open == 1


async def test_a_client_that_leaves_ends_connecting(connections: Connections) -> None:
    connections.is_hanging = True
    left = asyncio.Event()

    async def leave() -> None:
        await connections.begun.wait()
        left.set()

    async with AsyncExitStack() as stack, asyncio.timeout(20):
        leaving = asyncio.create_task(leave())
        with pytest.raises(InvalidRequest, match="left before"):
            await connected_tools(named("a"), request(left), CONFIG, stack, ())
        await leaving
    assert connections.open == 0


async def test_a_key_that_is_limited_to_servers_names_none_by_url(connections: Connections, caller: Caller) -> None:
    caller.mcp_servers = frozenset({"files"})
    async with AsyncExitStack() as stack:
        assert await connected_tools([], request(), CONFIG, stack, ()) == []
        with pytest.raises(PermissionDenied, match="configured MCP servers only"):
            await connected_tools(named("a"), request(), CONFIG, stack, ())
    assert not connections.taken

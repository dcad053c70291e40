"""A front and nodes of a cluster in one process, over TCP as between machines, without Ray.

async with cluster(config, nodes=2) as stage:
    ...  await stage.text("Hi")
    await stage.nodes[0].close()     # the node is lost
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from modelyard.api.app import close_app, create_app
from modelyard.cluster.front_models import ClusterModels, front_config, node_config
from modelyard.cluster.front_nodes import FrontNodes
from modelyard.cluster.node_server import NodeServer
from modelyard.config import Config
from modelyard.inprocess.http_server.server import HttpServer
from modelyard.inprocess.listen import listen
from modelyard.protocol.prompts import Text
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

SECRET = "a secret of this test"
WAIT_S, LOOK_S = 60.0, 0.02


@dataclass
class Stage:
    """The front's yard, and the nodes with theirs."""

    front: Yard
    front_nodes: FrontNodes
    nodes: list[NodeServer] = field(default_factory=list)
    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)

    async def text(self, prompt: str = "Hi", **fields: Any) -> str:
        """Return the answer to a prompt."""
        async with asyncio.timeout(WAIT_S), self.front.generate(Request(Text(prompt), **fields)) as stream:
            return await stream.text()


@asynccontextmanager
async def over_http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Return a context with a client of the front, which serves HTTP on a port of this machine."""
    app, config = create_app(stage.front), stage.front.config
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = HttpServer(app, listener, config.server, models=len(config.models), drain_s=5)
    async with asyncio.timeout(WAIT_S):
        await server.start()
    try:
        async with httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
            yield client
    finally:
        server.ask_to_stop()
        stage.front.monitor.dismiss_observers()
        await server.serving
        await close_app(app)


async def until(is_reached: Callable[[], bool]) -> None:
    """Wait until something is so, which the next report may bring."""
    for _ in range(round(WAIT_S / LOOK_S)):
        if is_reached():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"it was not so within {WAIT_S:.0f} s")


@asynccontextmanager
async def cluster(
    config: Config,
    nodes: int,
    make_yard: Callable[[Config, int], Yard] = lambda config, _: Yard(config),
    *,
    connected: bool = True,
    on_waiting: Callable[[bool], None] = lambda _: None,
) -> AsyncIterator[Stage]:
    """Return a context with a front and so many nodes, named n0, n1 and so on, which it is connected to."""
    front_nodes = FrontNodes(SECRET, on_waiting=on_waiting)
    stage = Stage(Yard(front_config(config), remotes=ClusterModels(front_nodes)), front_nodes)
    try:
        await stage.front.start()
        for number in range(nodes):
            node = NodeServer(make_yard(node_config(config), number), f"n{number}", SECRET)
            await node.yard.start()
            stage.addresses[node.name] = "127.0.0.1", await node.start("127.0.0.1")
            stage.nodes.append(node)
        if connected:
            front_nodes.follow(stage.addresses)
            assert await front_nodes.until_connected(nodes, WAIT_S)
        yield stage
    finally:
        await stage.front.close()
        await front_nodes.close()
        for node in stage.nodes:
            await node.close()
            await node.yard.close()

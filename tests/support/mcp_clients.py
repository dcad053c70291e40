"""Clients of MCP servers in tests: configurations, and how a test waits for what it asserts."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

from modelyard.config import validate_config
from modelyard.mcp.clients import McpClients
from modelyard.yard.requests.context import Caller

PEERS = Path(__file__).parent / "mcp_peers"
MODEL = "org/model"
WAIT_S = 30.0


def raw_server(*oddities, name="raw", **keys):
    """The table of the raw peer, on standard input and output."""
    return {"name": name, "command": sys.executable, "args": [str(PEERS / "raw_peer.py"), *oddities], **keys}


def mcp_config(*servers, models=None, **mcp):
    return validate_config({"models": models or [{"model_id": MODEL}], "mcp": {**mcp, "servers": list(servers)}})


@asynccontextmanager
async def connected(*servers, models=None, **mcp):
    """Enter with the clients of servers, each of which has been tried."""
    clients = McpClients(mcp_config(*servers, models=models, **mcp))
    clients.start()
    try:
        async with asyncio.timeout(WAIT_S):
            await clients.wait_settled()
        yield clients
    finally:
        await clients.aclose()


def tools_of(clients, model=MODEL, servers=None):
    """The tools that a model may call, by their own names."""
    caller = Caller()
    caller.mcp_servers = None if servers is None else frozenset(servers)
    return {tool.own_name: tool for tool in clients.tools(model, caller)}


async def call(clients, name, **arguments):
    """Call a tool by its own name."""
    return await tools_of(clients)[name].run(arguments, lambda _: None)


def running(clients):
    """How many calls run, or wait for their place."""
    return sum(connection._calls for connection in clients._connections.values())


async def until(condition: Callable[[], object]):
    """Wait until a condition holds that nothing reports, for a while."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (nothing reports it)
            await asyncio.sleep(0.02)


def processes_with(mark: str, program: str = ""):
    """The ids of the processes whose environment has a mark, and whose first argument names a program."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"={mark}\0".encode() in (entry / "environ").read_bytes():
                    _, first, *_ = (entry / "cmdline").read_bytes().split(b"\0")
                    if program.encode() in first:
                        found.append(int(entry.name))
            except (OSError, ValueError):  # it has ended meanwhile
                continue
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

"""An application with an MCP endpoint on scripted engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from modelyard.agent.agent import Agent
from modelyard.agent.tools import ToolSource
from modelyard.api.app import close_app, create_app
from modelyard.api.mcp.transport import Transport
from modelyard.config import AccessKey, Scope, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.inprocess.transport import async_http_client
from modelyard.protocol.requests import Submit
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_server import HERMES

IMPORT_S = 60.0


def key(name: str, *scopes: Scope, models: Iterable[str] | None = None) -> AccessKey:
    permitted = None if models is None else frozenset(models)
    return AccessKey(name, digest_of(name.encode()), permitted, frozenset(scopes))


KEYS = (
    key("everything", "inference", "read", "admin"),
    key("asks", "inference"),
    key("reads", "read"),
    key("nothing"),
    key("small", "inference", "read", models=["a"]),
)


@dataclass
class Served:
    """An application with the models ``a`` and ``b``."""

    app: FastAPI
    engines: ScriptedEngines
    yard: Yard

    @asynccontextmanager
    async def client(self, key: str | None = None) -> AsyncIterator[ClientSession]:
        """A session of the official client."""
        async with async_http_client(self.app) as http:
            # The first request imports the SDK, which takes seconds on a busy machine.
            http.timeout = IMPORT_S
            if key is not None:
                http.headers["authorization"] = f"Bearer {key}"
            async with (
                streamable_http_client("http://localhost/mcp", http_client=http) as streams,
                ClientSession(*streams) as session,
            ):
                await session.initialize()
                yield session

    @property
    def transport(self) -> Transport:
        """What serves the sessions, once a request has come."""
        transport: Transport = self.app.state.mcp.started
        return transport

    @property
    def sessions(self) -> int:
        return len(self.transport.sessions)

    async def hears_events(self) -> None:
        """Wait until a client has opened its stream of events."""
        async with asyncio.timeout(10):
            while self.transport.spare_streams < 0:  # noqa: ASYNC110 (nothing announces it)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def served(
    folder: Path,
    answer: Callable[[Submit], Sequence[str]] | None = None,
    keys: Sequence[AccessKey] = (),
    tools: Sequence[ToolSource] = (),
    *,
    is_strict: bool = False,
) -> AsyncIterator[Served]:
    write(folder / "a.gguf", tiny_model())
    write(folder / "b.gguf", tiny_model())
    models = [
        {"model_id": "a.gguf", "alias": "a", "aliases": ["alpha"]},
        {"model_id": "b.gguf", "alias": "b", "load": "on-demand"},
    ]
    tables = {"models": models, "default_model_id": "a", "server": {"strict": is_strict}}
    config = validate_config(tables, source="test", base=folder)
    engines = ScriptedEngines(answer=answer, output_format=HERMES if tools else None)
    yard = Yard(config, engines.make_handle)
    await yard.start()
    app = create_app(yard, keys, agent=Agent.of(tools))
    try:
        yield Served(app, engines, yard)
    finally:
        await close_app(app)
        await yard.close()
        assert await asyncio.to_thread(engines.end)


def hello(_: Submit) -> list[str]:
    return ["Hel", "lo", " you"]

"""Builds the HTTP application on a yard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from modelyard.agent.agent import Agent
from modelyard.api.agent import routes as agent_routes
from modelyard.api.agent import servers as agent_servers
from modelyard.api.anthropic import routes as anthropic
from modelyard.api.errors import rendering
from modelyard.api.llama_cpp import adapters as llama_cpp_adapters
from modelyard.api.llama_cpp import completion, embedding, model_events, properties, tokenize
from modelyard.api.llama_cpp import models as llama_cpp_models
from modelyard.api.mcp import routes as mcp
from modelyard.api.media.load import MediaLoader
from modelyard.api.middleware.authorization import authorize_route
from modelyard.api.middleware.body_intake import BodyIntake
from modelyard.api.middleware.head import ResponseHead
from modelyard.api.middleware.host import CheckHost, host_names
from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.api.middleware.origin import CheckOrigin
from modelyard.api.middleware.security import RequireKey
from modelyard.api.middleware.short_paths import ShortPaths
from modelyard.api.middleware.telemetry import Telemetry
from modelyard.api.ollama import model_management
from modelyard.api.ollama import routes as ollama
from modelyard.api.openai import adapters, chat, completions, embeddings, models, unserved
from modelyard.api.openai.audio import routes as audio
from modelyard.api.openai.responses import compaction, conversations
from modelyard.api.openai.responses import routes as responses
from modelyard.api.openai.responses.background import Background
from modelyard.api.openai.responses.services import ResponseServices
from modelyard.api.openai.responses.store import ResponseStore
from modelyard.api.openapi.document import openapi_document
from modelyard.api.openapi.page import page_routes
from modelyard.api.rerank import routes as rerank
from modelyard.api.server import activity, config, doctor, health, history, logs, metrics, nodes, overview, root
from modelyard.api.server.log_ring import LogRing
from modelyard.api.services import Services
from modelyard.api.serving.request_memory import RequestMemory, request_memory_bytes
from modelyard.api.ui.files import UI_FOLDER, read_files
from modelyard.api.ui.routes import page_router
from modelyard.config import AccessKey, Config, Server, is_loopback
from modelyard.config.added import AddedModels
from modelyard.config.reader import ConfigReader
from modelyard.mcp.connection import ServerStatus
from modelyard.system.memory import total_bytes
from modelyard.system.own_names import own_names
from modelyard.version import __version__
from modelyard.yard.additions import Additions
from modelyard.yard.yard import Yard

# The routers in the order of the API's description, which is also the order in which paths are matched.
_ROUTERS: Final = (
    chat.router,
    completions.router,
    embeddings.router,
    audio.router,
    rerank.router,
    responses.router,
    responses.json_router,
    compaction.router,
    conversations.router,
    conversations.json_router,
    anthropic.router,
    completion.router,
    tokenize.router,
    embedding.router,
    properties.router,
    llama_cpp_adapters.router,
    adapters.router,
    ollama.router,
    ollama.json_router,
    model_management.router,
    model_management.upload_router,
    # Its path is one that the path of a model would match.
    history.router,
    models.router,
    agent_routes.router,
    agent_servers.router,
    llama_cpp_models.router,
    model_events.router,
    overview.router,
    nodes.router,
    activity.router,
    logs.router,
    config.router,
    doctor.router,
    health.router,
    root.router,
    unserved.router,
)

# The headers that pages of other origins may read, beside those that CORS always allows.
_CORS_RESPONSE_HEADERS = (
    *("x-request-id", "request-id", "server-timing", "retry-after", "x-should-retry", "www-authenticate"),
    *("x-modelyard-ignored", "x-modelyard-repaired", "mcp-session-id"),
    *(f"x-ratelimit-{part}-{what}" for what in ("requests", "tokens") for part in ("limit", "remaining", "reset")),
)


class _Application(FastAPI):
    """A FastAPI application with telemetry around all of its middleware, and with its own OpenAPI document.

    Its endpoints below /v1 are also reached without that, where nothing else is served there.
    """

    observe: Callable[[ASGIApp], ASGIApp]

    def build_middleware_stack(self) -> ASGIApp:
        observed = self.observe(super().build_middleware_stack())
        return ShortPaths(observed, [route.path for route in self.routes if isinstance(route, Route)])

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi_document(self)
        return self.openapi_schema


def create_app(
    yard: Yard,
    keys: Sequence[AccessKey] = (),
    read_config: Callable[[], Config] | None = None,
    *,
    host: str | None = None,
    is_mounted: bool = False,
    responses_file: Path | None = None,
    log_ring: LogRing | None = None,
    agent: Agent | None = None,
    mcp_statuses: Callable[[], Sequence[ServerStatus]] = tuple,
    ui_folder: Path = UI_FOLDER,
    added: AddedModels | None = None,
) -> FastAPI:
    """Return the ASGI application that serves ``yard``, by the ``[server]`` table of its configuration.

    The caller starts the yard before, and closes it after. At its end the application closes what it stores, if it is
    told by ASGI's lifespan; else the caller does so with ``close_app``.

    Args:
        yard: the models.
        keys: the accepted API keys; a request must carry one, except for health. (): no key is needed.
        read_config: reads the configuration file again; None: there is no file.
        host: the address that the server listens on; None: the configured one.
        is_mounted: whether another server listens for it, under names that only that server knows.
        responses_file: where responses and conversations are stored; None: in memory.
        log_ring: the last lines of the process's log; None: they are not kept.
        agent: has the tools that the server runs when models call them; None: there are none.
        mcp_statuses: returns the states of the MCP servers.
        ui_folder: has the files of the page at /ui.
        added: keeps the models that requests add; None: requests cannot add any.
    """
    server, http_metrics = yard.config.server, HttpMetrics()
    app = _Application(title="Modelyard", version=__version__, docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.observe = lambda inner: Telemetry(inner, server, http_metrics)
    rendering.install(app)
    _add_middleware(app, server, keys, host or server.host, is_mounted=is_mounted)
    agent = agent or Agent()
    app.state.mcp_statuses = mcp_statuses
    app.state.services = Services(yard, MediaLoader(yard), agent)
    app.state.mcp = mcp.McpEndpoint(app.state.services)
    app.state.responses = ResponseServices(ResponseStore(responses_file), Background(yard))
    app.state.additions = None if added is None else _additions(yard, added)
    app.state.log_ring = log_ring
    app.state.doctor = doctor.ServerDoctor()
    app.state.config_reader = None if read_config is None else ConfigReader(read_config)
    routers = [*_ROUTERS, page_routes(), *([mcp.router] if yard.config.mcp.serve else [])]
    page = read_files(ui_folder) if server.ui else {}
    app.state.has_page = bool(page)
    if server.ui:
        routers.append(page_router(page))
    if not server.disable_metrics:
        app.state.http_metrics = http_metrics
        routers.append(metrics.router)
    # Routes are added one by one: a request to an included router would search its routes twice.
    app.router.routes.extend(_authorized(route) for router in routers for route in router.routes)
    return app


def _additions(yard: Yard, added: AddedModels) -> Additions:
    additions = Additions(yard, added)
    additions.uploads.sweep()
    return additions


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Close what the application opened, where a server of another make runs it and reports its own end."""
    yield
    await close_app(app)


async def close_app(app: FastAPI) -> None:
    """Close what the application of ``create_app`` opened: its MCP sessions, and its stored responses."""
    await app.state.mcp.aclose()
    await app.state.responses.aclose()


def _add_middleware(app: FastAPI, server: Server, keys: Sequence[AccessKey], host: str, *, is_mounted: bool) -> None:
    # Middleware that is added later runs earlier.
    app.add_middleware(BodyIntake, memory=RequestMemory(request_memory_bytes(total_bytes())))
    app.add_middleware(ResponseHead)
    if keys:
        app.add_middleware(RequireKey, keys=keys, share_prefixes=server.share_prefixes, has_ui=server.ui)
    if server.cors_origins:
        # Outside of the check for keys: a browser sends its preflight request without one.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=server.cors_origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
            # Official clients send headers of many names. None has an effect that its origin does not have anyway.
            allow_headers=("*",),
            # A page that may use the server may also be one of the internet, and the server one of the local network.
            allow_private_network=True,
            expose_headers=_CORS_RESPONSE_HEADERS,
        )
    app.add_middleware(CheckOrigin, origins=server.cors_origins)
    is_reachable = not is_mounted and not is_loopback(host)
    names = host_names(
        host,
        server.allowed_hosts,
        own_names() if is_reachable else (),
        is_mounted=is_mounted,
        has_keys=bool(keys),
    )
    if names is not None:
        app.add_middleware(CheckHost, names=names)


def _authorized(route: BaseRoute) -> BaseRoute:
    """Return a copy of ``route`` that refuses keys without its scope; the original belongs to all applications."""
    route = copy(route)
    authorize_route(route)
    return route

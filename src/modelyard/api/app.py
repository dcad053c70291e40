"""Builds the HTTP application on a yard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from modelyard.api.anthropic.routes import message_routes
from modelyard.api.errors import responses
from modelyard.api.llama_cpp.models import router_routes
from modelyard.api.llama_cpp.tokenize import tokenize_routes
from modelyard.api.media.load import MediaLoader
from modelyard.api.middleware.authorization import authorize_route
from modelyard.api.middleware.body_intake import BodyIntake
from modelyard.api.middleware.head import ResponseHead
from modelyard.api.middleware.host import CheckHost, host_names
from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.api.middleware.origin import CheckOrigin
from modelyard.api.middleware.security import RequireKey
from modelyard.api.middleware.telemetry import Telemetry
from modelyard.api.ollama.routes import ollama_routes
from modelyard.api.openai.audio.routes import audio_routes
from modelyard.api.openai.chat import chat_routes
from modelyard.api.openai.completions import completion_routes
from modelyard.api.openai.embeddings import embedding_routes
from modelyard.api.openai.models import model_routes
from modelyard.api.openai.responses.routes import response_routes
from modelyard.api.openai.unserved import unserved_routes
from modelyard.api.openapi.document import openapi_document
from modelyard.api.openapi.page import page_routes
from modelyard.api.rerank.routes import rerank_routes
from modelyard.api.server.config import admin_routes
from modelyard.api.server.health import health_routes
from modelyard.api.server.metrics import metrics_routes
from modelyard.api.serving.request_memory import RequestMemory, request_memory_bytes
from modelyard.config import AccessKey, Config, is_loopback
from modelyard.system.memory import total_bytes
from modelyard.system.own_names import own_names
from modelyard.version import __version__
from modelyard.yard.yard import Yard

# What pages may send and read, beside what they always may: the reference's lists, and what we say.
_SENT = (
    *("Content-Type", "Authorization", "Prefer", "X-Priority", "X-Request-Id", "X-Api-Key"),
    *("Anthropic-Version", "Anthropic-Beta"),
)
_READ = (
    *("x-request-id", "server-timing", "retry-after", "x-modelyard-ignored"),
    *(f"x-ratelimit-{part}-{what}" for what in ("requests", "tokens") for part in ("limit", "remaining", "reset")),
)


class _Application(FastAPI):
    """FastAPI, observed from outside: also what answers faults is inside. It describes itself in our words."""

    observe: Callable[[ASGIApp], ASGIApp]

    def build_middleware_stack(self) -> ASGIApp:
        return self.observe(super().build_middleware_stack())

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
) -> FastAPI:
    """The ASGI application that serves ``yard``, as its configuration's ``[server]`` says.

    The caller starts the yard before, and closes it after.

    Args:
        yard: the models.
        keys: of which a request must carry one, except for health; () lets everybody in.
        read_config: reads the configuration file again; None where there is none.
        host: where it listens; None: as configured.
        is_mounted: it does not listen, another server does, under names that it alone knows.
    """
    server, tally = yard.config.server, HttpMetrics()
    app = _Application(title="Modelyard", version=__version__, docs_url=None, redoc_url=None)
    app.observe = lambda inner: Telemetry(inner, server, tally)
    responses.install(app)
    # What is added last is met first.
    app.add_middleware(BodyIntake, memory=RequestMemory(request_memory_bytes(total_bytes())))
    app.add_middleware(ResponseHead)
    if keys:
        app.add_middleware(RequireKey, keys=keys, share_prefixes=server.share_prefixes)
    if server.cors_origins:
        # Before the keys: a browser asks without one whether it may ask.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=server.cors_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=_SENT,
            expose_headers=_READ,
        )
    app.add_middleware(CheckOrigin, origins=server.cors_origins)
    host = host or server.host
    is_reached = not is_mounted and not is_loopback(host)
    names = host_names(
        host,
        server.allowed_hosts,
        own_names() if is_reached else (),
        is_mounted=is_mounted,
        has_keys=bool(keys),
    )
    if names is not None:
        app.add_middleware(CheckHost, names=names)
    media = MediaLoader(yard)
    routers = [
        chat_routes(yard, media),
        completion_routes(yard),
        embedding_routes(yard),
        audio_routes(yard, media),
        rerank_routes(yard),
        response_routes(yard, media),
        message_routes(yard, media),
        tokenize_routes(yard, media),
        ollama_routes(yard, media),
        model_routes(yard),
        router_routes(yard),
        admin_routes(yard, read_config),
        health_routes(yard),
        unserved_routes(),
        page_routes(),
    ]
    if not server.disable_metrics:
        routers.append(metrics_routes(yard, tally))
    for router in routers:
        # Not included as routers, which are searched twice.
        app.router.routes.extend(router.routes)
    for route in app.router.routes:
        authorize_route(route)
    return app

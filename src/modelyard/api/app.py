"""Builds the HTTP application on a yard."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import FastAPI

import modelyard
from modelyard.api import errors
from modelyard.api.admin import admin_routes
from modelyard.api.guard import LimitBody, RequireApiKey
from modelyard.api.images import ImageLoader
from modelyard.api.openai.chat import chat_routes
from modelyard.api.openai.completions import completion_routes
from modelyard.api.openai.embeddings import embedding_routes
from modelyard.api.openai.models import model_routes
from modelyard.config import Config
from modelyard.yard.yard import Yard


def create_app(yard: Yard, api_keys: Sequence[str] = (), read_config: Callable[[], Config] | None = None) -> FastAPI:
    """The ASGI application that serves ``yard``, which the caller starts before and closes after it.

    Args:
        yard: the models.
        api_keys: of which a request must carry one, except for health; () lets everybody in.
        read_config: reads the configuration file again; None where there is none.
    """
    app = FastAPI(title="Modelyard", version=modelyard.__version__, docs_url=None, redoc_url=None)
    errors.install(app)
    app.add_middleware(LimitBody)
    if api_keys:
        app.add_middleware(RequireApiKey, keys=api_keys)
    for router in (
        chat_routes(yard, ImageLoader(yard)),
        completion_routes(yard),
        embedding_routes(yard),
        model_routes(yard),
        admin_routes(yard, read_config),
    ):
        # Not included as routers, which are searched twice.
        app.router.routes.extend(router.routes)
    return app

"""Builds the HTTP application on a yard."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

import modelyard
from modelyard.api import errors
from modelyard.api.guard import LimitBody, RequireApiKey
from modelyard.api.openai.chat import chat_routes
from modelyard.api.openai.completions import completion_routes
from modelyard.api.openai.models import model_routes
from modelyard.yard.yard import Yard


def create_app(yard: Yard, api_keys: Sequence[str] = ()) -> FastAPI:
    """The ASGI application that serves ``yard``, which the caller starts before and closes after it.

    Args:
        yard: the models.
        api_keys: of which a request must carry one, except for health; () lets everybody in.
    """
    app = FastAPI(title="Modelyard", version=modelyard.__version__, docs_url=None, redoc_url=None)
    errors.install(app)
    app.add_middleware(LimitBody)
    if api_keys:
        app.add_middleware(RequireApiKey, keys=api_keys)
    app.include_router(chat_routes(yard))
    app.include_router(completion_routes(yard))
    app.include_router(model_routes(yard))

    @app.get("/", include_in_schema=False)
    @app.get("/health")
    async def health() -> PlainTextResponse:
        """The process is alive. Loads no model and waits for none."""
        return PlainTextResponse("OK")

    return app

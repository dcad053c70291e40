"""Ollama's management of models: the configuration names the models, so that all of it but a pull is refused."""

from __future__ import annotations

from typing import NoReturn

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.middleware.authorization import needs
from modelyard.api.ollama.any_type import AnyTypeRoute
from modelyard.api.ollama.routes import model_id_of
from modelyard.api.ollama.schema import NamedModel
from modelyard.api.services import Services
from modelyard.api.serving.ignored_fields import report_ignored
from modelyard.errors import UnsupportedOperation

router = APIRouter(prefix="/api", route_class=AnyTypeRoute)


@router.post("/pull")
@needs("read")
async def pull_model(body: NamedModel, http: HttpRequest) -> Response:
    """Report success for a model that is configured; others are not fetched."""
    report_ignored(http.scope, body)
    yard = Services.of(http).yard
    yard.model(model_id_of(yard, body.model or body.name))
    # One line is the whole answer, and the last line of a stream.
    return Response(orjson.dumps({"status": "success"}) + b"\n", media_type="application/x-ndjson")


@router.post("/create", include_in_schema=False, response_model=None)
@router.post("/copy", include_in_schema=False, response_model=None)
@router.post("/push", include_in_schema=False, response_model=None)
@router.delete("/delete", include_in_schema=False, response_model=None)
@router.post("/blobs/{digest}", include_in_schema=False, response_model=None)
@needs("admin", all_models=True)
async def refuse(http: HttpRequest) -> NoReturn:
    """Answer 400, whatever was sent."""
    raise UnsupportedOperation(
        f"{http.method} {http.url.path}: this server does not change its models on request. Add them to [[models]] in "
        "the configuration, with `aliases` for further names, or remove them there, and POST /v1/config/reload.",
        "model",
    )

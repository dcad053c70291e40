"""GET /health, /health/live and /health/ready: they need no key, and trigger no load."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import PlainTextResponse, Response

from modelyard.api.services import Services
from modelyard.errors import ModelNotFound, ModelRequired
from modelyard.yard.requests.context import current_caller

router = APIRouter()


@router.get("/v1/health", include_in_schema=False)
@router.get("/health")
async def health(http: HttpRequest, model: str | None = None) -> Response:
    """Whether the process runs; with ``model``, whether that model can start a request at once, or 503 with the reason.

    Without a key that may read, and for models that the key may not see, the answer has no reason.
    """
    if model is None:
        return PlainTextResponse("OK")
    yard = Services.of(http).yard
    if not current_caller().may("read") or not yard.directory.is_known(model):
        return _answer({"status": "ok" if yard.health.is_ready(model) else "unavailable"})
    try:
        reason = yard.health.unready(model)
    except (ModelNotFound, ModelRequired):
        raise ModelNotFound(model, ()) from None
    fields = {"model": model, "status": "unavailable" if reason else "ok", "reason": reason or None}
    return _answer({key: value for key, value in fields.items() if value is not None})


@router.get("/health/live")
async def live() -> PlainTextResponse:
    """Whether the process runs and its event loop responds."""
    return PlainTextResponse("OK")


@router.get("/health/ready")
async def ready(http: HttpRequest) -> Response:
    """Whether every model can serve; 503 with the reasons while an engine or a load has failed.

    A key that may read gets the reasons of the models that it may see.
    """
    yard = Services.of(http).yard
    status = "ok" if yard.health.is_sound else "failed"
    return _answer(
        {"status": status, "failed": yard.health.failed()} if current_caller().may("read") else {"status": status}
    )


def _answer(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200 if body["status"] == "ok" else 503, media_type="application/json")

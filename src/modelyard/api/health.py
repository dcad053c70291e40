"""GET /health, /health/live and /health/ready: open to all, and without effect on any model."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from modelyard.errors import ModelNotFound, ModelRequired
from modelyard.yard.yard import Yard


def health_routes(yard: Yard) -> APIRouter:
    """Health of the server on ``yard`` and of its models."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    @router.get("/health")
    async def health(model: str | None = None) -> Response:
        """The process is alive; with ``model``, that model would begin a request at once: else 503, with the reason."""
        if model is None:
            return PlainTextResponse("OK")
        try:
            reason = yard.unready(model)
        except (ModelNotFound, ModelRequired):
            # Without the names that there are: whoever asks has shown no key.
            raise ModelNotFound(model, ()) from None
        known = {"model": model, "status": "unavailable" if reason else "ok", "reason": reason or None}
        body = orjson.dumps({key: value for key, value in known.items() if value is not None})
        return Response(body, 503 if reason else 200, media_type="application/json")

    @router.get("/health/live")
    async def live() -> PlainTextResponse:
        """The process is alive, and its event loop turns."""
        return PlainTextResponse("OK")

    @router.get("/health/ready")
    async def ready() -> Response:
        """Whether every model can serve: 503, with the reasons, while an engine or a load has failed."""
        failed = yard.failed()
        body = orjson.dumps({"status": "failed" if failed else "ok", "failed": failed})
        return Response(body, 503 if failed else 200, media_type="application/json")

    return router

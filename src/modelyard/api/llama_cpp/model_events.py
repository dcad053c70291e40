"""GET /models/sse of llama.cpp's router: changes of the status of all models.

Source: llama.cpp, tools/server/README.md, "GET /models/sse".
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.llama_cpp.models import router_status
from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.models import model_event_stream
from modelyard.api.services import Services
from modelyard.yard.residency.state import LoadState
from modelyard.yard.stats.status import ModelStatus
from modelyard.yard.stats.status_broadcaster import StatusChange

_STATUS: Final[dict[LoadState, str]] = {
    LoadState.UNLOADED: "unloaded",
    LoadState.SIZING: "loading",
    LoadState.LOADING: "loading",
    LoadState.LOADED: "loaded",
    LoadState.FREEING: "unloaded",
    LoadState.PARKED: "sleeping",
    LoadState.FAILED: "unloaded",
}

# The router's name for the weights of a model, as a stage of its load.
_WEIGHTS: Final = "text_model"


def status_event(model: ModelStatus) -> bytes:
    """Return the event of the present status of a model."""
    return _event(model.id, "model_status", {"status": router_status(model)})


def change_event(change: StatusChange) -> bytes:
    """Return the event of a change: ``model_status``, with the progress of a load, or ``model_remove``."""
    if change.load_state is None:
        return _event(change.model, "model_remove", None)
    data: dict[str, Any] = {"status": _STATUS[change.load_state]}
    if change.step == "downloading":
        data["status"] = "downloading"
    if change.progress is not None:
        stage = change.step or _WEIGHTS
        data["progress"] = {"stages": [stage], "current": stage, "value": round(change.progress, 4)}
    if change.reason is not None:
        data["failed"] = True
    return _event(change.model, "model_status", data)


def _event(model: str, event: str, data: dict[str, Any] | None) -> bytes:
    fields: dict[str, Any] = {"model": model, "event": event}
    if data is not None:
        fields["data"] = data
    return b"data: " + orjson.dumps(fields) + b"\n\n"


router = APIRouter()


@router.get("/models/sse", response_model=None)
@needs("admin", all_models=True)
async def watch_router_models(http: HttpRequest) -> Response:
    """The status of all models, then every change of it, as server-sent events."""
    return model_event_stream(Services.of(http).yard, status_event, change_event)

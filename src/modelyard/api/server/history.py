"""GET /v1/models/history: which model was in memory when, and why that changed."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.middleware.authorization import needs
from modelyard.api.services import Services
from modelyard.yard.requests.context import Caller
from modelyard.yard.stats.residency_history import KEPT_S, Interval

router = APIRouter()


def history_object(intervals: list[Interval], configured: list[str], caller: Caller, now: float) -> dict[str, Any]:
    """Return the intervals by model, as ``caller`` may see them.

    Args:
        intervals: of all models, in the order in which they began.
        configured: ids of the configured models, in their order; models that were removed follow.
        caller: the caller.
        now: on the clock of the intervals.
    """
    # By the machine's clock of now: it may have been set since the intervals began.
    offset = time.time() - now
    models: dict[str, list[dict[str, Any]]] = {model: [] for model in configured if caller.may_use(model)}
    for interval in intervals:
        if caller.may_use(interval.model):
            models.setdefault(interval.model, []).append(_interval_object(interval, caller, offset))
    return {
        "object": "list",
        "as_of": round(now + offset, 3),
        "data": [{"model_id": model, "intervals": shown} for model, shown in models.items()],
    }


def _interval_object(interval: Interval, caller: Caller, offset: float) -> dict[str, Any]:
    return {
        "state": interval.load_state.value,
        "began_at": round(interval.began + offset, 3),
        "ended_at": None if interval.ended is None else round(interval.ended + offset, 3),
        "bytes": {pool: size for pool, size in interval.bytes.items() if size},
        "cause": interval.cause or None,
        "reason": caller.visible_reason(interval.reason) or None,
    }


@router.get("/v1/models/history", response_model=None)
@needs("read")
async def read_history(
    http: HttpRequest,
    seconds: Annotated[float, Query(gt=0, le=KEPT_S, description="How long ago the history begins.")] = KEPT_S,
) -> Response:
    """Which model was in memory when, how much of each pool it took, and why that changed."""
    yard = Services.of(http).yard
    now = time.monotonic()
    intervals = yard.monitor.recorder.history.intervals(now, seconds)
    configured = [model.id for model in yard.config.models]
    found = history_object(intervals, configured, yard.directory.caller(), now)
    return Response(orjson.dumps(found), media_type="application/json")

"""GET /v1/activity, /{id} and /events below it: the requests to models that run, and the last ones that ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.middleware.authorization import needs
from modelyard.api.openapi.operations import OPERATIONS
from modelyard.api.request_context import RequestContext
from modelyard.api.server.activity_stream import ActivityStream
from modelyard.api.services import Services
from modelyard.errors import ActivityNotFound, ModelyardError
from modelyard.protocol.prompts import Tokens
from modelyard.yard.requests.context import Caller, RequestOrigin
from modelyard.yard.requests.requests import TokenizeRequest, WaitOptions
from modelyard.yard.stats.request_log import MAX_ENDED, LoggedRequest, RequestState
from modelyard.yard.stats.request_phases import Phase
from modelyard.yard.yard import Yard

_OPENAI: Final = "openai"

Limit = Annotated[int, Query(ge=0, le=MAX_ENDED, description="The most requests that are listed, the latest first.")]


def activity_object(logged: LoggedRequest) -> dict[str, Any]:
    """Return a request as lists have it."""
    origin, times, tokens, rate = logged.origin, logged.times, logged.tokens, logged.tokens_per_s
    return {
        "id": logged.id,
        "object": "activity",
        "request_id": None if origin is None else origin.request_id,
        "model": logged.model,
        "key": None if origin is None else origin.key,
        "dialect": dialect_name(origin),
        "path": None if origin is None else origin.path,
        "kind": logged.kind,
        "stream": origin is not None and origin.is_streamed,
        "state": logged.state,
        "arrived_at": _rounded(logged.arrived_at),
        "granted_at": _rounded(logged.unix_time(times.granted)),
        "first_token_at": _rounded(logged.unix_time(times.first)),
        "ended_at": _rounded(logged.unix_time(times.ended)),
        "prompt_tokens": tokens.prompt,
        "cached_tokens": tokens.cached,
        "answer_tokens": tokens.answer,
        "tokens_per_second": None if rate is None else round(rate, 2),
        "finish_reason": logged.finish_reason,
        "error": None if logged.error is None else logged.error.code,
    }


def activity_detail(logged: LoggedRequest, caller: Caller) -> dict[str, Any]:
    """Return a request with its phases, as ``caller`` may see them."""
    error = None if logged.error is None else str(caller.visible_error(logged.error))
    return {
        **activity_object(logged),
        "error_message": error,
        "phases": [_phase_object(phase, logged, caller) for phase in logged.phases],
    }


async def recorded_texts(yard: Yard, logged: LoggedRequest) -> dict[str, str | None]:
    """Return the prompt and the answer of a request; nothing where texts are not recorded.

    The prompt is kept as token ids, which its model turns into text: where that is not loaded, the prompt is None.
    """
    if not yard.monitor.recorder.requests.keeps_texts:
        return {}
    transcript, prompt = logged.transcript, None
    if transcript is None:
        return {"prompt": None, "answer": None}
    if transcript.prompt and yard.health.is_ready(logged.model):
        request = TokenizeRequest(Tokens(tuple(transcript.prompt)), logged.model, wait_options=WaitOptions(wait_s=0.0))
        # A model that is unloaded at this moment, or was removed.
        with suppress(ModelyardError):
            prompt = b"".join((await yard.tokenize(request)).pieces).decode("utf-8", "replace")
    return {"prompt": prompt, "answer": transcript.answer}


def dialect_name(origin: RequestOrigin | None) -> str:
    """Return the dialect of a request, such as "openai"; "python" for one of a program that holds the models itself."""
    if origin is None:
        return "python"
    if origin.path == "/mcp":
        return "mcp"
    operation = OPERATIONS.get(("post", origin.path))
    return _OPENAI if operation is None else operation.tag.lower()


def _phase_object(phase: Phase, logged: LoggedRequest, caller: Caller) -> dict[str, Any]:
    models = caller.visible_names(phase.models)
    return {
        "phase": phase.kind,
        "began_at": _rounded(logged.unix_time(phase.began)),
        "ended_at": None if phase.ended is None else _rounded(logged.unix_time(phase.ended)),
        "text": f"{phase.text} {', '.join(models)}." if models else f"{phase.text}.",
        "models": list(models),
    }


def _rounded(time_s: float | None) -> float | None:
    """Return a time in milliseconds' precision."""
    return None if time_s is None else round(time_s, 3)


def visible_to(caller: Caller) -> Callable[[LoggedRequest], bool]:
    """Return whether a caller may see a request: its own, or with the scope ``admin`` all for models it may use."""
    sees_all = caller.may("admin")
    return lambda logged: (sees_all or logged.owner == caller.owner) and caller.may_use(logged.model)


router = APIRouter()


@router.get("/v1/activity", response_model=None)
@needs("read")
async def list_activity(
    http: HttpRequest,
    model: Annotated[str | None, Query(description="Id or alias of a model; omitted: all.")] = None,
    state: Annotated[RequestState | None, Query(description="Only requests in this state.")] = None,
    limit: Limit = 100,
) -> Response:
    """The requests that are not over, then the last ones that ended: the caller's own; all with the scope `admin`.

    Each choice of a request with `n`, and each round of an answer with tools of the server, is listed by itself, with
    the `request_id` of all.
    """
    yard = Services.of(http).yard
    is_visible = visible_to(yard.directory.caller())
    wanted = None if model is None else yard.model(model).id
    found = (
        logged
        for logged in yard.monitor.recorder.requests
        if is_visible(logged) and wanted in (None, logged.model) and state in (None, logged.state)
    )
    listed = {"object": "list", "data": [activity_object(logged) for logged in islice(found, limit)]}
    return Response(orjson.dumps(listed), media_type="application/json")


# Before the path of one request, which would match it.
@router.get("/v1/activity/events", response_model=None)
@needs("read")
async def watch_activity(http: HttpRequest, limit: Limit = 100) -> Response:
    """The requests, and every change of them, as server-sent events; twice a second at most of each request."""
    yard = Services.of(http).yard
    return ActivityStream(yard, visible_to(yard.directory.caller()), activity_object, limit)


@router.get("/v1/activity/{activity_id}", response_model=None)
@needs("read")
async def retrieve_activity(activity_id: str, http: HttpRequest) -> Response:
    """One request, with what it waited for and when it was computed.

    With `[server] record_texts` it has its prompt as the model read it, and its answer, as far as they are still kept.
    """
    yard = Services.of(http).yard
    caller, logged = yard.directory.caller(), yard.monitor.recorder.requests.find(activity_id)
    if logged is None or not visible_to(caller)(logged):
        raise ActivityNotFound(activity_id)
    RequestContext.of(http.scope).origin.looks_on = True
    found = {**activity_detail(logged, caller), **await recorded_texts(yard, logged)}
    return Response(orjson.dumps(found), media_type="application/json")

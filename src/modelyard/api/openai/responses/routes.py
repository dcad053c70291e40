"""POST /v1/responses; GET and DELETE /v1/responses/{id}, POST /v1/responses/{id}/cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.responses.background import Background
from modelyard.api.openai.responses.frames import ResponseFrames
from modelyard.api.openai.responses.schema import ResponsesRequest, listed_item
from modelyard.api.openai.responses.store import ResponseStore, StoredResponse, answer_messages
from modelyard.api.openapi.answers_openai import ResponseObject
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.errors import InvalidRequest, ResponseNotFound
from modelyard.protocol.prompts import Chat


@dataclass(frozen=True, slots=True)
class ResponseServices:
    """What the endpoints of responses share, kept as ``app.state.responses``.

    Attributes:
        store: the responses that can be retrieved later.
        background: the responses that are generated without a client.
    """

    store: ResponseStore
    background: Background

    @staticmethod
    def of(http: HttpRequest) -> ResponseServices:
        """Return the services of the application that ``http`` was sent to."""
        services: ResponseServices = http.app.state.responses
        return services


router = APIRouter()
json_router = APIRouter(route_class=JsonRoute)


@json_router.post("/v1/responses", response_model=None)
async def create_response(body: ResponsesRequest, http: HttpRequest) -> Response:
    """Generate a response: whole, as a stream, or in the background."""
    services, responses = Services.of(http), ResponseServices.of(http)
    earlier_messages: tuple[Mapping[str, Any], ...] = ()
    # The store keeps the contents of the body twice: as messages, and as items of the input.
    size_bytes = 2 * RequestContext.of(http.scope).body_bytes
    if body.previous_response_id is not None:
        earlier = _found(body.previous_response_id, http)
        earlier_messages, size_bytes = earlier.messages, size_bytes + earlier.size_bytes
    received = RequestBody.of(http.scope)
    messages = await received.converted(partial(body.messages, earlier_messages))
    request = await received.converted(partial(body.checked, messages))
    request = replace(request, urgency=wait_options_of(http, body.keep_alive))
    request = await services.media.loaded(request, http.receive)
    items = [listed_item(item) for item in body.input]
    assert isinstance(request.prompt, Chat)
    keep = partial(_store, responses.store, messages, items, _owner(http), size_bytes) if body.is_kept else _discard
    frames = ResponseFrames(body, request.prompt, keep)
    if not body.background:
        return respond(services.yard, [ChoiceRequest(request, frames)], stream=bool(body.stream))
    if body.stream:
        raise InvalidRequest("'background' responses are not streamed. Leave 'stream' out.", "stream")
    frames.response["model"] = services.yard.model(body.model or "default").id
    await services.yard.check(request.model, "text")
    responses.background.start(request, frames)
    keep(frames.response)
    return _json(frames.response)


def _store(
    store: ResponseStore,
    messages: Sequence[Mapping[str, Any]],
    items: Sequence[Mapping[str, Any]],
    owner: bytes | None,
    size_bytes: int,
    response: ResponseObject,
) -> None:
    """Keep a response that is complete, has failed, or has begun in the background."""
    store.keep(response, [*messages, *answer_messages(response["output"])], items, owner, size_bytes)


def _discard(_response: ResponseObject) -> None:
    """Keep nothing: the request says ``store: false``."""


@router.get("/v1/responses/{response_id}")
@needs("inference")
async def retrieve_response(response_id: str, http: HttpRequest) -> Response:
    """A response, as far as it has been generated."""
    return _json(_found(response_id, http).response)


@router.get("/v1/responses/{response_id}/input_items")
@needs("inference")
async def list_input_items(response_id: str, http: HttpRequest) -> Response:
    """The input items of a response."""
    items = list(_found(response_id, http).input)
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return _json({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": False})


@router.delete("/v1/responses/{response_id}")
@needs("inference")
async def delete_response(response_id: str, http: HttpRequest) -> Response:
    """Delete a response."""
    responses = ResponseServices.of(http)
    _found(response_id, http)
    responses.background.cancel(response_id)
    responses.store.delete(response_id)
    return _json({"id": response_id, "object": "response", "deleted": True})


@router.post("/v1/responses/{response_id}/cancel")
@needs("inference")
async def cancel_response(response_id: str, http: HttpRequest) -> Response:
    """Cancel a response in the background."""
    response = _found(response_id, http).response
    if not response["background"]:
        raise InvalidRequest("Only responses in the background can be cancelled.", "response_id")
    if ResponseServices.of(http).background.cancel(response_id):
        response["status"] = "cancelled"
    return _json(response)


def _owner(http: HttpRequest) -> bytes | None:
    """Return the digest of the request's key, which owns the responses that it creates; None without a key."""
    return RequestContext.of(http.scope).caller.owner


def _found(response_id: str, http: HttpRequest) -> StoredResponse:
    """Return the stored response of that id.

    Raises:
        ResponseNotFound: there is none, or it belongs to another key.
    """
    stored = ResponseServices.of(http).store.find(response_id)
    if stored is None or stored.owner != _owner(http):
        raise ResponseNotFound(response_id)
    return stored


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")

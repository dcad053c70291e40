"""POST /v1/responses; GET and DELETE /v1/responses/{id}, POST /v1/responses/{id}/cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.media.load import MediaLoader
from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.responses.background import Background
from modelyard.api.openai.responses.frames import ResponseFrames
from modelyard.api.openai.responses.schema import ResponsesRequest, listed_item
from modelyard.api.openai.responses.store import Kept, ResponseStore, answer_messages
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.errors import InvalidRequest, ResponseNotFound
from modelyard.protocol.prompts import Chat
from modelyard.yard.yard import Yard


def response_routes(yard: Yard, media: MediaLoader) -> APIRouter:
    """The endpoints of responses on ``yard``."""
    router = APIRouter()
    asked = APIRouter(route_class=JsonRoute)
    store = ResponseStore()
    background = Background(yard)

    @asked.post("/v1/responses", response_model=None)
    async def create_response(body: ResponsesRequest, http: HttpRequest) -> Response:
        """Answer, whole, as a stream, or in the background."""
        before: tuple[Mapping[str, Any], ...] = ()
        # What the body says is kept as messages, and as items of the input.
        asked_bytes = 2 * RequestContext.of(http.scope).body_bytes
        if body.previous_response_id is not None:
            earlier = _found(store, body.previous_response_id, http)
            before, asked_bytes = earlier.messages, asked_bytes + earlier.size_bytes
        sent = RequestBody.of(http.scope)
        messages = await sent.converted(partial(body.messages, before))
        request = await sent.converted(partial(body.checked, messages))
        request = replace(request, urgency=wait_options_of(http, body.keep_alive))
        request = await media.loaded(request, http.receive)
        given = [listed_item(item) for item in body.input]
        assert isinstance(request.prompt, Chat)

        def keep(response: dict[str, Any]) -> None:
            if body.is_kept:
                store.keep(
                    response, [*messages, *answer_messages(response["output"])], given, _owner(http), asked_bytes
                )

        frames = ResponseFrames(body, request.prompt, keep)
        if not body.background:
            return respond(yard, [ChoiceRequest(request, frames)], stream=bool(body.stream))
        if body.stream:
            raise InvalidRequest("'background' responses are not streamed. Leave 'stream' out.", "stream")
        frames.response["model"] = yard.model(body.model or "default").id
        await yard.check(request.model, "text")
        background.start(request, frames)
        keep(frames.response)
        return _json(frames.response)

    @router.get("/v1/responses/{response_id}")
    @needs("inference")
    async def retrieve_response(response_id: str, http: HttpRequest) -> Response:
        """A response, as it is by now."""
        return _json(_found(store, response_id, http).response)

    @router.get("/v1/responses/{response_id}/input_items")
    @needs("inference")
    async def list_input_items(response_id: str, http: HttpRequest) -> Response:
        """What a response was made from."""
        items = list(_found(store, response_id, http).input)
        first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        return _json({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": False})

    @router.delete("/v1/responses/{response_id}")
    @needs("inference")
    async def delete_response(response_id: str, http: HttpRequest) -> Response:
        """Forget a response."""
        _found(store, response_id, http)
        background.cancel(response_id)
        store.delete(response_id)
        return _json({"id": response_id, "object": "response", "deleted": True})

    @router.post("/v1/responses/{response_id}/cancel")
    @needs("inference")
    async def cancel_response(response_id: str, http: HttpRequest) -> Response:
        """Stop making a response in the background."""
        response = _found(store, response_id, http).response
        if not response["background"]:
            raise InvalidRequest("Only responses in the background can be cancelled.", "response_id")
        if background.cancel(response_id):
            response["status"] = "cancelled"
        return _json(response)

    router.routes.extend(asked.routes)
    return router


def _owner(http: HttpRequest) -> bytes | None:
    """Whose response it is: those of one key are nobody else's."""
    return RequestContext.of(http.scope).caller.owner


def _found(store: ResponseStore, name: str, http: HttpRequest) -> Kept:
    kept = store.find(name)
    if kept is None or kept.owner != _owner(http):
        raise ResponseNotFound(name)
    return kept


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")

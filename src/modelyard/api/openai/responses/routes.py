"""POST /v1/responses; GET and DELETE /v1/responses/{id}, POST /v1/responses/{id}/cancel."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.media import MediaLoader
from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.responses.frames import ResponseFrames
from modelyard.api.openai.responses.schema import ResponsesRequest, listed_item
from modelyard.api.openai.responses.store import Kept, ResponseStore, answer_messages
from modelyard.api.request_context import Visit
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.streaming import Ask, reply
from modelyard.api.serving.wait_options import urgency_of
from modelyard.engine.kv.owner_shares import may_take
from modelyard.errors import InvalidRequest, ModelyardError, QueueFull, ResponseNotFound
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.generation import TokenStream
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

MAX_IN_BACKGROUND: Final = 64


class _Background:
    """Responses that are made while nobody waits."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._running: dict[str, asyncio.Task[None]] = {}
        self._held: Counter[Hashable] = Counter()

    def start(self, request: Request, frames: ResponseFrames) -> None:
        """Make a response.

        Raises:
            QueueFull: too many are made already, or as many for this caller as are left for others.
            RateLimited, ConcurrencyLimited: the caller may not have another one now.
        """
        model, owner = frames.response["model"], current_caller().place_owner
        own, total = self._held[owner], self._held.total()
        if total >= MAX_IN_BACKGROUND:
            raise QueueFull(model, total)
        if owner is not None and not may_take(own, total, MAX_IN_BACKGROUND):
            raise QueueFull(model, own, of_key=True)
        asked = ExitStack()
        generation = asked.enter_context(self._yard.submit(request))
        # It does not end with the HTTP request, of which the log would say that it was cancelled.
        if generation in (made := current_caller().requests):
            made.remove(generation)
        name = frames.response["id"]
        task = self._running[name] = asyncio.create_task(self._run(generation, frames), name=name)
        self._held[owner] += 1
        # Not by the task itself: one that is cancelled before it has begun does nothing.
        task.add_done_callback(lambda _: self._end(name, owner, asked))

    def _end(self, name: str, owner: Hashable, asked: ExitStack) -> None:
        self._running.pop(name, None)
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        asked.close()

    def cancel(self, name: str) -> bool:
        """Stop making a response; whether it was being made."""
        task = self._running.get(name)
        return task is not None and task.cancel()

    async def _run(self, generation: TokenStream, frames: ResponseFrames) -> None:
        try:
            await generation.accepted()
            frames.open(generation)
            async for text in generation:
                frames.text(text)
            frames.close(generation.outcome())
        except ModelyardError as error:
            frames.fail(error)


def response_routes(yard: Yard, media: MediaLoader) -> APIRouter:
    """The endpoints of responses on ``yard``."""
    router = APIRouter()
    asked = APIRouter(route_class=JsonRoute)
    store = ResponseStore()
    background = _Background(yard)

    @asked.post("/v1/responses", response_model=None)
    async def create_response(body: ResponsesRequest, http: HttpRequest) -> Response:
        """Answer, whole, as a stream, or in the background."""
        before: tuple[Mapping[str, Any], ...] = ()
        if body.previous_response_id is not None:
            before = _found(store, body.previous_response_id, http).messages
        messages = body.messages(before)
        request = replace(body.checked(messages), urgency=urgency_of(http, body.keep_alive))
        request = await media.loaded(request, http.receive)
        given = [listed_item(item) for item in body.input]
        assert isinstance(request.prompt, Chat)

        def keep(response: dict[str, Any]) -> None:
            if body.is_kept:
                store.keep(response, [*messages, *answer_messages(response["output"])], given, _owner(http))

        frames = ResponseFrames(body, request.prompt, keep)
        if not body.background:
            return reply(yard, [Ask(request, frames)], stream=bool(body.stream))
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
    return Visit.of(http.scope).caller.owner


def _found(store: ResponseStore, name: str, http: HttpRequest) -> Kept:
    kept = store.find(name)
    if kept is None or kept.owner != _owner(http):
        raise ResponseNotFound(name)
    return kept


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")

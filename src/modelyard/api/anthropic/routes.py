"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from dataclasses import replace

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.anthropic.frames import MessageFrames
from modelyard.api.anthropic.schema import CountRequest, MessagesRequest
from modelyard.api.media.load import MediaLoader
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.prompts import Chat
from modelyard.yard.yard import Yard


def message_routes(yard: Yard, media: MediaLoader) -> APIRouter:
    """Anthropic's endpoints on ``yard``."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/messages", response_model=None)
    async def create_message(body: MessagesRequest, http: HttpRequest) -> Response:
        """Answer a conversation, whole or as a stream of named events."""
        request = await RequestBody.of(http.scope).converted(body.checked)
        request = replace(request, urgency=wait_options_of(http, body.keep_alive))
        request = await media.loaded(request, http.receive)
        assert isinstance(request.prompt, Chat)
        return respond(yard, [ChoiceRequest(request, MessageFrames(request.prompt))], stream=bool(body.stream))

    @router.post("/v1/messages/count_tokens", response_model=None)
    async def count_tokens(body: CountRequest, http: HttpRequest) -> Response:
        """The tokens that a conversation has, with its system prompt and its tools."""
        request = await RequestBody.of(http.scope).converted(body.checked)
        request = replace(request, urgency=wait_options_of(http, body.keep_alive))

        async def ask() -> bytes:
            spelling = await yard.tokenize(await media.resolved(request))
            return orjson.dumps({"input_tokens": len(spelling.tokens)})

        return JsonResponse(ask)

    return router

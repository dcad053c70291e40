"""POST /v1/messages."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.anthropic.frames import MessageFrames
from modelyard.api.anthropic.schema import MessagesRequest
from modelyard.api.json_route import JsonRoute
from modelyard.api.reply import Ask, reply
from modelyard.api.urgency import urgency
from modelyard.engine.messages import Chat
from modelyard.yard.yard import Yard


def message_routes(yard: Yard) -> APIRouter:
    """Anthropic's endpoints on ``yard``."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/messages", response_model=None)
    async def create_message(body: MessagesRequest, http: HttpRequest) -> Response:
        """Answer a conversation, whole or as a stream of named events."""
        request = replace(body.checked(), urgency=urgency(http.headers, body.keep_alive))
        assert isinstance(request.prompt, Chat)
        return reply(yard, [Ask(request, MessageFrames(request.prompt))], stream=bool(body.stream))

    return router

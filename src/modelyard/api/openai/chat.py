"""POST /v1/chat/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.images import ImageLoader
from modelyard.api.json_route import JsonRoute
from modelyard.api.openai.chunks import Chunks, identity
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.openai.usage import usage_object
from modelyard.api.reply import reply
from modelyard.api.urgency import urgency
from modelyard.engine.messages import Finished
from modelyard.yard.generation import Generation
from modelyard.yard.yard import Yard


class ChatFrames:
    """Writes one chat completion."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage

    def open(self, generation: Generation) -> bytes:
        """The chunk that names the role."""
        self._identity = identity(generation, "chatcmpl")
        common = {"object": "chat.completion.chunk", **self._identity}
        self._chunks = Chunks(common, include_usage=self._include_usage)
        self._before_text = self._chunks.head + b'[{"index":0,"delta":{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}]' + self._chunks.tail
        return self._chunks.of(_delta({"role": "assistant", "content": ""}, None))

    def text(self, text: str) -> bytes:
        """A chunk of content."""
        return self._before_text + orjson.dumps(text) + self._after_text

    def close(self, finished: Finished) -> bytes:
        """The chunk with the reason, and the end."""
        return self._chunks.end(_delta({}, finished.reason), finished.usage)

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        """The completion as one object."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.reason}
        usage = usage_object(finished.usage)
        return {"object": "chat.completion", **self._identity, "choices": [choice], "usage": usage}


def _delta(delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def chat_routes(yard: Yard, images: ImageLoader) -> APIRouter:
    """The chat endpoint on ``yard``."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/chat/completions", response_model=None)
    async def create_chat_completion(body: ChatCompletionRequest, http: HttpRequest) -> Response:
        """Answer a conversation, whole or as a stream."""
        request = replace(body.checked(), urgency=urgency(http.headers, body.keep_alive))
        request = await images.loaded(request, http.receive)
        return reply(yard, request, ChatFrames(include_usage=body.wants_usage), stream=bool(body.stream))

    return router

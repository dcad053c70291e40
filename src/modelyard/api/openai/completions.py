"""POST /v1/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.json_route import JsonRoute
from modelyard.api.openai.chunks import Chunks, identity
from modelyard.api.openai.schema import CompletionRequest
from modelyard.api.openai.usage import usage_object
from modelyard.api.reply import reply
from modelyard.api.urgency import urgency
from modelyard.engine.messages import Finished
from modelyard.yard.generation import Generation
from modelyard.yard.yard import Yard


class CompletionFrames:
    """Writes one text completion."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage

    def open(self, generation: Generation) -> bytes:
        """Nothing: a text completion begins with its text."""
        self._common = {"object": "text_completion", **identity(generation, "cmpl")}
        self._chunks = Chunks(self._common, include_usage=self._include_usage)
        self._before_text = self._chunks.head + b'[{"index":0,"text":'
        self._after_text = b',"logprobs":null,"finish_reason":null}]' + self._chunks.tail
        return b""

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        return self._before_text + orjson.dumps(text) + self._after_text

    def close(self, finished: Finished) -> bytes:
        """The chunk with the reason, and the end."""
        return self._chunks.end(_choice("", finished.reason), finished.usage)

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        """The completion as one object."""
        choices = [_choice(text, finished.reason)]
        return {**self._common, "choices": choices, "usage": usage_object(finished.usage)}


def _choice(text: str, finish_reason: str) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def completion_routes(yard: Yard) -> APIRouter:
    """The completion endpoint on ``yard``."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/completions", response_model=None)
    async def create_completion(body: CompletionRequest, http: HttpRequest) -> Response:
        """Continue a text, whole or as a stream."""
        request = replace(body.checked(), urgency=urgency(http.headers, body.keep_alive))
        return reply(yard, request, CompletionFrames(include_usage=body.wants_usage), stream=bool(body.stream))

    return router

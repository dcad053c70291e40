"""POST /v1/completions."""

from __future__ import annotations

import time
import uuid
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from modelyard.api.openai.schema import CompletionRequest
from modelyard.api.openai.usage import usage_object
from modelyard.api.reply import StreamReply, WholeReply
from modelyard.engine.messages import Finished
from modelyard.yard.generation import Generation
from modelyard.yard.yard import Yard


class CompletionFrames:
    """Writes one text completion. include_usage adds OpenAI's usage chunk at the end of a stream."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage

    def open(self, generation: Generation) -> bytes:
        """Nothing: a text completion begins with its text."""
        self._identity = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": generation.model,
            "system_fingerprint": generation.fingerprint,
        }
        self._head = b"data: " + orjson.dumps(self._identity)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        self._after_text = b',"logprobs":null,"finish_reason":null}]' + self._tail
        return b""

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        return self._head + b'[{"index":0,"text":' + orjson.dumps(text) + self._after_text

    def close(self, finished: Finished) -> bytes:
        """The chunk with the reason, the usage where it was asked for, and the end mark."""
        last = self._head + orjson.dumps([_choice("", finished.reason)]) + self._tail
        if self._include_usage:
            last += self._head + b'[],"usage":' + orjson.dumps(usage_object(finished.usage)) + b"}\n\n"
        return last + b"data: [DONE]\n\n"

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        """The completion as one object."""
        return {
            **self._identity,
            "choices": [_choice(text, finished.reason)],
            "usage": usage_object(finished.usage),
        }


def _choice(text: str, finish_reason: str) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def completion_routes(yard: Yard) -> APIRouter:
    """The completion endpoint on ``yard``."""
    router = APIRouter()

    @router.post("/v1/completions", response_model=None)
    async def create_completion(body: CompletionRequest) -> Response:
        """Continue a text, whole or as a stream."""
        request = body.checked()
        options = body.stream_options
        frames = CompletionFrames(include_usage=options is not None and options.include_usage)
        reply = StreamReply if body.stream else WholeReply
        return reply(yard, request, frames)

    return router

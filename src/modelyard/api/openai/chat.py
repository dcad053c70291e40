"""POST /v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.openai.usage import usage_object
from modelyard.api.reply import StreamReply, WholeReply
from modelyard.engine.messages import Finished
from modelyard.yard.generation import Generation
from modelyard.yard.yard import Yard


class ChatFrames:
    """Writes one chat completion. include_usage adds OpenAI's usage chunk at the end of a stream."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage

    def open(self, generation: Generation) -> bytes:
        """The chunk that names the role."""
        self._identity = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": generation.model,
            "system_fingerprint": generation.fingerprint,
        }
        # All chunks of a stream differ in their choices alone, so everything before and behind is rendered once.
        head = orjson.dumps({"object": "chat.completion.chunk", **self._identity})[:-1]
        tail = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        self._head = b"data: " + head + b',"choices":'
        self._tail = tail
        self._before_text = self._head + b'[{"index":0,"delta":{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}]' + tail
        return self._chunk({"role": "assistant", "content": ""}, None)

    def text(self, text: str) -> bytes:
        """A chunk of content."""
        return self._before_text + orjson.dumps(text) + self._after_text

    def close(self, finished: Finished) -> bytes:
        """The chunk with the reason, the usage where it was asked for, and the end mark."""
        last = self._chunk({}, finished.reason)
        if self._include_usage:
            last += self._head + b'[],"usage":' + orjson.dumps(usage_object(finished.usage)) + b"}\n\n"
        return last + b"data: [DONE]\n\n"

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        """The completion as one object."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.reason}
        return {
            "object": "chat.completion",
            **self._identity,
            "choices": [choice],
            "usage": usage_object(finished.usage),
        }

    def _chunk(self, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head + orjson.dumps([choice]) + self._tail


def chat_routes(yard: Yard) -> APIRouter:
    """The chat endpoint on ``yard``."""
    router = APIRouter()

    @router.post("/v1/chat/completions", response_model=None)
    async def create_chat_completion(body: ChatCompletionRequest) -> Response:
        """Answer a conversation, whole or as a stream."""
        request = body.checked()
        options = body.stream_options
        frames = ChatFrames(include_usage=options is not None and options.include_usage)
        reply = StreamReply if body.stream else WholeReply
        return reply(yard, request, frames)

    return router

"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.media.load import MediaLoader
from modelyard.api.openai.chunks import Chunks, EventFrames, Identity
from modelyard.api.openai.message import delta_object, logprobs_object, message_object
from modelyard.api.openai.schema import ChatCompletionRequest, choices_of
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.output_reader import OutputReader
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.deltas import Delta, ToolCallEnd
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.generation import TokenStream
from modelyard.yard.yard import Yard


class ChatFrames(EventFrames):
    """Writes one choice of a chat completion.

    Args:
        body: the request.
        chat: what is answered.
        identity: of the completion.
        index: of the choice.
    """

    def __init__(self, body: ChatCompletionRequest, chat: Chat, identity: Identity, index: int = 0) -> None:
        self._body, self._chat, self._identity, self._index = body, chat, identity, index
        self._has_logprobs = bool(body.logprobs)
        self._has_called = False

    def open(self, generation: TokenStream) -> bytes:
        """The chunk that names the role."""
        self._generation = generation
        self._reader = OutputReader(generation, self._chat)
        self._is_bare = self._reader.is_plain and not self._has_logprobs
        self._common = self._identity.of(generation)
        common = {"object": "chat.completion.chunk", **self._common}
        self._chunks = Chunks(common, include_usage=self._body.wants_usage, choices=self._body.choices)
        self._before_text = self._chunks.head + b'[{"index":%d,"delta":{"content":' % self._index
        self._after_text = b'},"logprobs":null,"finish_reason":null}]' + self._chunks.tail
        return self._chunks.of(self._choice({"role": "assistant", "content": ""}))

    def text(self, text: str) -> bytes:
        """Chunks of content, reasoning and calls."""
        if self._is_bare:
            return self._before_text + orjson.dumps(text) + self._after_text
        return self._written(self._reader.push(text))

    def close(self, finished: Finished) -> bytes:
        """What was held back, and the chunk with the reason."""
        rest = self._written(self._reader.finish())
        reason = "tool_calls" if self._has_called else finished.reason
        return rest + self._chunks.of(self._choice({}, finish_reason=reason))

    def end(self, finished: Sequence[Finished]) -> bytes:
        """The usage, where it was asked for, and the end mark."""
        return self._chunks.end(finished)

    def choice(self, text: str, finished: Finished) -> dict[str, Any]:
        """The choice in a whole completion."""
        message = self._reader.whole(text)
        return {
            "index": self._index,
            "message": message_object(message),
            "logprobs": logprobs_object(self._generation.logprobs) if self._has_logprobs else None,
            "finish_reason": "tool_calls" if message.tool_calls else finished.reason,
        }

    def whole(self, choices: Sequence[Any], finished: Sequence[Finished]) -> dict[str, Any]:
        """The completion as one object."""
        usage = usage_object(total_usage(finished, self._body.choices))
        return {"object": "chat.completion", **self._common, "choices": choices, "usage": usage}

    def _written(self, deltas: list[Delta]) -> bytes:
        self._has_called = self._has_called or any(isinstance(delta, ToolCallEnd) for delta in deltas)
        choices = [self._choice(delta) for delta in map(delta_object, deltas) if delta is not None]
        if self._has_logprobs and self._generation.logprobs:
            taken, self._generation.logprobs = self._generation.logprobs, []
            choices = choices or [self._choice({})]
            choices[0]["logprobs"] = logprobs_object(taken)
        return b"".join(map(self._chunks.of, choices))

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def chat_routes(yard: Yard, media: MediaLoader) -> APIRouter:
    """The chat endpoint on ``yard``."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/chat/completions", response_model=None)
    async def create_chat_completion(body: ChatCompletionRequest, http: HttpRequest) -> Response:
        """Answer a conversation, whole or as a stream."""
        request = await RequestBody.of(http.scope).converted(body.checked)
        request = replace(request, urgency=wait_options_of(http, body.keep_alive))
        request = await media.loaded(request, http.receive)
        assert isinstance(request.prompt, Chat)
        identity = Identity("chatcmpl")
        asks = [
            ChoiceRequest(choice, ChatFrames(body, request.prompt, identity, index))
            for index, choice in enumerate(choices_of(request, body.choices))
        ]
        return respond(yard, asks, stream=bool(body.stream))

    return router

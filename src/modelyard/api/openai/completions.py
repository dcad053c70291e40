"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.openai.chunks import Chunks, EventFrames, Identity
from modelyard.api.openai.schema import CompletionRequest, choices_of
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.events import Finished
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.generation import TokenStream
from modelyard.yard.yard import Yard


class CompletionFrames(EventFrames):
    """Writes one choice of a text completion.

    Args:
        body: the request.
        identity: of the completion.
        index: of the choice.
    """

    def __init__(self, body: CompletionRequest, identity: Identity, index: int = 0) -> None:
        self._body, self._identity, self._index = body, identity, index
        self._has_logprobs = body.logprobs is not None
        # Where the next token begins, in characters of the answer.
        self._offset = 0

    def open(self, generation: TokenStream) -> bytes:
        """Nothing: a text completion begins with its text."""
        self._generation = generation
        self._common = {"object": "text_completion", **self._identity.of(generation)}
        self._chunks = Chunks(self._common, include_usage=self._body.wants_usage, choices=self._body.choices)
        self._before_text = self._chunks.head + b'[{"index":%d,"text":' % self._index
        self._after_text = b',"logprobs":null,"finish_reason":null}]' + self._chunks.tail
        return b""

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        if self._has_logprobs:
            return self._chunks.of(self._choice(text, None))
        return self._before_text + orjson.dumps(text) + self._after_text

    def close(self, finished: Finished) -> bytes:
        """The chunk with the reason."""
        return self._chunks.of(self._choice("", finished.reason))

    def end(self, finished: Sequence[Finished]) -> bytes:
        """The usage, where it was asked for, and the end mark."""
        return self._chunks.end(finished)

    def choice(self, text: str, finished: Finished) -> dict[str, Any]:
        """The choice in a whole completion."""
        return self._choice(text, finished.reason)

    def whole(self, choices: Sequence[Any], finished: Sequence[Finished]) -> dict[str, Any]:
        """The completion as one object."""
        usage = usage_object(total_usage(finished, self._body.choices))
        return {**self._common, "choices": choices, "usage": usage}

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        logprobs = None
        if self._has_logprobs:
            taken, self._generation.logprobs = self._generation.logprobs, []
            logprobs = self._logprobs(taken)
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, taken: Sequence[TokenLogprob]) -> dict[str, Any]:
        """OpenAI's older form: lists side by side."""
        tokens = [each.token.decode("utf-8", "replace") for each in taken]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [each.logprob for each in taken],
            "top_logprobs": [
                {token.decode("utf-8", "replace"): logprob for token, logprob in each.top} for each in taken
            ],
            "text_offset": offsets,
        }


def completion_routes(yard: Yard) -> APIRouter:
    """The completion endpoint on ``yard``."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/completions", response_model=None)
    async def create_completion(body: CompletionRequest, http: HttpRequest) -> Response:
        """Continue texts, whole or as a stream."""
        how = wait_options_of(http, body.keep_alive)
        requests = [
            choice for request in body.checked() for choice in choices_of(replace(request, urgency=how), body.choices)
        ]
        identity = Identity("cmpl")
        asks = [
            ChoiceRequest(request, CompletionFrames(body, identity, index)) for index, request in enumerate(requests)
        ]
        return respond(yard, asks, stream=bool(body.stream))

    return router

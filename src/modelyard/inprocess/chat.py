"""Chats in process, whole and as streams of chunks, through the same calls of the yard as over HTTP.

Hot path: ``_ChatWriter.pieces`` runs once a chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from modelyard.api.media.load import MediaLoader
from modelyard.api.openai.chat import chat_choices
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.message import delta_object, logprobs_object
from modelyard.api.openai.schema import ChatCompletionRequest, choices_of
from modelyard.api.serving.streaming import whole_answer
from modelyard.inprocess.answers import ChatCompletion, ChatCompletionChunk
from modelyard.inprocess.choices import Accepting, chunk_fields
from modelyard.protocol.deltas import Delta
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.requests import Request, WaitOptions
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.yard import Yard


class Chats:
    """Answers chats with the models of ``yard``; ``media`` loads images and sound."""

    def __init__(self, yard: Yard, media: MediaLoader) -> None:
        self._yard, self._media = yard, media

    async def whole(self, body: ChatCompletionRequest) -> ChatCompletion:
        """Return the whole answer to ``body``.

        Raises:
            ModelyardError: as ``Yard.generate``.
        """
        request = await self._media.resolved(to_request(body))
        answer, _ = await whole_answer(self._yard, chat_choices(body, request))
        return ChatCompletion.model_validate(answer)

    async def chunks(
        self, body: ChatCompletionRequest, request: Request, accepting: Accepting
    ) -> AsyncGenerator[ChatCompletionChunk]:
        """Yield the answer to ``body`` as chunks; closing the generator cancels the generation.

        Args:
            body: the request as it came.
            request: the same request for the yard.
            accepting: waits until the answer begins.

        Raises:
            ModelyardError: as ``Yard.generate``, also in the middle of the answer.
        """
        request = await self._media.resolved(request)
        chat = request.prompt
        assert isinstance(chat, Chat)
        fields = chunk_fields(
            self._yard,
            choices_of(request, body.choices),
            Identity("chatcmpl"),
            lambda generation, index: _ChatWriter(body, generation, chat, index),
            accepting,
            choices=body.choices,
            timings_per_token=bool(body.timings_per_token),
        )
        async with aclosing(fields):
            async for each in fields:
                yield ChatCompletionChunk.model_validate(each)


def to_request(body: ChatCompletionRequest) -> Request:
    """Return ``body`` as a request to the yard.

    Raises:
        InvalidRequest: the value of a field is not supported.
    """
    return replace(body.checked(), wait_options=WaitOptions(keep_alive_s=body.keep_alive))


class _ChatWriter:
    def __init__(self, body: ChatCompletionRequest, generation: TokenStream, chat: Chat, index: int) -> None:
        self._generation, self._index, self._has_logprobs = generation, index, bool(body.logprobs)
        self._as_ids = bool(body.return_tokens_as_token_ids)
        self._reader = OutputReader(generation, chat)
        self._is_bare = self._reader.is_plain and not self._has_logprobs

    def opening(self) -> Iterator[Mapping[str, Any]]:
        yield {"index": self._index, "delta": {"role": "assistant", "content": ""}}

    def pieces(self, text: str) -> Iterator[Mapping[str, Any]]:
        if self._is_bare:
            yield {"index": self._index, "delta": {"content": text}}
        else:
            yield from self._written(self._reader.push(text))

    def closing(self, finished: Finished) -> Iterator[Mapping[str, Any]]:
        yield from self._written(self._reader.finish(finished))
        yield {
            "index": self._index,
            "delta": {},
            "finish_reason": "tool_calls" if self._reader.ends_with_calls(finished) else finished.reason,
            "logprobs": self._logprobs(),
        }

    def _written(self, deltas: Sequence[Delta]) -> Iterator[Mapping[str, Any]]:
        for delta in map(delta_object, deltas):
            if delta is not None:
                yield {"index": self._index, "delta": delta, "logprobs": self._logprobs()}

    def _logprobs(self) -> Mapping[str, Any] | None:
        """Return the log-probabilities of the tokens since the last chunk that had any."""
        if not self._has_logprobs or not self._generation.logprobs:
            return None
        logprobs, self._generation.logprobs = self._generation.logprobs, []
        return logprobs_object(logprobs, as_ids=self._as_ids)

"""Chats in process, whole and as streams of typed chunks, through the same calls of the yard as over HTTP.

Hot path: ``_ChunkWriter.pieces`` runs once a chunk, whose text is everything that has arrived since the last chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace

from modelyard.api.media.load import MediaLoader
from modelyard.api.openai.chat import ChatEncoder
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.message import delta_object, logprobs_object
from modelyard.api.openai.schema import ChatCompletionRequest, choices_of
from modelyard.api.openai.usage import total_usage
from modelyard.api.serving.output_reader import OutputReader
from modelyard.api.serving.streaming import ChoiceRequest, whole_answer
from modelyard.inprocess.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    CompletionUsage,
)
from modelyard.protocol.deltas import Delta
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.protocol.values import Usage
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
        assert isinstance(request.prompt, Chat)
        identity = Identity("chatcmpl")
        requests = [
            ChoiceRequest(choice, ChatEncoder(body, request.prompt, identity, index))
            for index, choice in enumerate(choices_of(request, body.choices))
        ]
        answer, finished = await whole_answer(self._yard, requests)
        return ChatCompletion(
            id=answer["id"],
            created=answer["created"],
            model=answer["model"],
            system_fingerprint=answer["system_fingerprint"],
            choices=tuple(map(Choice.of, answer["choices"])),
            usage=CompletionUsage.of(total_usage(finished, body.choices)),
        )

    async def chunks(self, body: ChatCompletionRequest, request: Request) -> AsyncGenerator[ChatCompletionChunk]:
        """Yield the answer to ``body`` as chunks; closing the generator cancels the generation.

        Args:
            body: the request as it came.
            request: the same request for the yard.

        Raises:
            ModelyardError: as ``Yard.generate``, also in the middle of the answer.
        """
        request = await self._media.resolved(request)
        assert isinstance(request.prompt, Chat)
        await self._yard.check(request.model, "text")
        with ExitStack() as submitted:
            generations = [
                submitted.enter_context(self._yard.submit(choice)) for choice in choices_of(request, body.choices)
            ]
            for generation in generations:
                await generation.accepted()
            identity = Identity("chatcmpl").of(generations[0])
            writers = [
                _ChunkWriter(generation, request.prompt, index, has_logprobs=bool(body.logprobs))
                for index, generation in enumerate(generations)
            ]
            for writer in writers:
                yield ChatCompletionChunk(**identity, choices=(writer.opening(),))
            finished: dict[int, Finished] = {}
            async with aclosing(_texts(generations)) as texts:
                async for index, text in texts:
                    if text is not None:
                        for choice in writers[index].pieces(text):
                            yield ChatCompletionChunk(**identity, choices=(choice,))
                        continue
                    finished[index] = generations[index].outcome()
                    *others, last = writers[index].closing(finished[index])
                    for choice in others:
                        yield ChatCompletionChunk(**identity, choices=(choice,))
                    usage = None
                    if len(finished) == len(generations):
                        usage = CompletionUsage.of(_usage(finished))
                    yield ChatCompletionChunk(**identity, choices=(last,), usage=usage)


def to_request(body: ChatCompletionRequest) -> Request:
    """Return ``body`` as a request to the yard.

    Raises:
        InvalidRequest: the value of a field is not supported.
    """
    return replace(body.checked(), wait_options=WaitOptions(keep_alive_s=body.keep_alive))


def _usage(finished: dict[int, Finished]) -> Usage:
    return total_usage([finished[index] for index in sorted(finished)], len(finished))


async def _texts(generations: Sequence[TokenStream]) -> AsyncGenerator[tuple[int, str | None]]:
    """Yield the texts of all generations as they arrive, each with the index of its generation; None marks its end."""
    if len(generations) == 1:
        async for text in generations[0]:
            yield 0, text
        yield 0, None
        return
    reading = {index: asyncio.create_task(_next(generation)) for index, generation in enumerate(generations)}
    try:
        while reading:
            await asyncio.wait(reading.values(), return_when=asyncio.FIRST_COMPLETED)
            for index, task in [(index, task) for index, task in reading.items() if task.done()]:
                piece = task.result()
                if piece is None:
                    del reading[index]
                else:
                    reading[index] = asyncio.create_task(_next(generations[index]))
                yield index, piece
    finally:
        for task in reading.values():
            task.cancel()
        await asyncio.gather(*reading.values(), return_exceptions=True)


async def _next(generation: AsyncIterator[str]) -> str | None:
    return await anext(generation, None)


class _ChunkWriter:
    """Turns the text of one generation into chunks of its choice."""

    def __init__(self, generation: TokenStream, chat: Chat, index: int, *, has_logprobs: bool) -> None:
        self._generation, self._index, self._has_logprobs = generation, index, has_logprobs
        self._reader = OutputReader(generation, chat)
        self._is_bare = self._reader.is_plain and not has_logprobs

    def opening(self) -> ChunkChoice:
        """Return the first chunk, which has the role."""
        return ChunkChoice(self._index, ChoiceDelta(content="", role="assistant"))

    def pieces(self, text: str) -> Iterator[ChunkChoice]:
        """Yield the chunks that ``text`` completes."""
        if self._is_bare:
            yield ChunkChoice(self._index, ChoiceDelta(text))
        else:
            yield from self._written(self._reader.push(text))

    def closing(self, finished: Finished) -> Iterator[ChunkChoice]:
        """Yield the chunks of text that the reader held back, and the last chunk, which has the finish reason."""
        yield from self._written(self._reader.finish(finished))
        yield ChunkChoice(
            self._index,
            ChoiceDelta(),
            "tool_calls" if self._reader.ends_with_calls(finished) else finished.reason,
            self._logprobs(),
        )

    def _written(self, deltas: Sequence[Delta]) -> Iterator[ChunkChoice]:
        objects = [each for delta in deltas if (each := delta_object(delta)) is not None]
        for each in objects:
            yield ChunkChoice(self._index, ChoiceDelta.of(each), logprobs=self._logprobs())

    def _logprobs(self) -> ChoiceLogprobs | None:
        """Return the log-probabilities of the tokens since the last chunk that had any."""
        if not self._has_logprobs or not self._generation.logprobs:
            return None
        logprobs, self._generation.logprobs = self._generation.logprobs, []
        return ChoiceLogprobs.of(logprobs_object(logprobs))

"""Streams of chunks for programs: one for an event loop, one for any thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Self, TypeVar

from modelyard.errors import Closed, ModelyardError
from modelyard.inprocess.answers import ChatCompletionChunk
from modelyard.inprocess.loop_thread import LoopThread

_Owner = TypeVar("_Owner")


class AsyncChatStream:
    """An answer as it arrives. Iterate it once; leaving its context, or ``aclose``, ends the generation within a step.

    The request starts when the first chunk is read. Use a context if the stream may not be read to its end:

        async with model.stream_chat_request("Tell me a story.") as stream:
            async for chunk in stream:
                print(chunk.choices[0].delta.content or "", end="")
    """

    def __init__(self, chunks: AsyncGenerator[ChatCompletionChunk]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """End the generation. Idempotent."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class ChatStream:
    """An answer as it arrives. Iterate it once; ``close``, from any thread, ends the generation within a step.

    The request starts when the first chunk is read. Use a context if the stream may not be read to its end:

        with model.stream_chat_request("Tell me a story.") as stream:
            for chunk in stream:
                print(chunk.choices[0].delta.content or "", end="")
    """

    def __init__(self, owner: object, thread: LoopThread[_Owner], chunks: Callable[[_Owner], AsyncChatStream]) -> None:
        # A model closes its thread when it is collected, so the stream keeps a reference to it.
        self._owner, self._thread = owner, thread
        self._reader = thread.call_sync(lambda value: _Reader(chunks(value)))
        self._has_ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChatCompletionChunk:
        if self._has_ended:
            raise StopIteration
        try:
            chunk = self._thread.call(lambda _: self._reader.next())
        except BaseException:
            self._has_ended = True
            raise
        if chunk is None:
            self._has_ended = True
            raise StopIteration
        return chunk

    def close(self) -> None:
        """End the generation. Idempotent; a thread that is reading reaches the end of the stream."""
        self._has_ended = True
        # A model that is closed has ended its streams.
        with suppress(Closed):
            self._thread.call(lambda _: self._reader.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_has_ended") and not self._has_ended:
            # A finalizer may run on any thread, so it must not block.
            with suppress(ModelyardError, RuntimeError):
                self._thread.submit(lambda _: self._reader.close())


class _Reader:
    """Reads a stream on its event loop, where ``close`` can cancel the read."""

    def __init__(self, stream: AsyncChatStream) -> None:
        self._stream = stream
        self._reading: asyncio.Future[ChatCompletionChunk | None] | None = None

    async def next(self) -> ChatCompletionChunk | None:
        """Return the next chunk; None at the end of the stream and after ``close``."""
        self._reading = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait((self._reading,))
        finally:
            self._reading.cancel()
        return None if self._reading.cancelled() else self._reading.result()

    async def close(self) -> None:
        """Cancel a pending read and close the stream."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        await self._stream.aclose()

    async def _read(self) -> ChatCompletionChunk | None:
        return await anext(self._stream, None)
